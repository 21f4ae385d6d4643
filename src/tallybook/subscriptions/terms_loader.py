"""Reads a customer's terms from the book. Call it inside a snapshot: version and content must be of one moment."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from tallybook.catalog import store as catalog
from tallybook.core import money, partitions
from tallybook.core.tenant import Tenant
from tallybook.storage import queries
from tallybook.storage.postgres import Connection, Row
from tallybook.subscriptions import rules
from tallybook.subscriptions.rules import Period
from tallybook.subscriptions.terms import ConsumptionModel, PeriodTerms, SubscriptionTerms, Terms

_QUERIES = queries.load("tallybook.subscriptions")
REACH = timedelta(minutes=10)
"""How far past now the terms reach: events may be dated 5 minutes ahead, and the writer of a revision may have a clock that is."""


@dataclass(frozen=True, slots=True)
class _Row:
    """The subscription's columns that its periods are computed from."""

    subscription_id: int
    public_id: str
    status: str
    plan_id: int
    price_id: int | None
    consumption_model: str | None
    is_free: bool
    block_on_exhaustion: bool | None
    billing_interval: str | None
    started_at: datetime
    anchor_at: datetime
    trial_ends_at: datetime | None
    cancel_at: datetime | None
    feature_revision: int | None
    price_revision: int | None
    period: Period
    period_is_open: bool


async def load(connection: Connection, tenant: Tenant, reference: str, real_now: datetime, partition_count: int) -> Terms | None:
    """The terms of the customer with this `cus_…` or external id, or None when the tenant has no such customer."""
    found = await connection.fetchrow(_QUERIES["terms_of_customer"], tenant.id, reference)
    if found is None:
        return None
    now = found["simulated_at"] or real_now
    return Terms(
        tenant=tenant,
        customer_id=found["customer_id"],
        customer_public_id=found["customer_public_id"],
        external_id=found["external_id"],
        partition=partitions.of(tenant.id, found["customer_id"], partition_count),
        tenant_version=found["tenant_version"],
        customer_version=found["customer_version"],
        simulated_at=found["simulated_at"],
        subscription=await _subscription(connection, found, now),
        ai_margin_bps=found["ai_margin_bps"],
        catalog_version=found["catalog_version"],
    )


async def _subscription(connection: Connection, found: Row, now: datetime) -> SubscriptionTerms | None:
    row = _row(found)
    if row is None:
        return None
    periods = _open_periods(row, now)
    if not periods:
        return None
    return SubscriptionTerms(
        subscription_id=row.subscription_id,
        public_id=row.public_id,
        status=row.status,
        consumption_model=ConsumptionModel(row.consumption_model or "metered"),
        blocks_on_exhaustion=bool(row.block_on_exhaustion),
        ends_at_s=None if row.cancel_at is None else int(row.cancel_at.timestamp()),
        periods=tuple([await _period_terms(connection, row, period, now) for period in periods]),
    )


def _row(found: Row) -> _Row | None:
    if found["subscription_id"] is None:
        return None
    columns: dict[str, Any] = {
        name: found[name] for name in _Row.__dataclass_fields__ if name not in ("period", "period_is_open")
    }
    return _Row(**columns, period=Period(found["starts_at"], found["ends_at"]), period_is_open=found["period_state"] == "open")


def _open_periods(row: _Row, now: datetime) -> Sequence[Period]:
    """From the first period that still takes usage to the one that holds now (and a little more)."""
    period = row.period if row.period_is_open else _following(row, row.period)
    periods: list[Period] = []
    while row.cancel_at is None or period.starts_at < row.cancel_at:
        periods.append(period)
        if period.ends_at > now + REACH:
            break
        period = _following(row, period)
    return periods


def _following(row: _Row, period: Period) -> Period:
    return rules.next_period(row.started_at, row.anchor_at, row.trial_ends_at, row.billing_interval, period)


async def _period_terms(connection: Connection, row: _Row, period: Period, now: datetime) -> PeriodTerms:
    is_trial = rules.in_trial(row.trial_ends_at, period.starts_at)
    granted_at = row.started_at if is_trial else period.starts_at
    has_begun = period == row.period
    begun_with = row.feature_revision if has_begun else None
    granted_by = row.price_revision if has_begun or is_trial else None
    features = await catalog.feature_terms(connection, row.plan_id, period.starts_at, now + REACH, begun_with)
    price = None if row.price_id is None else await catalog.price_terms(connection, row.price_id, granted_at, granted_by)
    return PeriodTerms(
        start_s=period.key_s,
        end_s=int(period.ends_at.timestamp()),
        grant_start_s=int(granted_at.timestamp()),
        is_trial=is_trial,
        overage_allowed=not is_trial and not row.is_free,
        balance_opening=0 if price is None else price.included_balance_nano or 0,
        credits_opening=0 if price is None else (price.included_credits or 0) * money.NANO,
        features={feature.code: feature for feature in features},
    )
