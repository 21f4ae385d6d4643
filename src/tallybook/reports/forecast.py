"""Where running billing periods are heading: usage so far, carried on at its run rate to the end of the period."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import cast

from tallybook.catalog import store as catalog
from tallybook.catalog.model import FeatureTerms
from tallybook.core import clock, money, pools
from tallybook.core.pools import PoolKind, PoolName
from tallybook.core.tenant import Tenant
from tallybook.reports import rules
from tallybook.reports.model import Column, RawRow, Unit
from tallybook.storage import queries
from tallybook.storage.postgres import Connection, Row

_SQL = queries.load(__package__)
RANKINGS = ("charge", "cost", "credits", "events", "quantity", "inputTokens", "outputTokens", "revenue")
"""What customers can be ranked by."""
_KINDS = {PoolKind.BALANCE: "balance", PoolKind.CREDITS: "credits", PoolKind.FEATURE: "units"}
_KEYS = tuple(Column(name, Unit.TEXT) for name in ("customerId", "pool"))
COLUMNS = (
    *(
        Column(name, Unit.TEXT)
        for name in ("customerId", "externalId", "subscriptionId", "planCode", "pool", "kind", "featureCode")
    ),
    *(Column(name, Unit.INSTANT) for name in ("periodStart", "periodEnd", "runsOutAt")),
    *(Column(name, Unit.NANO) for name in ("included", "used", "projectedUsed", "projectedOverage", "projectedCharge")),
)
LOW_COLUMNS = (*COLUMNS, Column("left", Unit.NANO))
_RATE_TIME_MIN = timedelta(days=1)
"""Usage of less than this counts as a day's: the first minute of a month says little about its end."""
SUMMED = (Column("pools", Unit.COUNT), Column("projectedCharge", Unit.NANO))
"""Money can be summed; units of different things can't."""


async def running(
    connection: Connection, tenant: Tenant, now: datetime, customer_id: int | None, plan_code: str | None
) -> list[RawRow]:
    """One row a pool of a running period, by customer. Wants a snapshot."""
    return await _projected(connection, await connection.fetch(_SQL["running_pools"], tenant.id, customer_id, plan_code), now)


async def running_low(connection: Connection, tenant: Tenant, now: datetime, percent: int, limit: int) -> list[RawRow]:
    """The rows of `running` with up to `percent` left of what was included, least first; and `left`, purchased credits among it."""
    statement = _SQL["pools_running_low"].replace("{running_pools}", _SQL["running_pools"])
    found = await connection.fetch(statement, tenant.id, None, None, percent, limit)
    rows = await _projected(connection, found, now)
    return [{**row, "left": int(low["left_over"])} for row, low in zip(rows, found, strict=True)]


async def _projected(connection: Connection, every: Sequence[Row], now: datetime) -> list[RawRow]:
    known: dict[tuple[int, datetime], dict[int, FeatureTerms]] = {}
    rows: list[RawRow] = []
    for found in every:
        name, row = pools.parse(found["pool"]), _projection(found, now)
        overage = cast("int", row["projectedOverage"])
        charge = 0
        if overage > 0 and _may_be_billed(found):
            terms = await _features(connection, found, now, known) if name.kind is PoolKind.FEATURE else {}
            charge = _charge(name, overage, terms, blocks=found["blocks"])
        rows.append({**row, "projectedCharge": charge})
    return rows


def page(rows: Sequence[RawRow], cursor: str | None, limit: int) -> tuple[Sequence[RawRow], str | None]:
    """The rows after a cursor, and the next cursor. Raises ValidationError for a foreign cursor."""
    first = 0
    if cursor is not None:
        after = rules.decode_cursor(_KEYS, cursor)
        position = {_key(row): place for place, row in enumerate(rows, 1)}
        first = position.get(after, len(rows))
    shown = rows[first : first + limit]
    more = first + limit < len(rows)
    return shown, rules.encode_cursor(_KEYS, shown[-1]) if more else None


def totals(rows: Sequence[RawRow]) -> RawRow:
    """What all rows come to."""
    return {"pools": len(rows), "projectedCharge": sum(cast("int", row["projectedCharge"]) for row in rows)}


def _key(row: RawRow) -> tuple[object, ...]:
    return tuple(row[column.key] for column in _KEYS)


def _projection(found: Row, now: datetime) -> dict[str, str | int | datetime | None]:
    name = pools.parse(found["pool"])
    starts_at = clock.from_ms(name.period_start_s * 1000)
    spans_trial = (
        name.kind is not PoolKind.FEATURE and found["trial_ends_at"] is not None and found["starts_at"] < found["trial_ends_at"]
    )
    ends_at: datetime = found["trial_ends_at"] if spans_trial else found["ends_at"]
    opening, adjusted, charged = (int(found[column]) for column in ("opening", "adjusted", "charged"))
    included, used = opening + adjusted, charged
    if name.kind is PoolKind.FEATURE:  # a total that was set counts as what was used
        included, used = opening, charged - adjusted
    elif name.kind is PoolKind.CREDITS:  # what purchased credits paid was used too
        used = int(found["credits_used"] or 0)
    elapsed = max(now - starts_at, _RATE_TIME_MIN)
    projected = max(used, rules.projected(used, elapsed, ends_at - starts_at))
    return {
        "customerId": found["customer"],
        "externalId": found["external"],
        "subscriptionId": found["subscription"],
        "planCode": found["plan"],
        "pool": found["pool"],
        "kind": _KINDS[name.kind],
        "featureCode": found["feature"],
        "periodStart": starts_at,
        "periodEnd": ends_at,
        "runsOutAt": _runs_out_at(starts_at, now, elapsed, included, used) if projected > included else None,
        "included": included,
        "used": used,
        "projectedUsed": projected,
        "projectedOverage": max(0, projected - max(included, 0)),
    }


def _runs_out_at(starts_at: datetime, now: datetime, elapsed: timedelta, included: int, used: int) -> datetime | None:
    if used <= 0:
        return None
    over = elapsed if used < included else now - starts_at
    microseconds = max(included, 0) * (over // timedelta(microseconds=1)) // used
    return starts_at + timedelta(microseconds=microseconds)


def _may_be_billed(found: Row) -> bool:
    in_trial = found["trial_ends_at"] is not None and found["starts_at"] < found["trial_ends_at"]
    return not found["is_free"] and not in_trial


async def _features(
    connection: Connection, found: Row, now: datetime, known: dict[tuple[int, datetime], dict[int, FeatureTerms]]
) -> dict[int, FeatureTerms]:
    key = (found["plan_id"], found["starts_at"])
    if key not in known:
        known[key] = {terms.feature_id: terms for terms in await catalog.feature_terms(connection, *key, now)}
    return known[key]


def _charge(name: PoolName, overage: int, features: dict[int, FeatureTerms], *, blocks: bool) -> int:
    """What an invoice would ask for the overage, nano-USD, rounded to cents as its lines are."""
    if name.kind is PoolKind.BALANCE:
        return 0 if blocks else money.cents(overage) * money.NANO_PER_CENT
    terms = features.get(name.feature_id)
    if terms is None or terms.unlimited or not terms.overage_enabled:
        return 0
    return money.divide_half_even(overage * terms.unit_price_nano, money.NANO * money.NANO_PER_CENT) * money.NANO_PER_CENT
