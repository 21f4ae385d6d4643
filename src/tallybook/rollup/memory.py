"""What the book knows of the till's memory: open pools and identities, for making the till anew. Reads, but for the offsets' epoch."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime

import msgspec

from tallybook.core import clock, ids, usage_log
from tallybook.core.usage_log import Applied, Kind
from tallybook.rollup import rules
from tallybook.storage import queries
from tallybook.storage.postgres import Connection, Querying, Row

_SQL = queries.load("tallybook.rollup")
_AT_ONCE = 5000
_decode_applied = msgspec.msgpack.Decoder(Applied).decode


@dataclass(frozen=True, slots=True)
class Pool:
    """An open pool, in 1e-9 of its unit."""

    tenant_id: int
    customer_id: int
    pool: str
    opening: int
    left: int


@dataclass(frozen=True, slots=True)
class Identity:
    """What was accepted under an identity. `amount` was added to the pool; `found` is what the script met, as in the log's outcome."""

    partition: int
    digest: bytes
    fingerprint: bytes
    accepted_at_ms: int
    amount: int
    left: int
    spare_left: int
    found: int


@dataclass(frozen=True, slots=True)
class Position:
    """How far the book has read a partition, and when the till took the last of it, in Unix milliseconds."""

    sequence: int
    accepted_at_ms: int


async def begin_epoch(connection: Connection, epoch: str) -> dict[int, Position]:
    """From now on the offsets belong to the till with this epoch. Returns them; a pass that is under way will not count any more."""
    rows = await connection.fetch(_SQL["begin_epoch"], epoch)
    return {
        row["partition"]: Position(row["last_seq"], 0 if row["accepted_at"] is None else clock.to_ms(row["accepted_at"]))
        for row in rows
    }


async def open_pools(connection: Connection) -> AsyncIterator[list[Pool]]:
    """Every open pool, some thousands at a time. Wants a transaction."""
    async for rows in _chunks(connection, "open_pools"):
        yield [Pool(row["tenant_id"], row["customer_id"], row["pool"], int(row["opening"]), int(row["balance"])) for row in rows]


async def reopened_pools(connection: Querying) -> list[tuple[int, int, str]]:
    """Tenant, customer and name of pools whose opening the book can't tell, because they were opened again after they expired."""
    rows = await connection.fetch(_SQL["reopened_pools"])
    return [(row["tenant_id"], row["customer_id"], row["pool"]) for row in rows]


async def identities(connection: Connection, since: datetime) -> AsyncIterator[list[Identity]]:
    """What was accepted since a time, some thousands at a time, with what is in quarantine. Wants a transaction."""
    async for rows in _chunks(connection, "identities_since", since):
        yield [_identity(row) for row in rows]
    yield [identity for _, identity in await quarantined_identities(connection, since)]


async def quarantined_identities(connection: Querying, since: datetime) -> list[tuple[int, Identity]]:
    """What is or was in quarantine and was accepted since a time, with the sequence of its log entry."""
    rows = await connection.fetch(_SQL["quarantined_since"], since)
    return [(row["seq"], identity) for row in rows for identity in _quarantined(row)]


async def _chunks(connection: Connection, query: str, *arguments: object) -> AsyncIterator[list[Row]]:
    chunk: list[Row] = []
    async for row in connection.cursor(_SQL[query], *arguments, prefetch=_AT_ONCE):
        chunk.append(row)
        if len(chunk) == _AT_ONCE:
            yield chunk
            chunk = []
    yield chunk


def _identity(row: Row) -> Identity:
    return Identity(
        row["partition"],
        row["digest"],
        row["fingerprint"],
        clock.to_ms(row["accepted_at"]),
        row["amount"],
        row["pool_left"],
        row["spare_left"],
        row["found"],
    )


def _quarantined(row: Row) -> Iterator[Identity]:
    """The identities of an item, or of all records of an entry, as far as they can be read."""
    if row["position"] is None:
        try:
            entry = usage_log.decode_entry(row["payload"])
        except msgspec.MsgspecError:
            return
        for applied in entry.applied:
            yield from _of_applied(row["partition"], entry.accepted_at_ms, applied)
    elif row["position"] >= 0 and row["accepted_at"] is not None:
        try:
            applied = _decode_applied(row["payload"])
        except msgspec.MsgspecError:
            return
        yield from _of_applied(row["partition"], clock.to_ms(row["accepted_at"]), applied)


def _of_applied(partition: int, accepted_at_ms: int, applied: Applied) -> Iterator[Identity]:
    record = applied.record
    found, left, spare_left = (rules.amount(text) or 0 for text in (applied.outcome, applied.left, applied.spare_left))
    if record.kind in (Kind.TICK, Kind.EXPIRY) or len(record.digest) != ids.DIGEST_BYTES:
        return
    by_kind: dict[int, int] = {Kind.ADJUSTMENT: record.amount, Kind.SET: left, Kind.VOID: found - record.amount}
    added = by_kind.get(record.kind, -record.amount)
    yield Identity(partition, record.digest, record.fingerprint, accepted_at_ms, added, left, spare_left, found)
