"""What the book says when it is summed in one way and in another. Reads only; every function wants a snapshot."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from tallybook.core.usage_log import Applied
from tallybook.rollup import movements, rules
from tallybook.storage import queries
from tallybook.storage.postgres import Querying

_SQL = queries.load("tallybook.rollup")
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


async def events_and_hours(connection: Querying) -> list[Sum]:
    """Raw usage events against hourly totals, by measure."""
    rows = await connection.fetch(_SQL["sum_events_and_hours"])
    return [
        Sum(f"usage events = hourly totals: {row['measure']}", int(row["event_side"]), int(row["hour_side"]), row["differing"])
        for row in rows
    ]


async def pools(connection: Querying) -> tuple[list[Sum], list[PoolDifference]]:
    """Pool balances against the ledger, and against events plus quarantine; and each pool that differs."""
    quarantined = _effects_in_quarantine(
        [row["payload"] for row in await connection.fetch(_SQL["quarantined_items"]) if _is_record(row["position"])]
    )
    columns = list(map(list, zip(*quarantined, strict=True))) or [[], [], [], [], []]
    rows = await connection.fetch(_SQL["sum_pools"], *columns)
    differing = [row for row in rows if row["customer_id"] is not None]
    sums: list[Sum] = []
    for row in rows:
        if row["customer_id"] is None:
            measure, balance = row["measure"], int(row["balance_side"])
            mine = [other for other in differing if other["measure"] == measure]
            off_ledger = sum(other["balance_side"] != other["ledger_side"] for other in mine)
            off_events = sum(other["balance_side"] != other["event_side"] for other in mine)
            sums.append(Sum(f"pools = ledger: {measure}", balance, int(row["ledger_side"]), off_ledger))
            if measure != "opening":
                sums.append(Sum(f"pools = events + quarantine: {measure}", balance, int(row["event_side"]), off_events))
    return sums, [
        PoolDifference(
            row["tenant_id"] or 0,
            row["customer_id"],
            row["pool"],
            f"{row['measure']} in pools, and in ledger or events",
            int(row["balance_side"]),
            int(row["ledger_side"] if row["ledger_side"] != row["balance_side"] else row["event_side"]),
        )
        for row in differing
    ]


async def quarantine(connection: Querying) -> Sum:
    """How much of what is in quarantine still counts in the pools: all of it, unless something of unknown effect is there."""
    items = await connection.fetch(_SQL["quarantined_items"])
    known = sum(_is_record(row["position"]) and _known_effect(row["payload"]) is not None for row in items)
    return Sum("items in quarantine = those with a known effect", len(items), known)


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


def _is_record(position: int | None) -> bool:
    return position is not None and position >= 0


def _known_effect(payload: bytes) -> Applied | None:
    try:
        applied = _decode_applied(payload)
    except msgspec.MsgspecError:
        return None
    return applied if rules.effect_problem(applied.record, applied.outcome) is None else None


def _effects_in_quarantine(payloads: Iterable[bytes]) -> list[tuple[int, str, int, int, int]]:
    """customer, pool, charged, adjusted, expired of the records whose effect was booked although they were not."""
    found: dict[tuple[int, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    places = {movements.CHARGED: 0, movements.ADJUSTED: 1, movements.EXPIRED: 2}
    for applied in map(_known_effect, payloads):
        if applied is not None:
            for movement in movements.of_record(applied):
                found[movement.customer_id, movement.pool][places[movement.what]] += movement.amount
    return [
        (customer_id, pool, charged, adjusted, expired) for (customer_id, pool), (charged, adjusted, expired) in found.items()
    ]
