"""The judge of every test that injects faults: what was acknowledged against what the stores hold, in integers.

1 every accepted id is in `usage_events` once, and nothing that was never sent · 2 events = hourly totals + quarantine ·
3 pools: opening + grants - charges = till = ledger · 4 invoice lines + open = billable · 5 no prefix of the log takes a blocking
pool below zero · 6 logs dense, offsets within them · 7 each acknowledged amount is the stored event's.
2, 3, 4 and 6 are what `tallybook reconcile` proves.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from tallybook.core import partitions as partition_names
from tallybook.flows import reconcile
from tallybook.rollup import store
from tallybook.storage import postgres, redis
from tallybook.storage.postgres import Pool
from tallybook.storage.redis import Redis
from tests.support import waiting

_STANDS_S = 60.0
"""A rollup that writes nothing for so long has stopped."""


class Identity(NamedTuple):
    """What makes an event one event: organization and mode, customer, the caller's id."""

    tenant_id: int
    customer_id: int
    event_id: str


class Answer(StrEnum):
    """What the client knows of an id. A duplicate of something it sent itself is an acceptance."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    UNKNOWN = "unknown"


class Sent(NamedTuple):
    """The last definite answer to an id; `amount` is what the answer said was taken, 1e-9 of the pool's unit, if it said."""

    answer: Answer
    amount: int | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What the judge found. Lists hold a few examples' worth: the identities themselves."""

    acked: int
    unknown: int
    lost: Sequence[Identity]
    doubled: Sequence[Identity]
    invented: Sequence[Identity]
    other_amount: Sequence[Identity]
    overdrawn: Sequence[tuple[int, str, int]]
    books: reconcile.Report
    behind: Sequence[int] = field(default=())

    @property
    def drift(self) -> int:
        """How many sums do not agree."""
        return sum(not one.is_equal for one in self.books.sums) + len(self.books.differences)

    @property
    def is_clean(self) -> bool:
        """Whether nothing at all is wrong."""
        return not any(True for _ in self.problems())

    def problems(self) -> Iterator[str]:
        """One sentence for each thing that is wrong."""
        for what, found in (
            ("accepted and not in the book", self.lost),
            ("in the book more than once", self.doubled),
            ("in the book and never accepted or unknown", self.invented),
            ("stored with another amount than was answered", self.other_amount),
            ("pools below zero after some prefix of the log", self.overdrawn),
            ("partitions not rolled up to the end", self.behind),
        ):
            if found:
                yield f"{len(found)} {what}, such as {found[0]}"
        for one in self.books.sums:
            if not one.is_equal:
                yield f"{one.what}: {one.left} and {one.right}, {one.differing} places differ"
        for pool in self.books.differences:
            yield f"customer {pool.customer_id} pool {pool.pool}: {pool.what}: {pool.left} and {pool.right}"


async def verify(
    database: Pool, client: Redis, sent: Mapping[Identity, Sent], *, partitions: int, blocking: frozenset[str] | None = None
) -> Report:
    """Judge. The stores must be up; call `until_rolled_up` first while a worker runs, or `behind` will say so.

    `blocking` names the pools that may never be below zero; None asks the catalog.
    """
    behind = await _behind(database, client, partitions)
    stored = await database.fetch("SELECT tenant_id, customer_id, event_id, amount FROM usage_events WHERE kind = 0")
    identities = [Identity(row["tenant_id"], row["customer_id"], row["event_id"] or "") for row in stored]
    counts = Counter(identities)
    amounts = dict(zip(identities, (row["amount"] for row in stored), strict=True))
    accepted = {identity: one for identity, one in sent.items() if one.answer is Answer.ACCEPTED}
    return Report(
        acked=len(accepted),
        unknown=sum(one.answer is Answer.UNKNOWN for one in sent.values()),
        lost=[identity for identity in accepted if identity not in counts],
        doubled=[identity for identity, count in counts.items() if count > 1],
        invented=[identity for identity in counts if sent.get(identity, Sent(Answer.REFUSED)).answer is Answer.REFUSED],
        other_amount=[
            identity
            for identity, one in accepted.items()
            if one.amount is not None and identity in amounts and amounts[identity] != one.amount
        ],
        overdrawn=await _overdrawn(database, blocking),
        books=await reconcile.reconcile(database, client, partitions),
        behind=behind,
    )


