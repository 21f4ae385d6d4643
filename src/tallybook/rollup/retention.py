"""Raw events that are old enough go, a month of arrival at a time, and their sums stay.

What was computed from them stands where it is: hourly totals, pools, ledger, invoices. Their own sums are kept, so reconciliation goes
on comparing everything with everything. What reads single events (voids, re-rating, reports by property) is told since when there are any.
Whoever compares single events with sums reads them in a `snapshot` of this module.
"""

import asyncio
import contextlib
import logging
import random
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import datetime

from tallybook.core import clock
from tallybook.rollup import rules, store
from tallybook.storage import postgres, queries
from tallybook.storage.postgres import Connection, Pool, Querying

_SQL = queries.load("tallybook.rollup", "retention.sql")
_LIST_SQL = queries.load("tallybook.rollup")
_NAME = re.compile(r"usage_events_([0-9]{4})_([0-9]{2})")
_PATIENCE = "200ms"
"""How long readers of the table may be held up at most by one try, waiting behind it."""
_PAUSE_S = (2.0, 5.0)
"""Between two tries, in which all of them get through; by chance, so that it falls in with nobody's rhythm."""
_DETACHES_MAX = 30
_SUMMING_S_MAX = 6 * 3600.0
"""A month may hold billions of events."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DroppedMonth:
    """A month of arrival that was dropped, and how many records of the log it held."""

    name: str
    events: int


async def drop_old(database: Pool, now: datetime, months_kept: int) -> list[DroppedMonth]:
    """Drop months that ended more than `months_kept` whole months ago, oldest first; 0 keeps all.

    A month stays while something in it is paid by a period that is not closed, and while other readers leave no moment to take it
    out. Any number of workers may do this, and cancelling it leaves the month as it was.
    """
    if months_kept == 0:
        return []
    dropped: list[DroppedMonth] = []
    for year, month in _old(await store.months_made(database), now, months_kept):
        async with database.acquire() as connection:
            one = await _drop(connection, year, month, now)
        if one is None:
            break
        _LOG.info("dropped %s with %d events; their sums are kept", one.name, one.events)
        dropped.append(one)
    return dropped


@contextlib.asynccontextmanager
async def snapshot(database: Pool) -> AsyncGenerator[Connection]:
    """A snapshot in which each month is whole, or gone with its sums kept; no month goes meanwhile.

    A statement that waits for a month to go finds it gone, whatever its snapshot says; so the lock comes first, and then the snapshot.
    """
    async with postgres.snapshot(database) as connection:
        await hold_months(connection)
        yield connection


async def hold_months(connection: Connection) -> None:
    """Keep months from going until the transaction ends. As its first statement, it makes of it what `snapshot` gives."""
    await connection.execute(_SQL["hold_months"], timeout=_SUMMING_S_MAX)


async def usage_start(connection: Querying, tenant_id: int) -> datetime | None:
    """Since when all raw usage of a tenant is there, by when it occurred; None: nothing was dropped."""
    return await connection.fetchval(_SQL["raw_usage_start"], tenant_id)


async def lost_model_usage(
    connection: Querying, starts_at: datetime, ends_at: datetime, tenant_id: int | None, customer_id: int | None
) -> datetime | None:
    """The end of the last hour in [starts_at, ends_at) whose usage priced by AI model is not all there; None: it all is."""
    return await connection.fetchval(_SQL["lost_model_usage"], starts_at, ends_at, tenant_id, customer_id)


def _old(names: set[str], now: datetime, months_kept: int) -> list[tuple[int, int]]:
    found = [(int(match[1]), int(match[2])) for match in map(_NAME.fullmatch, names) if match]
    return sorted((year, month) for year, month in found if (now.year - year) * 12 + now.month - month > months_kept)


async def _drop(connection: Connection, year: int, month: int, now: datetime) -> DroppedMonth | None:
    """None when it has to stay for now, or somebody else has dropped it."""
    name, bounds = store.month_name(year, month), rules.month_bounds(year, month)
    async with connection.transaction():
        await connection.execute(_LIST_SQL["lock_months"])
        if name not in await store.months_made(connection):
            return None
        await connection.execute(_SQL["lock_month"].format(month=name))
        unbilled = await connection.fetchval(_SQL["unbilled_usage"], *bounds, timeout=_SUMMING_S_MAX)
        if unbilled is not None:
            _LOG.warning("%s is old enough to go, and stays: customer %d has usage in it that is not billed yet", name, unbilled)
            return None
        events = await connection.fetchval(_SQL["note_dropped"], *bounds, now, timeout=_SUMMING_S_MAX)
        for statement in ("keep_hourly", "keep_moves", "note_starts"):
            await connection.execute(_SQL[statement], *bounds, timeout=_SUMMING_S_MAX)
        await _detach(connection, name)
        await connection.execute(f"DROP TABLE {name}")
    return DroppedMonth(name, events)


async def _detach(connection: Connection, name: str) -> None:
    """Take the month out between two readers, without making the others wait long. Raises what Postgres does when none lets it.

    A try that failed has given its lock back before the pause.
    """
    await connection.execute(f"SET LOCAL lock_timeout = '{_PATIENCE}'")
    for attempt in range(1, _DETACHES_MAX + 1):
        try:
            async with connection.transaction():
                await connection.execute(_SQL["detach_month"].format(month=name))
        except postgres.LockNotAvailableError:
            if attempt == _DETACHES_MAX:
                raise
        else:
            return
        await asyncio.sleep(random.uniform(*_PAUSE_S))  # noqa: S311 - keeps no secret


def why_unknown(starts_at: datetime) -> str:
    """A sentence for whoever looks for an event that may have been dropped."""
    return f"Events that occurred before {clock.iso(starts_at)} were dropped after their time; their sums are kept."
