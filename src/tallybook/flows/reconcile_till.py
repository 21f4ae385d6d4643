"""The till against the book, customer by customer: book at offset T + log entries T+1 … S = till at sequence S, to the unit."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from tallybook.charge import states
from tallybook.core import partitions as partition_names
from tallybook.core import usage_log
from tallybook.core.pools import PURCHASED_CREDITS
from tallybook.rollup import log_reader, movements, store, sums
from tallybook.rollup.model import RawEntry
from tallybook.rollup.movements import Movement
from tallybook.rollup.sums import PoolDifference, PoolState, Sum, Terms
from tallybook.storage import postgres, redis
from tallybook.storage.postgres import Pool
from tallybook.storage.redis import Redis

CUSTOMERS_AT_ONCE = 200
_ATTEMPTS = 50
"""How often a comparison begins anew because the worker trimmed the log under it."""

PoolKey = tuple[int, str]
_TERMS = "terms"
"""Stands in place of a pool's name where the versions of a customer's terms differ."""


@dataclass(slots=True)
class _Totals:
    till: int = 0
    book: int = 0
    pools: int = 0
    differing: int = 0


@dataclass(frozen=True, slots=True)
class Chunk:
    """Customers of one partition that are compared together, and the tenants of those that the book knows."""

    partition: int
    customer_ids: Sequence[int]
    tenants: Mapping[int, int]


async def compare(database: Pool, client: Redis, partitions: int) -> tuple[list[Sum], list[PoolDifference]]:
    """All pools of till and book, in both directions, and the state of each partition's log."""
    totals, differences, lost = _Totals(), list[PoolDifference](), list[Chunk]()
    for chunk in await chunks(database, client, partitions):
        found = await compare_chunk(database, client, chunk, totals)
        lost += [chunk] if found is None else []
        differences += found or []
    till_sum = Sum(f"till = book + log, left in {totals.pools} pools", totals.till, totals.book, totals.differing)
    return [till_sum, stopped(lost), *await logs(database, client, partitions)], differences


def stopped(lost: Sequence[Chunk]) -> Sum:
    """Comparisons that could not be made."""
    return sums.none_of("comparisons stopped by missing log entries", [f"partition {chunk.partition}" for chunk in lost])


async def chunks(database: Pool, client: Redis, partitions: int) -> list[Chunk]:
    """All customers that the book or the till has pools of."""
    async with database.acquire() as connection:
        tenants = await sums.customers(connection)
    found = _chunks(tenants, await _customers_of_till(client, partitions), partitions)
    return [Chunk(partition, customer_ids, tenants) for partition, customer_ids in found]


def chunk_of(tenant_id: int, customer_id: int, partitions: int) -> Chunk:
    """One customer."""
    return Chunk(partition_names.of(tenant_id, customer_id, partitions), [customer_id], {customer_id: tenant_id})


async def compare_chunk(
    database: Pool, client: Redis, chunk: Chunk, totals: _Totals | None = None
) -> list[PoolDifference] | None:
    """The pools of these customers that differ; None when the log lacks entries, so that nothing can be said."""
    try:
        return await _compare_chunk(
            database, client, chunk.partition, chunk.customer_ids, chunk.tenants, _Totals() if totals is None else totals
        )
    except _EntriesLostError:
        return None


class _EntriesLostError(Exception):
    """The log lacks entries that the book has not read."""


def _chunks(tenants: Mapping[int, int], till: Mapping[int, set[int]], partitions: int) -> list[tuple[int, list[int]]]:
    """(partition, customers) so that each chunk can be read from the till in one step."""
    by_partition: dict[int, set[int]] = defaultdict(set)
    for customer_id, tenant_id in tenants.items():
        by_partition[partition_names.of(tenant_id, customer_id, partitions)].add(customer_id)
    for partition, customer_ids in till.items():
        by_partition[partition] |= customer_ids
    return [
        (partition, ordered[start : start + CUSTOMERS_AT_ONCE])
        for partition, ordered in sorted((partition, sorted(ids)) for partition, ids in by_partition.items())
        for start in range(0, len(ordered), CUSTOMERS_AT_ONCE)
    ]


