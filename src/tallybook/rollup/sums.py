"""What the book says when it is summed in one way and in another. Reads only; every function wants a snapshot."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from tallybook.core.usage_log import Applied
from tallybook.rollup import movements
from tallybook.storage import queries
from tallybook.storage.postgres import Querying, Row

_SQL = queries.load("tallybook.rollup")
_EVENT_MEASURES = (
    *("events", "quantity", "amount", "cost"),
    *("input tokens", "output tokens", "cache read tokens", "cache write tokens"),
)
_POOL_MEASURES = ("opening", "charged", "adjusted", "expired")
_decode_applied = msgspec.msgpack.Decoder(Applied).decode


@dataclass(frozen=True, slots=True)
class Sum:
    """One thing summed in two ways; `differing` counts the places that differ, which may cancel out in the sums."""

    what: str
    left: int
    right: int
    differing: int = 0

    @property
    def is_equal(self) -> bool:
        """Whether both ways agree everywhere."""
        return self.left == self.right and self.differing == 0


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
    """What the book says of one pool."""

    balance: int
    closed: bool


@dataclass(frozen=True, slots=True)
class Customers:
    """Those with row ids from `first` to `last`."""

    first: int
    last: int


EVERYBODY = Customers(0, 2**63 - 1)


async def events_and_hours(connection: Querying, of: Customers = EVERYBODY) -> list[Sum]:
    """Raw usage events against hourly totals, by measure."""
    found = {row["measure"]: row for row in await connection.fetch(_SQL["sum_events_and_hours"], of.first, of.last)}
    sums: list[Sum] = []
    for measure in _EVENT_MEASURES:
        what, row = f"usage events = hourly totals: {measure}", found.get(measure)
        sums.append(Sum(what, int(row["event_side"]), int(row["hour_side"]), row["differing"]) if row else Sum(what, 0, 0))
    return sums


async def pools(connection: Querying, of: Customers = EVERYBODY) -> tuple[list[Sum], list[PoolDifference]]:
    """Pool balances against the ledger, and against events plus quarantine; and each pool that differs."""
    items = await connection.fetch(_SQL["quarantined_items"])
    quarantined = _effects_in_quarantine(row["payload"] for row in items if row["booked"])
    columns = list(map(list, zip(*[effect for effect in quarantined if of.first <= effect[0] <= of.last], strict=True)))
    rows = await connection.fetch(_SQL["sum_pools"], *(columns or [[], [], [], [], []]), of.first, of.last)
    totals = {row["measure"]: row for row in rows if row["customer_id"] is None}
    differing = [row for row in rows if row["customer_id"] is not None]
    sums = [_pool_sum("ledger", "ledger_side", measure, totals.get(measure), differing) for measure in _POOL_MEASURES]
    sums += [
        _pool_sum("events + quarantine", "event_side", measure, totals.get(measure), differing) for measure in _POOL_MEASURES[1:]
    ]
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


async def quarantine(connection: Querying) -> Sum:
    """How much of what is in quarantine still counts in the pools: all of it, unless something of unknown effect is there."""
    items = [row for row in await connection.fetch(_SQL["quarantined_items"]) if not row["dropped"]]
    return Sum("items in quarantine = those with a known effect", len(items), sum(row["booked"] for row in items))


async def invoices(connection: Querying) -> list[Sum]:
    """Invoices against their lines, and lines against the pools they bill."""
    rows = await connection.fetch(_SQL["sum_invoices"])
    return [Sum(row["what"], int(row["left_side"]), int(row["right_side"]), row["differing"]) for row in rows]


async def customers(connection: Querying) -> dict[int, int]:
    """Tenant by customer, of all customers that the book has pools of."""
    return {row["customer_id"]: row["tenant_id"] for row in await connection.fetch(_SQL["customers_with_pools"])}


async def pools_of(connection: Querying, customer_ids: Iterable[int]) -> dict[tuple[int, str], PoolState]:
    """By (customer, pool), what the book says."""
    rows = await connection.fetch(_SQL["pools_of_customers"], list(customer_ids))
    return {(row["customer_id"], row["pool"]): PoolState(int(row["balance"]), row["closed"]) for row in rows}


def _effects_in_quarantine(payloads: Iterable[bytes]) -> list[tuple[int, str, int, int, int]]:
    """customer, pool, charged, adjusted, expired of the records whose effect was booked although they were not."""
    found: dict[tuple[int, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    places = {movements.CHARGED: 0, movements.ADJUSTED: 1, movements.EXPIRED: 2}
    for applied in map(_decode_applied, payloads):
        for movement in movements.of_record(applied):
            found[movement.customer_id, movement.pool][places[movement.what]] += movement.amount
    return [
        (customer_id, pool, charged, adjusted, expired) for (customer_id, pool), (charged, adjusted, expired) in found.items()
    ]