async def until_rolled_up(database: Pool, client: Redis, partitions: int) -> None:
    """Wait until the book has read every log to the end, or reads no further: then `behind` says so.

    Needs a running worker and no more traffic.
    """
    loop = asyncio.get_running_loop()
    read, read_at = dict[int, int](), loop.time()

    async def is_level_or_stands() -> bool:
        nonlocal read, read_at
        now = await store.offsets(database, range(partitions))
        if now != read:
            read, read_at = now, loop.time()
        return not await _behind(database, client, partitions) or loop.time() > read_at + _STANDS_S

    await waiting.until(is_level_or_stands)


async def _behind(database: Pool, client: Redis, partitions: int) -> list[int]:
    offsets = await store.offsets(database, range(partitions))
    behind: list[int] = []
    for partition in range(partitions):
        sequence = await client.execute_command("HGET", f"{partition_names.prefix(partition)}:m", "seq")
        if int(redis.text(sequence) or 0) != offsets.get(partition, 0):
            behind.append(partition)
    return behind


_BLOCKING_POOLS = """
WITH named AS (
    SELECT DISTINCT
        pool, split_part(pool, '.', 1) AS subscription, split_part(pool, '.', 2) AS holds, split_part(pool, '.', 3) AS start
    FROM pool_balances
), latest AS (
    SELECT DISTINCT ON (plan_id, feature_id) plan_id, feature_id, overage_enabled, unlimited
    FROM plan_feature_revisions ORDER BY plan_id, feature_id, id DESC
)
SELECT pool FROM named WHERE pool = 'credits' OR holds = 'c'
UNION
SELECT n.pool
FROM named AS n
JOIN subscriptions AS s ON s.id::text = n.subscription
JOIN plans AS p ON p.id = s.plan_id
LEFT JOIN latest AS l ON l.plan_id = p.id AND 'f' || l.feature_id = n.holds
WHERE (
    p.is_free
    OR (s.trial_ends_at IS NOT NULL AND n.start::numeric < extract(epoch FROM s.trial_ends_at))
    OR (n.holds = 'b' AND p.block_on_exhaustion)
    OR (n.holds LIKE 'f%' AND NOT l.overage_enabled)
) AND NOT (n.holds LIKE 'f%' AND l.unlimited)
"""
_LOWEST = """
WITH moves AS (
    SELECT customer_id, pool, seq, position, spare_amount - amount AS change FROM usage_events WHERE pool = ANY ($1::text[])
    UNION ALL
    SELECT customer_id, 'credits', seq, position, -spare_amount FROM usage_events
    WHERE spare_amount <> 0 AND 'credits' = ANY ($1::text[])
), running AS (
    SELECT customer_id, pool, sum(change) OVER (PARTITION BY customer_id, pool ORDER BY seq, position) AS moved FROM moves
)
SELECT r.customer_id, r.pool, min(r.moved + b.opening) AS lowest
FROM running AS r JOIN pool_balances AS b USING (customer_id, pool)
GROUP BY 1, 2
HAVING min(r.moved + b.opening) < 0
"""


async def _overdrawn(database: Pool, blocking: frozenset[str] | None) -> list[tuple[int, str, int]]:
    """(customer, pool, lowest) of blocking pools that some prefix of the log leaves below zero.

    The book does not say between which events an opening changed, so all of it counts from the start: a pool whose terms grew in
    the middle is judged less strictly.
    """
    async with postgres.snapshot(database) as connection:
        names = sorted(blocking) if blocking is not None else [row["pool"] for row in await connection.fetch(_BLOCKING_POOLS)]
        rows = await connection.fetch(_LOWEST, names)
    return [(row["customer_id"], row["pool"], int(row["lowest"])) for row in rows]