async def _customers_of_till(client: Redis, partitions: int) -> dict[int, set[int]]:
    """Customers that the till has a state of, by partition."""
    found: dict[int, set[int]] = {}
    for partition in range(partitions):
        own, cursor = set[int](), b"0"
        while True:
            cursor, words = await client.execute_command("HSCAN", states.key(partition), cursor, "COUNT", 1000)
            own.update(int(name) for name in words[::2] if states.is_customer(name))
            if cursor == b"0":
                break
        found[partition] = own
    return found


async def _compare_chunk(
    database: Pool, client: Redis, partition: int, customer_ids: Sequence[int], tenants: Mapping[int, int], totals: _Totals
) -> list[PoolDifference]:
    for _ in range(_ATTEMPTS):
        async with postgres.snapshot(database) as connection:
            offset = (await store.offsets(connection, [partition])).get(partition, 0)
            book = await sums.pools_of(connection, customer_ids)
            terms = await sums.terms_of(connection, customer_ids)
        sequence, till, versions = await _read_till(client, partition, customer_ids)
        entries = await log_reader.read_between(client, partition, offset, sequence)
        if [entry.seq for entry in entries] == list(range(offset + 1, sequence + 1)):
            expected = _apply(book, entries, set(customer_ids))
            return _differences(expected, till, tenants, totals) + await _other_terms(database, terms, versions, tenants)
    raise _EntriesLostError


async def _read_till(
    client: Redis, partition: int, customer_ids: Sequence[int]
) -> tuple[int, dict[PoolKey, states.Pool], dict[int, int]]:
    """The partition's last sequence and, at that very moment, the customers' pools and the versions of their terms."""
    sequence, texts = await redis.atomically(
        client,
        ("HGET", f"{partition_names.prefix(partition)}:m", "seq"),
        ("HMGET", states.key(partition), *map(states.customer_field, customer_ids)),
    )
    known = {customer_id: states.read(text) for customer_id, text in zip(customer_ids, texts, strict=True)}
    found = {(customer_id, name): pool for customer_id, state in known.items() for name, pool in state.pools.items()}
    return int(sequence or 0), found, {customer_id: state.version for customer_id, state in known.items()}


async def _other_terms(
    database: Pool, before: Mapping[int, Terms], versions: Mapping[int, int], tenants: Mapping[int, int]
) -> list[PoolDifference]:
    """Customers whose terms have another version in the till than in the book, as read before the till.

    The till may know newer terms than those; they are in the book by then. It may not know older ones than it was told of.
    """
    newer = [customer_id for customer_id, terms in before.items() if versions[customer_id] > terms.version]
    async with database.acquire() as connection:
        now = await sums.terms_of(connection, newer) if newer else {}
    wrong = {customer_id: now[customer_id].version for customer_id in newer if versions[customer_id] > now[customer_id].version}
    wrong |= {
        customer_id: terms.version
        for customer_id, terms in before.items()
        if terms.is_told and versions[customer_id] < terms.version
    }
    what = "version in the till, and in the book"
    return [
        PoolDifference(tenants.get(customer_id, 0), customer_id, _TERMS, what, versions[customer_id], version)
        for customer_id, version in sorted(wrong.items())
    ]


def _apply(book: Mapping[PoolKey, PoolState], entries: Iterable[RawEntry], customer_ids: set[int]) -> dict[PoolKey, PoolState]:
    """What the book will say of these customers once it has read the entries. What it can't read it can't add."""
    expected = dict(book)
    for raw in entries:
        try:
            entry = usage_log.decode_entry(raw.data)
        except msgspec.MsgspecError:
            continue
        for movement in movements.of_entry(entry):
            key = (movement.customer_id, movement.pool)
            if movement.customer_id in customer_ids:
                expected[key] = _moved(expected.get(key, PoolState(0, closed=False, opening=0)), movement)
    return expected


