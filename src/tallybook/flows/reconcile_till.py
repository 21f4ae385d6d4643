"""The till against the book, customer by customer: book at offset T + log entries T+1 … S = till at sequence S, to the unit."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from tallybook.core import partitions as partition_names
from tallybook.core import usage_log
from tallybook.core.pools import PURCHASED_CREDITS
from tallybook.rollup import log_reader, movements, store, sums
from tallybook.rollup.model import RawEntry
from tallybook.rollup.sums import PoolDifference, PoolState, Sum
from tallybook.storage import postgres, redis
from tallybook.storage.postgres import Pool
from tallybook.storage.redis import Redis

CUSTOMERS_AT_ONCE = 200
_ATTEMPTS = 50
"""How often a comparison begins anew because the worker trimmed the log under it."""

PoolKey = tuple[int, str]


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
    totals, differences, lost = _Totals(), list[PoolDifference](), 0
    for chunk in await chunks(database, client, partitions):
        found = await compare_chunk(database, client, chunk, totals)
        lost += found is None
        differences += found or []
    till_sum = Sum(f"till = book + log, left in {totals.pools} pools", totals.till, totals.book, totals.differing)
    lost_sum = Sum("comparisons stopped by missing log entries", lost, 0)
    return [till_sum, lost_sum, *await logs(database, client, partitions)], differences


async def chunks(database: Pool, client: Redis, partitions: int) -> list[Chunk]:
    """All customers that the book or the till has pools of."""
    async with database.acquire() as connection:
        tenants = await sums.customers(connection)
    found = _chunks(tenants, await _customers_of_till(client), partitions)
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


async def _customers_of_till(client: Redis) -> dict[int, set[int]]:
    """Customers that the till has a state of, by partition."""
    found: dict[int, set[int]] = defaultdict(set)
    cursor = b"0"
    while True:
        cursor, keys = await client.execute_command("SCAN", cursor, "MATCH", "{p*}:c:*", "COUNT", 1000)
        for key in keys:
            tag, _, customer_id = key.decode().split(":")
            found[int(tag.strip("{p}"))].add(int(customer_id))
        if cursor == b"0":
            return found


async def _compare_chunk(
    database: Pool, client: Redis, partition: int, customer_ids: Sequence[int], tenants: Mapping[int, int], totals: _Totals
) -> list[PoolDifference]:
    for _ in range(_ATTEMPTS):
        async with postgres.snapshot(database) as connection:
            offset = (await store.offsets(connection, [partition])).get(partition, 0)
            book = await sums.pools_of(connection, customer_ids)
        sequence, till = await _read_till(client, partition, customer_ids)
        entries = await log_reader.read_between(client, partition, offset, sequence)
        if [entry.seq for entry in entries] == list(range(offset + 1, sequence + 1)):
            expected = _apply(book, entries, set(customer_ids))
            return _differences(expected, till, tenants, totals)
    raise _EntriesLostError


async def _read_till(client: Redis, partition: int, customer_ids: Sequence[int]) -> tuple[int, dict[PoolKey, tuple[int, bool]]]:
    """The partition's last sequence and, at that very moment, by (customer, pool) what is left and whether terms opened it."""
    prefix = partition_names.prefix(partition)
    sequence, *states = await redis.atomically(
        client, ("HGET", f"{prefix}:m", "seq"), *[("HGETALL", f"{prefix}:c:{customer_id}") for customer_id in customer_ids]
    )
    found: dict[PoolKey, tuple[int, bool]] = {}
    for customer_id, state in zip(customer_ids, states, strict=True):
        fields = {name.decode(): value for name, value in redis.pairs(state).items()}
        for name, left in fields.items():
            if name == PURCHASED_CREDITS or ("." in name and not name.endswith(".o")):
                found[customer_id, name] = int(left), f"{name}.o" in fields
    return int(sequence or 0), found


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
                before = expected.get(key, PoolState(0, closed=False))
                expected[key] = PoolState(before.balance + movement.change, movement.what == movements.EXPIRED)
    return expected


def _differences(
    expected: Mapping[PoolKey, PoolState], till: Mapping[PoolKey, tuple[int, bool]], tenants: Mapping[int, int], totals: _Totals
) -> list[PoolDifference]:
    found: list[PoolDifference] = []
    for key in sorted(expected.keys() | till.keys()):
        state = expected.get(key, PoolState(0, closed=True))
        left, opened = till.get(key, (0, False))
        known_to_till = key in till and (opened or left != 0)
        known_to_book = not state.closed
        totals.pools += 1
        totals.till += left
        totals.book += state.balance
        missing = (known_to_till and not known_to_book) or (known_to_book and key not in till)
        if left != state.balance or missing:
            totals.differing += 1
            sides = (left if key in till else None, state.balance if known_to_book else None)
            found.append(PoolDifference(tenants.get(key[0], 0), *key, "left in the till, and in book + log", *sides))
    return found


async def logs(database: Pool, client: Redis, partitions: int) -> list[Sum]:
    """Whether each log is dense up to the till's sequence, and the book not beyond it."""
    numbers = range(partitions)
    before = await store.offsets(database, numbers)
    states = [await _log_state(client, partition) for partition in numbers]
    after = await store.offsets(database, numbers)
    beyond = sum(before.get(partition, 0) > states[partition].sequence for partition in numbers)
    holes = sum(not states[partition].is_whole(after.get(partition, 0)) for partition in numbers)
    return [Sum("logs with missing entries", holes, 0), Sum("book offsets beyond the till's sequence", beyond, 0)]


@dataclass(frozen=True, slots=True)
class _LogState:
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
    sequence, length, first, last = await redis.atomically(
        client,
        ("HGET", f"{partition_names.prefix(partition)}:m", "seq"),
        ("XLEN", key),
        ("XRANGE", key, "-", "+", "COUNT", 1),
        ("XREVRANGE", key, "+", "-", "COUNT", 1),
    )
    return _LogState(int(sequence or 0), int(length), _sequence(first), _sequence(last))


def _sequence(reply: Sequence[Sequence[bytes]]) -> int:
    return int(reply[0][0].partition(b"-")[0]) if reply else 0
