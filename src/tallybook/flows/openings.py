"""The last word on what a period's pools were granted, before it is billed.

Within a period a pool is moved by the first event that is priced with terms that grant it more. When no event comes after them, the
pool is moved here, through the till like everything else, so that the till, the book and the invoice say what the customer was
shown. A grant only ever grows within a period; what was never opened stays unopened.
"""

from collections.abc import Mapping, Sequence

from tallybook.catalog import store as catalog
from tallybook.charge import commands
from tallybook.charge.commands import Charge, Outcome
from tallybook.charge.till import CustomerView
from tallybook.core import clock, ids, money, partitions, pools, usage_log
from tallybook.flows.services import Services
from tallybook.storage import postgres
from tallybook.subscriptions import rules, store
from tallybook.subscriptions.model import UsagePeriod

_ATTEMPTS = 5
_REASON = "The plan included more from within the period on"
_MOVED = (Outcome.ACCEPTED, Outcome.DUPLICATE)


async def reopen(services: Services, periods: Sequence[UsagePeriod]) -> set[int]:
    """Grant the pools of closing periods what their terms granted in the end. May be repeated.

    Returns the subscriptions whose pools take no change now: what they are granted is not settled.
    """
    return {period.subscription_id for period in periods if not await _reopen(services, period)}


async def _reopen(services: Services, period: UsagePeriod) -> bool:
    granted: Mapping[str, int] | None = None
    for _ in range(_ATTEMPTS):
        view = await services.till.read(period.tenant.id, period.customer_id)
        if not any(pools.parse(pool).subscription_id == period.subscription_id for pool in view.pools):
            return True
        if granted is None:
            granted = await _granted(services, period)
        charges = [
            _charge(services, period, view, pool, amount)
            for pool, amount in granted.items()
            if pool in view.pools and view.pools[pool].opening < amount
        ]
        if not charges:
            return True
        outcomes = {receipt.outcome for receipt in await services.till.charge(charges)}
        if Outcome.STALE not in outcomes:
            return outcomes.issubset(_MOVED)
    return False


async def _granted(services: Services, period: UsagePeriod) -> dict[str, int]:
    """What a period's pools are granted in the end, 1e-9 of each pool's unit."""
    async with postgres.snapshot(services.database) as connection:
        subscription = await store.by_id(connection, period.subscription_id)
        features = await catalog.features_of_period(
            connection, subscription.plan_id, period.starts_at, period.ends_at, period.edition.features
        )
        granted = {pools.feature(subscription.id, one.feature_id, period.span.key_s): one.included_nano for one in features}
        if subscription.price_id is None:
            return granted
        is_trial = rules.in_trial(subscription.trial_ends_at, period.starts_at)
        granted_at = subscription.started_at if is_trial else period.starts_at
        price = await catalog.price_terms(connection, subscription.price_id, granted_at, period.edition.price)
    if price is not None:
        key_s = int(granted_at.timestamp())
        granted[pools.balance(subscription.id, key_s)] = price.included_balance_nano
        granted[pools.credits(subscription.id, key_s)] = price.included_credits * money.NANO
    return granted


def _charge(services: Services, period: UsagePeriod, view: CustomerView, pool: str, granted: int) -> Charge:
    """A change of nothing that opens its pool with what is granted; it is of this view, which may be stale by now."""
    record = usage_log.Record(
        kind=usage_log.Kind.ADJUSTMENT,
        tenant_id=period.tenant.id,
        customer_id=period.customer_id,
        digest=ids.event_digest(period.tenant.id, period.customer_id, f"\x01opening\x01{pool}\x01{granted}"),
        pool=pool,
        amount=0,
        feature_id=pools.parse(pool).feature_id,
        period_start_s=period.span.key_s,
        occurred_at_ms=clock.to_ms(period.ends_at),
        reason=_REASON,
        fingerprint=commands.fingerprint(f"{pool}\0{granted}"),
    )
    return Charge(
        partition=partitions.of(period.tenant.id, period.customer_id, services.settings.partitions),
        record=record,
        amount=0,
        opening=granted,
        tenant_version=view.tenant_version,
        customer_version=view.customer_version,
    )
