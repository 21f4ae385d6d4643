"""Reads and writes advances of sandbox test clocks, and the claim that lets one worker at a time turn a clock."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from tallybook.core.tenant import Tenant
from tallybook.storage import queries
from tallybook.storage.postgres import Connection, Row
from tallybook.subscriptions.model import ClockRun

_QUERIES = queries.load(__package__)
_LOCK_CLASS = 0x7C10C4
"""First key of the advisory locks on test clocks; the second is the tenant."""
ITEMS_KEPT = 200
"""How many processed deadlines a run tells about; it counts all of them."""


async def insert(
    connection: Connection, tenant: Tenant, run_id: str, started_at_time: datetime, target_time: datetime, estimated: int
) -> ClockRun:
    """Start an advance. Raises UniqueViolationError while another one of the tenant is under way."""
    await connection.execute(_QUERIES["insert_clock_run"], run_id, tenant.id, started_at_time, target_time, estimated)
    return ClockRun(run_id, tenant, "pending", started_at_time, target_time, estimated, 0, 0, (), None)


async def latest(connection: Connection, tenant: Tenant) -> ClockRun | None:
    """The tenant's last advance."""
    row = await connection.fetchrow(_QUERIES["latest_clock_run"], tenant.id)
    return None if row is None else _run(row)


async def unfinished(connection: Connection, limit: int) -> Sequence[ClockRun]:
    """Advances that are waiting or were left half done, the one that nobody has looked at for longest first."""
    return [_run(row) for row in await connection.fetch(_QUERIES["unfinished_clock_runs"], limit)]


async def try_claim(connection: Connection, tenant_id: int) -> bool:
    """Claim a clock for as long as this connection lives, or until `release`."""
    return await connection.fetchval(_QUERIES["try_claim_clock"], _LOCK_CLASS, tenant_id)


async def release(connection: Connection, tenant_id: int) -> None:
    """Let go of a claimed clock."""
    await connection.execute(_QUERIES["release_clock"], _LOCK_CLASS, tenant_id)


async def start(connection: Connection, run_id: str) -> bool:
    """Note that the run is being worked on. False when it has ended before."""
    return await connection.fetchval(_QUERIES["clock_run_started"], run_id) is not None


async def note(connection: Connection, tenant: Tenant, item: Mapping[str, str | None]) -> None:
    """Tell of a processed deadline in the run that turns the tenant's clock; nothing happens when none does."""
    if tenant.livemode:
        return
    failed = item["status"] == "failed"
    counts = (int(not failed), int(failed))
    await connection.execute(_QUERIES["note_deadline"], tenant.id, [dict(item)], *counts, ITEMS_KEPT)


async def finish(connection: Connection, run_id: str, error: str | None) -> None:
    """End a run: completed, or failed with a reason."""
    await connection.execute(_QUERIES["clock_run_ended"], run_id, "completed" if error is None else "failed", error)


def _run(row: Row) -> ClockRun:
    return ClockRun(
        id=row["id"],
        tenant=Tenant(row["tenant_id"], row["organization_id"], row["livemode"]),
        status=row["status"],
        started_at_time=row["started_at_time"],
        target_time=row["target_time"],
        estimated=row["estimated"],
        completed=row["completed"],
        failed=row["failed"],
        items=tuple(row["items"]),
        error=row["error"],
    )
