"""From a customer's terms to what its events go by: who pays for a feature at a moment, from which pool, and whether that one blocks."""

from tallybook.catalog.model import FeatureTerms
from tallybook.core import pools
from tallybook.subscriptions.terms import ConsumptionModel, PeriodTerms, SubscriptionTerms, Tariff, Terms

_BEGINNING_MS = -(1 << 62)


def of(terms: Terms, subscription: SubscriptionTerms, period: PeriodTerms, feature: FeatureTerms) -> Tariff:
    """The tariff of a feature in one of the subscription's periods. The first one also pays for what happened before it."""
    ends_s = period.end_s if subscription.ends_at_s is None else min(period.end_s, subscription.ends_at_s)
    pool, opening, spare_pool = _pool(subscription, period, feature)
    return Tariff(
        from_ms=_BEGINNING_MS if period is subscription.periods[0] else period.start_s * 1000,
        until_ms=ends_s * 1000,
        tenant_id=terms.tenant.id,
        customer_id=terms.customer_id,
        customer_public_id=terms.customer_public_id,
        livemode=terms.tenant.livemode,
        partition=terms.partition,
        tenant_version=terms.tenant_version,
        customer_version=terms.customer_version,
        simulated_at=terms.simulated_at,
        consumption_model=subscription.consumption_model,
        period_start_s=period.start_s,
        feature=feature,
        pool=pool,
        opening=opening,
        blocks=blocks(subscription, period, feature),
        spare_pool=spare_pool,
        by_model=subscription.consumption_model is ConsumptionModel.BALANCE and feature.pricing_mode == "ai_model",
        margin_bps=(feature.margin_bps or 0) if terms.ai_margin_bps is None else terms.ai_margin_bps,
    )


def blocks(subscription: SubscriptionTerms, period: PeriodTerms, feature: FeatureTerms) -> bool:
    """Whether usage of the feature stops when its pool is empty."""
    model = subscription.consumption_model
    if model is ConsumptionModel.CREDITS:
        return True
    if model is ConsumptionModel.BALANCE:
        return subscription.blocks_on_exhaustion or not period.overage_allowed
    return not feature.unlimited and not (feature.overage_enabled and period.overage_allowed)


def _pool(subscription: SubscriptionTerms, period: PeriodTerms, feature: FeatureTerms) -> tuple[str, int, str]:
    """The pool that pays, what it is opened with, and the spare pool."""
    subscription_id, model = subscription.subscription_id, subscription.consumption_model
    if model is ConsumptionModel.CREDITS:
        return pools.credits(subscription_id, period.grant_start_s), period.credits_opening, pools.PURCHASED_CREDITS
    if model is ConsumptionModel.BALANCE:
        return pools.balance(subscription_id, period.grant_start_s), period.balance_opening, ""
    return pools.feature(subscription_id, feature.feature_id, period.start_s), feature.included_nano, ""
