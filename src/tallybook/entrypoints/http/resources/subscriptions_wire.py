"""How a subscription looks on the wire."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import msgspec
from msgspec import UNSET, UnsetType

from tallybook.catalog.model import FeatureTerms, PriceTerms
from tallybook.core import clock, money
from tallybook.flows.access import Standing
from tallybook.subscriptions import actions, model
from tallybook.subscriptions.terms import ConsumptionModel

_DAY = timedelta(days=1)


class PlanName(msgspec.Struct, rename="camel", kw_only=True):
    """The plan of a subscription."""

    id: str
    name: str


class PricedPlan(msgspec.Struct, rename="camel", kw_only=True):
    """The plan of a subscription and its base price in cents."""

    id: str
    name: str
    base_price: int


class CurrentPeriod(msgspec.Struct, rename="camel", kw_only=True):
    """The billing cycle that runs now; of a trial, the whole trial. Days are rounded up."""

    start: str
    end: str
    days_remaining: int


class Cancellation(msgspec.Struct, rename="camel", kw_only=True):
    """When a cancellation was asked for, and when it takes effect."""

    scheduled_at: str
    reason: str | None
    effective_at: str


class _Dated(msgspec.Struct, rename="camel", kw_only=True):
    """What every form of a subscription has."""

    object: str = "subscription"
    id: str
    customer_id: str
    name: str
    description: str | None = None
    status: str
    billing_interval: str | None
    trial_ends_at: str | None
    current_period: CurrentPeriod | None
    cancellation: Cancellation | None
    cancel_at_period_end: bool
    scheduled_plan_change: None = None
    start_date: str
    end_date: str | None
    billing_day_of_month: int | None
    next_billing_date: str | None
    checkout_url: str | None = None
    created_at: str
    updated_at: str
    offer_applications: list[str] = []
    pause: None = None
    price_id: str | None


class SubscriptionSummary(_Dated, kw_only=True):
    """A subscription without what is left of it."""

    plan: PlanName


class CreatedSubscription(SubscriptionSummary, kw_only=True):
    """A subscription just made. There is no payment provider, so there is no checkout: it is active, or in its trial, at once."""

    checkout_provider: None = None


class FeatureUsage(msgspec.Struct, rename="camel", kw_only=True):
    """What was used of a feature in the running usage period. `overageUnitPrice` in rate scale (10000 = $1.00)."""

    current: int | float
    included: int | float
    overage_quantity: int | float
    overage_unit_price: int | float | UnsetType = UNSET
    unlimited: bool


class SubscribedFeature(msgspec.Struct, rename="camel", kw_only=True):
    """A feature of the plan: whether it is on, or how much of it was used."""

    code: str
    name: str
    type: str
    enabled: bool | UnsetType = UNSET
    usage: FeatureUsage | UnsetType = UNSET


class Credits(msgspec.Struct, rename="camel", kw_only=True):
    """Credits left: of the plan in this usage period, and purchased ones."""

    remaining: int | float
    included: int | float
    purchased: int | float


class Balance(msgspec.Struct, rename="camel", kw_only=True):
    """The balance of this usage period in rate scale (10000 = $1.00); below zero it is overdrawn."""

    remaining: int | float
    included: int | float
    currency: str = "usd"


class Subscription(_Dated, kw_only=True):
    """A subscription with what is left of it now."""

    plan: PricedPlan
    consumption_model: str | None
    features: list[SubscribedFeature]
    credits: Credits | None
    balance: Balance | None


def summary(subscription: model.Subscription, now: datetime) -> SubscriptionSummary:
    """A subscription in a list."""
    cycle = _cycle(subscription, now)
    canceled = subscription.status == "canceled"
    return SubscriptionSummary(
        id=subscription.public_id,
        customer_id=subscription.customer_public_id,
        plan=PlanName(id=subscription.plan_public_id, name=subscription.plan_name),
        name=subscription.name,
        status=subscription.status,
        billing_interval=subscription.billing_interval,
        trial_ends_at=_iso(subscription.trial_ends_at),
        current_period=None if cycle is None else _current_period(cycle, now),
        cancellation=_cancellation(subscription),
        cancel_at_period_end=subscription.cancel_at is not None and not canceled,
        start_date=clock.iso(subscription.started_at),
        end_date=_iso(subscription.ended_at or subscription.cancel_at),
        billing_day_of_month=_billing_day(subscription),
        next_billing_date=_iso(_next_billing(subscription, cycle)),
        created_at=clock.iso(subscription.created_at),
        updated_at=clock.iso(subscription.updated_at),
        price_id=subscription.price_public_id,
    )


def created(subscription: model.Subscription, now: datetime) -> CreatedSubscription:
    """A subscription just made."""
    return CreatedSubscription(**msgspec.structs.asdict(summary(subscription, now)))


def full(
    subscription: model.Subscription,
    price: PriceTerms | None,
    features: Sequence[FeatureTerms],
    standing: Standing | None,
    used: Mapping[int, int],
    now: datetime,
) -> Subscription:
    """A subscription with its consumption.

    `standing` None: it takes no usage any more. `used`: nano-units by feature id, from the book.
    """
    fields = msgspec.structs.asdict(summary(subscription, now))
    base_price = 0 if price is None or subscription.is_free else price.price_cents
    fields["plan"] = PricedPlan(id=subscription.plan_public_id, name=subscription.plan_name, base_price=base_price)
    return Subscription(
        **fields,
        consumption_model=subscription.consumption_model,
        features=[_feature(feature, standing, used) for feature in features],
        credits=_credits(standing),
        balance=_balance(standing),
    )


def _cycle(subscription: model.Subscription, now: datetime) -> model.Period | None:
    if subscription.status == "canceled":
        return None
    return actions.cycle_at(subscription, max(now, subscription.started_at))


def _current_period(cycle: model.Period, now: datetime) -> CurrentPeriod:
    days = max(0, math.ceil((cycle.ends_at - now) / _DAY))
    return CurrentPeriod(start=clock.iso(cycle.starts_at), end=clock.iso(cycle.ends_at), days_remaining=days)


def _cancellation(subscription: model.Subscription) -> Cancellation | None:
    if subscription.cancel_at is None or subscription.canceled_at is None:
        return None
    return Cancellation(
        scheduled_at=clock.iso(subscription.canceled_at),
        reason=subscription.cancel_reason,
        effective_at=clock.iso(subscription.cancel_at),
    )


def _billing_day(subscription: model.Subscription) -> int | None:
    """The day of the month that a recurring price falls due on, clamped in short months."""
    if subscription.billing_interval in (None, "weekly", "one_time"):
        return None
    return subscription.anchor_at.day


def _next_billing(subscription: model.Subscription, cycle: model.Period | None) -> datetime | None:
    """When a base price falls due next."""
    if cycle is None or subscription.is_free or subscription.cancel_at is not None:
        return None
    if subscription.billing_interval == "one_time" and cycle.ends_at != subscription.trial_ends_at:
        return None
    return cycle.ends_at


def _feature(feature: FeatureTerms, standing: Standing | None, used: Mapping[int, int]) -> SubscribedFeature:
    shown = SubscribedFeature(code=feature.code, name=feature.name, type=feature.type)
    if feature.type == "boolean":
        shown.enabled = feature.enabled
    elif feature.type == "usage" and _is_metered(standing):
        shown.usage = _usage(feature, 0 if standing is None else standing.feature_used(feature))
    elif feature.type == "usage":
        shown.usage = _usage(feature, used.get(feature.feature_id, 0), has_limit=False)
    else:
        shown.usage = _usage(feature, 0)
    return shown


def _is_metered(standing: Standing | None) -> bool:
    return standing is None or standing.subscription.consumption_model is ConsumptionModel.METERED


def _usage(feature: FeatureTerms, used_nano: int, *, has_limit: bool = True) -> FeatureUsage:
    """Credits and balance plans have one pool for all features, so that none has a limit of its own."""
    beyond = max(0, used_nano - feature.included_nano) if has_limit and not feature.unlimited else 0
    return FeatureUsage(
        current=money.units(used_nano),
        included=money.units(feature.included_nano),
        overage_quantity=money.units(beyond),
        overage_unit_price=money.rate(feature.unit_price_nano) if feature.overage_enabled else UNSET,
        unlimited=feature.unlimited,
    )


def _credits(standing: Standing | None) -> Credits | None:
    if standing is None or standing.subscription.consumption_model is not ConsumptionModel.CREDITS:
        return None
    return Credits(
        remaining=money.units(standing.credits_left()),
        included=money.units(standing.period.credits_opening),
        purchased=money.units(standing.purchased_credits_left()),
    )


def _balance(standing: Standing | None) -> Balance | None:
    if standing is None or standing.subscription.consumption_model is not ConsumptionModel.BALANCE:
        return None
    return Balance(remaining=money.rate(standing.balance_left()), included=money.rate(standing.period.balance_opening))


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else clock.iso(moment)
