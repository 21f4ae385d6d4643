"""How far the book is behind the till, and whether everything that was acknowledged is in it."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.load import Outcome
from tallybook.core import clock, partitions
from tallybook.core.tenant import Tenant
from tallybook.flows import reconcile
from tallybook.flows.services import Services

_LEVEL_POLL_S = 0.02
_LEVEL_S_MAX = 900.0
_OFFSETS = "SELECT partition, last_seq, accepted_at FROM log_offsets"
_EVENTS = "SELECT count(*) AS rows, count(DISTINCT digest) AS ids FROM usage_events WHERE tenant_id = $1 AND kind = 0"


@dataclass(slots=True)
class Acknowledged:
    """What the load was told, over all runs on one installation."""

    events: int = 0
    unknown: int = 0
    unexpected: int = 0
    examples: list[str] = field(default_factory=list[str])

    def add(self, outcome: Outcome) -> Outcome:
        """Count one run's answers."""
        self.events += outcome.accepted
        self.unknown += outcome.unknown
        self.unexpected += outcome.unexpected
        if outcome.example:
            self.examples.append(outcome.example)
        return outcome


def differences(acknowledged: Acknowledged, rows: int, ids: int, books: reconcile.Report) -> list[str]:
    """Why the run is void: one sentence for each thing that is not as it must be. Empty: it counts."""
    found: list[str] = []
    if rows != acknowledged.events:
        found.append(f"{acknowledged.events} events were acknowledged, {rows} are in the book")
    if ids != rows:
        found.append(f"{rows} events in the book have {ids} identities")
    if acknowledged.unknown:
        found.append(f"{acknowledged.unknown} requests had no definite answer")
    if acknowledged.unexpected:
        found.append(f"{acknowledged.unexpected} answers were not what they must be, such as: {acknowledged.examples[0]}")
    found += [f"{one.what}: {one.left} and {one.right}, {one.differing} places differ" for one in books.sums if not one.is_equal]
    return [
        *found,
        *(f"customer {one.customer_id}, {one.pool}: {one.what}: {one.left} and {one.right}" for one in books.differences),
    ]


async def judge(services: Services, tenant: Tenant, acknowledged: Acknowledged) -> list[str]:
    """Compare everything with everything, once the book is level."""
    await until_level(services)
    counted = await services.database.fetchrow(_EVENTS, tenant.id, timeout=600.0)
    assert counted is not None
    books = await reconcile.reconcile(services.database, services.redis, services.settings.partitions)
    return differences(acknowledged, counted["rows"], counted["ids"], books)


async def until_level(services: Services) -> float:
    """Wait until the book has read every log to the end. Returns how many seconds that took. Raises TimeoutError."""
    started = time.perf_counter()
    async with asyncio.timeout(_LEVEL_S_MAX):
        while await _behind(services):  # noqa: ASYNC110 - it is another process that does it
            await asyncio.sleep(_LEVEL_POLL_S)
    return time.perf_counter() - started


async def lag_s(services: Services, since_s: float) -> float:
    """At most how old the oldest entry is that is not in the book; a partition that rested counts from `since_s` (Unix seconds).

    It is the age of the last entry that is in the book of a partition with more: the first one missing is a little younger.
    """
    behind = await _behind(services)
    now = clock.real_clock().timestamp()
    return max((now - max(accepted_s, since_s) for accepted_s in behind), default=0.0)


async def _behind(services: Services) -> Sequence[float]:
    """For each partition that the book is behind in: when its last entry in the book was accepted, in Unix seconds."""
    numbers = range(services.settings.partitions)
    heads = [("HGET", f"{partitions.prefix(number)}:m", "seq") for number in numbers]
    rows = {row["partition"]: row for row in await services.database.fetch(_OFFSETS)}
    sequences = [int(found or 0) for found in await services.redis.pipeline(*heads, atomic=False)]
    return [
        0.0 if rows[number]["accepted_at"] is None else rows[number]["accepted_at"].timestamp()
        for number in numbers
        if sequences[number] > rows[number]["last_seq"]
    ]