def _moved(before: PoolState, movement: Movement) -> PoolState:
    """A pool after a movement. What a pool is opened with after it has expired is not told from what it was opened with before."""
    expired, opening = movement.what == movements.EXPIRED, before.opening
    if movement.what == movements.OPENED and opening is not None:
        opening += movement.change
    return PoolState(before.balance + movement.change, expired, None if expired else opening)


def _differences(
    expected: Mapping[PoolKey, PoolState], till: Mapping[PoolKey, states.Pool], tenants: Mapping[int, int], totals: _Totals
) -> list[PoolDifference]:
    found: list[PoolDifference] = []
    for key in sorted(expected.keys() | till.keys()):
        state, held = expected.get(key, PoolState(0, closed=True)), till.get(key)
        totals.pools += 1
        totals.till += held.left if held else 0
        totals.book += state.balance
        tenant_id = tenants.get(key[0], 0)
        if _differs(state, held):
            totals.differing += 1
            sides = (held.left if held else None, None if state.closed else state.balance)
            found.append(PoolDifference(tenant_id, *key, "left in the till, and in book + log", *sides))
        elif held is not None and _opening_differs(key[1], state, held):
            totals.differing += 1
            found.append(PoolDifference(tenant_id, *key, "opening in the till, and in book + log", held.opening, state.opening))
    return found


def _differs(state: PoolState, held: states.Pool | None) -> bool:
    if held is None:
        return not state.closed or state.balance != 0
    return held.left != state.balance or (state.closed and (held.opening is not None or held.left != 0))


def _opening_differs(pool: str, state: PoolState, held: states.Pool) -> bool:
    """Purchased credits need no opening; any other pool that lacks it would be opened again by its next use."""
    if state.closed or (held.opening is None and pool == PURCHASED_CREDITS):
        return False
    return held.opening is None or (state.opening is not None and held.opening != state.opening)


async def logs(database: Pool, client: Redis, partitions: int) -> list[Sum]:
    """Whether each log is dense up to the till's sequence, the book not beyond it, and the till the book's own."""
    numbers = range(partitions)
    before = await store.offsets(database, numbers)
    found = [await _log_state(client, partition) for partition in numbers]
    after = await store.offsets(database, numbers)
    beyond = [f"partition {number}" for number in numbers if before.get(number, 0) > found[number].sequence]
    holes = [f"partition {number}" for number in numbers if not found[number].is_whole(after.get(number, 0))]
    async with database.acquire() as connection:
        epoch = await sums.epoch(connection)
    strange = [f"partition {number}" for number in numbers if epoch is not None and found[number].epoch not in (None, epoch)]
    return [
        sums.none_of("logs with missing entries", holes),
        sums.none_of("book offsets beyond the till's sequence", beyond),
        sums.none_of("partitions of the till with another epoch than the book's", strange),
    ]


@dataclass(frozen=True, slots=True)
class _LogState:
    epoch: str | None
    sequence: int
    length: int
    first: int
    last: int

    def is_whole(self, offset: int) -> bool:
        """Nothing is missing between `offset`, read afterwards, and the till's sequence."""
        if self.length == 0:
            return self.sequence <= offset
        return self.last == self.sequence and self.length == self.last - self.first + 1 and self.first <= offset + 1


async def _log_state(client: Redis, partition: int) -> _LogState:
    key = log_reader.key(partition)
    meta, length, first, last = await redis.atomically(
        client,
        ("HMGET", f"{partition_names.prefix(partition)}:m", "epoch", "seq"),
        ("XLEN", key),
        ("XRANGE", key, "-", "+", "COUNT", 1),
        ("XREVRANGE", key, "+", "-", "COUNT", 1),
    )
    epoch, sequence = map(redis.text, meta)
    return _LogState(epoch, int(sequence or 0), int(length), _sequence(first), _sequence(last))


def _sequence(reply: Sequence[Sequence[bytes]]) -> int:
    return int(reply[0][0].partition(b"-")[0]) if reply else 0
