"""What the book says when it is summed in one way and in another. Reads only; every function wants a snapshot."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from tallybook.core.usage_log import Applied
from tallybook.rollup import movements
from tallybook.storage import queries
from tallybook.storage.postgres import Querying, Row

_SQL = queries.load("tallybook.rollup", "reconcile.sql")
_RETENTION_SQL = queries.load("tallybook.rollup", "retention.sql")
_EVENT_MEASURES = (
    *("events", "quantity", "amount", "cost"),
    *("input tokens", "output tokens", "cache read tokens", "cache write tokens"),
)
_POOL_MEASURES = ("opening", "charged", "adjusted", "expired", "closed")
_LEDGER_ROWS = "ledger rows"
PLACES_MAX = 20
"""How many places that differ are named."""
_decode_applied = msgspec.msgpack.Decoder(Applied).decode

_Effect = tuple[int, str, datetime | None, str, int, int]
"""customer, pool, hour of arrival, kind of ledger row, change of the pool, entries."""


@dataclass(frozen=True, slots=True)
class Sum:
    """One thing summed in two ways; `differing` counts the places that differ, which may cancel out in the sums.

    `places` names the first of them: customer, pool, hour, invoice, partition, whatever it is that differs.
    """

    what: str
    left: int
    right: int
    differing: int = 0
    places: Sequence[str] = ()

    @property
    def is_equal(self) -> bool:
        """Whether both ways agree everywhere."""
        return self.left == self.right and self.differing == 0


def none_of(what: str, places: Sequence[str]) -> Sum:
    """Something that there must be none of, and where it was found."""
    return Sum(what, len(places), 0, len(places), places[:PLACES_MAX])


@dataclass(frozen=True, slots=True)
class PoolDifference:
    """A pool that two records of it disagree about; `tenant_id` is 0 when unknown. None: that side does not know the pool."""

    tenant_id: int
    customer_id: int
    pool: str
    what: str
    left: int | None
    right: int | None


@dataclass(frozen=True, slots=True)
class PoolState:
    """What the book says of one pool; `opening` is None where it can't be told."""

    balance: int
    closed: bool
    opening: int | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """The version of a customer's terms, and whether the till has been told of it."""

    version: int
    is_told: bool


@dataclass(frozen=True, slots=True)
class Customers:
    """Those with row ids from `first` to `last`."""

    first: int
    last: int


EVERYBODY = Customers(0, 2**63 - 1)


async def events_and_hours(connection: Querying, of: Customers = EVERYBODY) -> list[Sum]:
    """Raw usage events against hourly totals, by measure; AI events against their own prices."""
    found = {row["measure"]: row for row in await connection.fetch(_SQL["sum_events_and_hours"], of.first, of.last)}
    places: dict[str, list[str]] = {}
    if any(row["differing"] for row in found.values()):
        places = _places_by_measure(await connection.fetch(_SQL["differing_hours"], of.first, of.last, PLACES_MAX))
    sums: list[Sum] = []
    for measure in _EVENT_MEASURES:
        what, row = f"usage events = hourly totals: {measure}", found.get(measure)
        sides = (int(row["event_side"]), int(row["hour_side"]), row["differing"]) if row else (0, 0, 0)
        sums.append(Sum(what, *sides, places.get(measure, ())))
    return [*sums, *await _odd_events(connection, of), *await _dropped(connection)]


async def _dropped(connection: Querying) -> list[Sum]:
    """Months whose single events are gone: sums stand for them. Nothing where none is."""
    count = await connection.fetchval(_RETENTION_SQL["months_dropped"])
    return [Sum("months whose events were dropped = months whose sums were kept", count, count)] if count else []


def _places_by_measure(rows: Iterable[Row]) -> dict[str, list[str]]:
    places: dict[str, list[str]] = {}
    for row in rows:
        for measure, event_side, hour_side in zip(_EVENT_MEASURES, row["event_sides"], row["hour_sides"], strict=True):
            if event_side != hour_side:
                place = f"customer {row['customer_id']} feature {row['feature_id']} hour {_hour(row['hour'])}"
                places.setdefault(measure, []).append(f"{place}: {_number(event_side)} and {_number(hour_side)}")
    return places


def _hour(moment: datetime | None) -> str:
    return "unknown" if moment is None else f"{moment:%Y-%m-%dT%H}"


def _number(side: object) -> str:
    return "nothing" if side is None else str(side)


_ODD_EVENTS = {
    "mispriced_events": "AI events that do not cost their tokens at their prices",
    "misplaced_identities": "events that can't be found by their identity",
}


async def _odd_events(connection: Querying, of: Customers) -> list[Sum]:
    """Events that contradict themselves."""
    return [
        none_of(what, [_event(row) for row in await connection.fetch(_SQL[query], of.first, of.last, PLACES_MAX)])
        for query, what in _ODD_EVENTS.items()
    ]


def _event(row: Row) -> str:
    return f"customer {row['customer_id']} event {row['event_id']} at {row['partition']}:{row['seq']}-{row['position']}"


