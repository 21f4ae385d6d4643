"""What a customer has now: terms from the book, pools from the till, both of the same version. Reads only."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from tallybook.catalog.model import FeatureTerms
from tallybook.charge.till import CustomerView
from tallybook.core import clock, errors, pools
from tallybook.core.tenant import Tenant
from tallybook.flows import price_event, unknown_features
from tallybook.flows.services import Services
from tallybook.subscriptions import tariffs
from tallybook.subscriptions.terms import ConsumptionModel, PeriodTerms, SubscriptionTerms, Terms

_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Standing:
    """A customer's subscription, the usage period that runs now, and what the till holds of it."""

    terms: Terms
    subscription: SubscriptionTerms
    period: PeriodTerms
    view: CustomerView
    now: datetime

    def left(self, pool: str, opening: int) -> int:
        """What a pool would have for the next event: never opened, it has what the terms grant; re-opened, it moves by the difference."""
        state = self.view.pools.get(pool)
        return opening if state is None else state.left + opening - state.opening

    def balance_left(self) -> int:
        """Nano-USD left of the period's balance; negative when overdrawn."""
        pool = pools.balance(self.subscription.subscription_id, self.period.grant_start_s)
        return self.left(pool, self.period.balance_opening)

    def credits_left(self) -> int:
        """Plan credits left, in 1e-9 credits."""
        pool = pools.credits(self.subscription.subscription_id, self.period.grant_start_s)
        return self.left(pool, self.period.credits_opening)

    def purchased_credits_left(self) -> int:
        """Purchased credits left, in 1e-9 credits."""
        return self.left(pools.PURCHASED_CREDITS, 0)

    def feature_left(self, feature: FeatureTerms) -> int:
        """Included units of a metered feature left, in nano-units; negative is overage."""
        pool = pools.feature(self.subscription.subscription_id, feature.feature_id, self.period.start_s)
        return self.left(pool, feature.included_nano)

    def feature_used(self, feature: FeatureTerms) -> int:
        """Units of a metered feature used in the period, in nano-units."""
        return feature.included_nano - self.feature_left(feature)

    def blocks(self, feature: FeatureTerms) -> bool:
        """Whether usage of the feature stops when its pool is empty."""
        return tariffs.blocks(self.subscription, self.period, feature)

    def may_use_more(self, feature: FeatureTerms) -> bool:
        """Whether the smallest further usage would be taken."""
        if not feature.enabled:
            return False
        if feature.unlimited or not self.blocks(feature):
            return True
        model = self.subscription.consumption_model
        if model is ConsumptionModel.CREDITS:
            return self.credits_left() + self.purchased_credits_left() > 0
        return (self.balance_left() if model is ConsumptionModel.BALANCE else self.feature_left(feature)) > 0


async def standing(services: Services, tenant: Tenant, reference: str) -> Standing:
    """Where a customer stands now. Raises NotFound for an unknown customer or one without an open subscription."""
    terms = await services.terms.get(tenant, reference)
    for _ in range(_ATTEMPTS):
        if terms is None:
            raise errors.NotFound("customer_not_found", f"There is no customer {reference}.", param="customerId")
        found = await _standing(services, terms)
        if found is not None:
            return found
        terms = await services.terms.load(tenant, reference)
    raise errors.Unavailable("terms_changing", f"The terms of customer {reference} are changing; ask again.")


async def _standing(services: Services, terms: Terms) -> Standing | None:
    """None when the terms at hand are too old."""
    view = await services.till.read(terms.tenant.id, terms.customer_id)
    if view.tenant_version > terms.tenant_version or view.customer_version > terms.customer_version:
        return None
    now = terms.now(services.clock())
    now_s = clock.to_ms(now) // 1000
    subscription = terms.subscription
    if subscription is None or subscription.has_ended_at(now_s):
        raise errors.NotFound(
            "no_active_subscription", f"Customer {terms.customer_public_id} has no active subscription.", param="customerId"
        )
    period = subscription.period_at(now_s)
    if period is None:
        return None
    return Standing(terms, subscription, period, view, now)


async def usable_feature(services: Services, standing: Standing, code: str) -> FeatureTerms:
    """The feature if usage can be sent for it. Raises BillingError, or NotFound `feature_not_found` when nobody has it."""
    try:
        return price_event.usable_feature(code, standing.period)
    except errors.BillingError as refusal:
        raise await unknown_features.told_apart(services, standing.terms.tenant, refusal, code) from None


async def feature(services: Services, standing: Standing, code: str) -> FeatureTerms:
    """The feature as the plan has it, of any type. Raises as `usable_feature` for one that the plan lacks."""
    found = standing.period.features.get(code)
    if found is not None:
        return found
    raise await unknown_features.told_apart(services, standing.terms.tenant, price_event.not_in_plan(code), code)


def features(standing: Standing) -> Sequence[FeatureTerms]:
    """Every feature of the plan, by code."""
    return sorted(standing.period.features.values(), key=lambda feature: feature.code)
