"""Single usage events of the book, whole: for who asks for one by its id, takes one back, or looks for what was counted twice."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import msgspec

from tallybook.core import clock, usage_log
from tallybook.core.tenant import Tenant
from tallybook.core.usage_log import Record
from tallybook.storage import queries
from tallybook.storage.postgres import Querying, Row

_SQL = queries.load("tallybook.rollup")
_FIRST_DAY = datetime(2020, 1, 1, tzinfo=UTC)
_FIELDS = tuple(field.name for field in msgspec.structs.fields(Record))


@dataclass(frozen=True, slots=True)
class Booked:
    """A usage event, or a void, in the book: the record as the till logged it, and what till and log added to it.

    `left` and `spare_left` are what was left after it, 1e-9 of the pools' units; `spare_amount` is the part that purchased credits
    paid (of a void: got, negative).
    """

    record: Record
    spare_amount: int
    left: int
    spare_left: int
    accepted_at: datetime
    partition: int
    seq: int
    position: int

    @property
    def place(self) -> str:
        """Where it stands in its partition's log."""
        return usage_log.place(self.seq, self.position)


@dataclass(frozen=True, slots=True)
class Names:
    """What the outside calls an event's customer and feature."""

    customer_public_id: str
    feature_code: str


async def originals(connection: Querying, digests: Iterable[bytes], since: datetime) -> Mapping[bytes, Booked]:
    """Of these identities, those that were counted since a time: by digest, the first event of each."""
    return {booked.record.digest: booked for booked in await _counted(connection, digests, since, each=1)}


async def find(connection: Querying, tenant: Tenant, digest: bytes) -> Booked | None:
    """The tenant's usage event with this identity, as it was first counted."""
    since: datetime | None = await connection.fetchval(_SQL["first_day_of_usage"])
    found = [] if since is None else await _counted(connection, [digest], since, each=1)
    return next((booked for booked in found if booked.record.tenant_id == tenant.id), None)


async def _counted(connection: Querying, digests: Iterable[bytes], since: datetime, *, each: int | None) -> list[Booked]:
    """Usage under these identities since a time, the first so many of each in the order of the log."""
    last: datetime | None = await connection.fetchval(_SQL["last_accepted"])
    if last is None:
        return []
    wanted, days = list(digests), list(range(_day(since), _day(last) + 2))
    low = [int.from_bytes(digest[:6]) for digest in wanted]
    return [_booked(row) for row in await connection.fetch(_SQL["usage_by_identity"], wanted, since, low, each, days)]


def _day(moment: datetime) -> int:
    """As `usage_events.identity` begins with; a clock that was put back a little is covered by a day more."""
    return (moment - _FIRST_DAY).days


async def void_of(connection: Querying, booked: Booked) -> Booked | None:
    """What took an event back, if anything did."""
    row = await connection.fetchrow(_SQL["void_of_event"], booked.record.customer_id, booked.place, booked.partition)
    return None if row is None else _booked(row)


async def names(connection: Querying, booked: Booked) -> Names:
    """What the outside calls an event's customer and feature."""
    row = await connection.fetchrow(_SQL["names_of_event"], booked.record.customer_id, booked.record.feature_id)
    assert row is not None
    return Names(row["customer_public_id"], row["feature_code"])


async def repeats(connection: Querying, customer_ids: Iterable[int], since: datetime) -> list[Booked]:
    """What these customers were charged for identities already counted before, and is not taken back, in log order."""
    rows = await connection.fetch(_SQL["repeated_identities"], list(customer_ids), since)
    if not rows:
        return []
    counted = await _counted(connection, [row["digest"] for row in rows], since, each=None)
    by_digest = groupby(counted, lambda booked: booked.record.digest)
    again = [booked for _, deliveries in by_digest for booked in list(deliveries)[1:]]
    places = [(booked.record.customer_id, booked.partition, booked.place) for booked in again]
    customers, partitions, logged = ([place[column] for place in places] for column in range(3))
    voided = await connection.fetch(_SQL["voided_places"], customers, partitions, logged)
    taken_back = {tuple(row) for row in voided}
    kept = [booked for booked, place in zip(again, places, strict=True) if place not in taken_back]
    return sorted(kept, key=lambda booked: (booked.record.customer_id, booked.seq, booked.position))


async def customers_with_usage(connection: Querying, since: datetime) -> list[tuple[int, int, str, bool]]:
    """(customer, tenant, organization, livemode) of those who were charged since a time."""
    rows = await connection.fetch(_SQL["customers_with_usage"], since)
    return [(row["customer_id"], row["tenant_id"], row["organization_id"], row["livemode"]) for row in rows]


async def swept_until(connection: Querying) -> datetime | None:
    """When the last search for repeats in all of the book began; None before the first."""
    return await connection.fetchval(_SQL["swept_until"])


async def note_swept(connection: Querying, began_at: datetime) -> None:
    """Note that a search for repeats in all of the book is done."""
    await connection.execute(_SQL["note_swept"], began_at)


async def try_claim_sweep(connection: Querying) -> bool:
    """Whether this connection is the one that searches; it is until `release_sweep`, or until it ends."""
    return await connection.fetchval(_SQL["try_claim_sweep"])


async def release_sweep(connection: Querying) -> None:
    """Let another one search."""
    await connection.execute(_SQL["release_sweep"])


def _booked(row: Row) -> Booked:
    columns: dict[str, Any] = dict(row.items())
    belongs_to: datetime | None = columns["belongs_to"]
    columns |= {
        "occurred_at_ms": clock.to_ms(columns["occurred_at"]),
        "period_start_s": int(columns["period_start"].timestamp()),
        "belongs_to_s": 0 if belongs_to is None else int(belongs_to.timestamp()),
    }
    return Booked(
        record=Record(**{name: columns[name] for name in _FIELDS}),
        spare_amount=columns["spare_amount"],
        left=columns["pool_left"],
        spare_left=columns["spare_left"],
        accepted_at=columns["accepted_at"],
        partition=columns["partition"],
        seq=columns["seq"],
        position=columns["position"],
    )