async def pools(connection: Querying, of: Customers = EVERYBODY) -> tuple[list[Sum], list[PoolDifference]]:
    """Pool balances against the ledger, and against events plus quarantine; the ledger against those, by hour; each pool that differs."""
    items = await connection.fetch(_SQL["quarantined_items"])
    quarantined = [effect for row in items if row["booked"] for effect in _effects(row) if of.first <= effect[0] <= of.last]
    columns = [list(column) for column in zip(*quarantined, strict=True)] or [[], [], [], [], [], []]
    rows = await connection.fetch(_SQL["sum_pools"], *columns, of.first, of.last, PLACES_MAX)
    totals = {row["measure"]: row for row in rows if row["customer_id"] is None}
    differing = [row for row in rows if row["customer_id"] is not None and row["measure"] in _POOL_MEASURES]
    sums = [_pool_sum("ledger", "ledger_side", measure, totals.get(measure), differing) for measure in _POOL_MEASURES]
    sums += [
        _pool_sum("events + quarantine", "event_side", measure, totals.get(measure), differing)
        for measure in _POOL_MEASURES[1:-1]
    ]
    hours = [row for row in rows if row["hour"] is not None]
    sums += [_ledger_rows(int(totals[_LEDGER_ROWS]["balance_side"]), hours), await _wrong_tenants(connection, of)]
    return sums, [_pool_difference(row) for row in differing]


def _pool_sum(other: str, side: str, measure: str, total: Row | None, differing: Sequence[Row]) -> Sum:
    places = sum(row["measure"] == measure and row["balance_side"] != row[side] for row in differing)
    left, right = (int(total["balance_side"]), int(total[side])) if total else (0, 0)
    return Sum(f"pools = {other}: {measure}", left, right, places)


def _pool_difference(row: Row) -> PoolDifference:
    off_ledger = row["balance_side"] != row["ledger_side"]
    what = f"{row['measure']} in its balance, and in its {'ledger' if off_ledger else 'events'}"
    other = row["ledger_side"] if off_ledger else row["event_side"]
    return PoolDifference(row["tenant_id"] or 0, row["customer_id"], row["pool"], what, int(row["balance_side"]), int(other))


def _ledger_rows(differing: int, rows: Sequence[Row]) -> Sum:
    """Rows of the ledger; for these a row's sides are its amount and entries, and the amount that events say."""
    places = [
        f"customer {row['customer_id']} pool {row['pool']} hour {_hour(row['hour'])} {row['measure']}: {row['balance_side']} in "
        f"{row['ledger_side']} entries, and {row['event_side']}"
        for row in rows
    ]
    return Sum("ledger rows that are not their hour's events + quarantine", differing, 0, differing, places)


async def _wrong_tenants(connection: Querying, of: Customers) -> Sum:
    rows = await connection.fetch(_SQL["wrong_tenants"], of.first, of.last, PLACES_MAX)
    places = [f"customer {row['customer_id']} pool {row['pool']} in its {row['place']}" for row in rows]
    return none_of("pools under another tenant than their customer", places)


async def quarantine(connection: Querying) -> Sum:
    """How much of what is in quarantine still counts in the pools: all of it, unless something of unknown effect is there."""
    rows = await connection.fetch(_SQL["quarantined_items"])
    items = [row for row in rows if not row["dropped"]]
    unknown = [
        row for row in rows if (row["booked"] and not _is_readable(row["payload"])) or not (row["booked"] or row["dropped"])
    ]
    places = [f"item {row['id']}" for row in unknown]
    what = "items in quarantine = those with a known effect"
    return Sum(what, len(items), len(items) - len(unknown), len(unknown), places[:PLACES_MAX])


async def beyond_offsets(connection: Querying) -> Sum:
    """Events that the book holds although it says that it has not read so far."""
    rows = await connection.fetch(_SQL["events_beyond_offsets"])
    places = [f"partition {row['partition']} has an event of entry {row['seq']}, its offset is {row['last_seq']}" for row in rows]
    return none_of("partitions with events beyond the book's offset", places)


async def invoices(connection: Querying) -> list[Sum]:
    """Invoices against their lines, their numbers and subscriptions, and lines against the pools they bill."""
    rows = await connection.fetch(_SQL["sum_invoices"])
    return [
        Sum(row["what"], int(row["left_side"]), int(row["right_side"]), row["differing"], tuple(row["places"] or ()))
        for row in rows
    ]


async def customers(connection: Querying) -> dict[int, int]:
    """Tenant by customer, of all customers that the book has pools of."""
    return {row["customer_id"]: row["tenant_id"] for row in await connection.fetch(_SQL["customers_with_pools"])}


async def pools_of(connection: Querying, customer_ids: Iterable[int]) -> dict[tuple[int, str], PoolState]:
    """By (customer, pool), what the book says."""
    rows = await connection.fetch(_SQL["pools_of_customers"], list(customer_ids))
    return {
        (row["customer_id"], row["pool"]): PoolState(
            int(row["balance"]), row["closed"], None if row["opening"] is None else int(row["opening"])
        )
        for row in rows
    }


async def terms_of(connection: Querying, customer_ids: Iterable[int]) -> dict[int, Terms]:
    """By customer, the version of its terms."""
    rows = await connection.fetch(_SQL["terms_told"], list(customer_ids))
    return {row["customer_id"]: Terms(row["version"], row["is_told"]) for row in rows}


async def epoch(connection: Querying) -> str | None:
    """The epoch that the till must have; None before the installation is made."""
    return await connection.fetchval(_SQL["epoch_of_installation"])


def _is_readable(payload: bytes) -> bool:
    try:
        _decode_applied(payload)
    except msgspec.MsgspecError:
        return False
    return True


def _effects(row: Row) -> list[_Effect]:
    """What an item of quarantine did to pools; nothing where its payload can't be read, which `quarantine` tells."""
    if not _is_readable(row["payload"]):
        return []
    applied, moment = _decode_applied(row["payload"]), row["accepted_at"]
    hour = None if moment is None else moment.replace(minute=0, second=0, microsecond=0)
    return [
        (one.customer_id, one.pool, hour, movements.ledger_kind(applied.record.kind), one.change, 1)
        for one in movements.of_record(applied)
    ]
