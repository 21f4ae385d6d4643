"""Price: one event and the customer's terms → one charge for the till. Pure; no clock, no I/O."""

from dataclasses import dataclass
from typing import NoReturn

from tallybook.catalog.model import FeatureTerms
from tallybook.charge.commands import Charge
from tallybook.core import clock, errors, ids, money, pools, usage_log
from tallybook.pricing import cost
from tallybook.pricing.price_book import PriceBook
from tallybook.receive.events import Event
from tallybook.subscriptions.terms import ConsumptionModel, PeriodTerms, SubscriptionTerms, Terms


@dataclass(frozen=True, slots=True)
class PricedEvent:
    """An event with its charge, and the terms both come from."""

    event: Event
    terms: Terms
    subscription: SubscriptionTerms
    period: PeriodTerms
    feature: FeatureTerms
    charge: Charge


@dataclass(frozen=True, slots=True)
class Take:
    """What an event takes from which pool, and the AI price it came from, if any. 1e-9 of the pool's unit."""

    pool: str
    amount: int
    opening: int
    blocks: bool
    spare_pool: str = ""
    ai: cost.Priced | None = None


@dataclass(frozen=True, slots=True)
class Arrival:
    """When an event arrived (tenant's clock) and under which id: the caller's, or one made from the request."""

    now_ms: int
    identity: str
    idempotency: bytes


def price(event: Event, terms: Terms, book: PriceBook, arrival: Arrival) -> PricedEvent:
    """Decide what an event costs and which pool pays.

    Raises NotFound (`no_active_subscription`, `model_not_found`), BillingError (`feature_not_in_plan`, `feature_disabled`,
    `pricing_mode_mismatch`), Conflict (`ambiguous_model`), ValidationError, and `PeriodUnknown` when the terms reach not far enough.
    """
    subscription = terms.subscription
    if subscription is None:
        raise errors.NotFound("no_active_subscription", f"Customer {event.customer_id} has no active subscription.", param="customerId")
    occurred_at_ms = arrival.now_ms if event.occurred_at_ms is None else event.occurred_at_ms
    period = subscription.period_at(occurred_at_ms // 1000)
    if period is None:
        raise PeriodUnknown
    feature = _usable_feature(event.feature_code, period)
    take = _take(event, terms, subscription, period, feature, book, occurred_at_ms)
    if take.amount > money.AMOUNT_MAX:
        raise errors.invalid("value", f"The event would take {take.amount} (1e-9 of the pool's unit); one event takes at most 1e15.")
    charge = _charge(event, terms, period, feature, take, arrival, occurred_at_ms)
    return PricedEvent(event, terms, subscription, period, feature, charge)


class PeriodUnknown(Exception):  # noqa: N818 - not an error of the caller: the terms are reloaded
    """The event lies in a period that the terms at hand do not reach."""


def _usable_feature(code: str, period: PeriodTerms) -> FeatureTerms:
    feature = period.features.get(code)
    if feature is None:
        raise errors.BillingError("feature_not_in_plan", f"Feature {code} is not in the customer's plan.", param="featureCode")
    if feature.type != "usage":
        message = f"Feature {code} is of type {feature.type}; usage events are for features of type usage."
        raise errors.BillingError("pricing_mode_mismatch", message, param="featureCode")
    if not feature.enabled:
        raise errors.BillingError("feature_disabled", f"Feature {code} is disabled in the customer's plan.", param="featureCode")
    return feature


def _take(
    event: Event,
    terms: Terms,
    subscription: SubscriptionTerms,
    period: PeriodTerms,
    feature: FeatureTerms,
    book: PriceBook,
    occurred_at_ms: int,
) -> Take:
    if subscription.consumption_model is ConsumptionModel.BALANCE:
        return _from_balance(event, terms, subscription, period, feature, book, occurred_at_ms)
    if event.model is not None:
        _mismatch(f"Feature {feature.code} is not priced by AI model on this plan: send `value`, not `model`.")
    if subscription.consumption_model is ConsumptionModel.CREDITS:
        amount = 0 if feature.unlimited else event.quantity_nano * (feature.credits_per_unit or 0)
        pool = pools.credits(subscription.subscription_id, period.grant_start_s)
        return Take(pool, amount, period.credits_opening, True, pools.PURCHASED_CREDITS)
    pool = pools.feature(subscription.subscription_id, feature.feature_id, period.start_s)
    blocks = not feature.unlimited and not (feature.overage_enabled and period.overage_allowed)
    return Take(pool, event.quantity_nano, feature.included_nano, blocks)


def _from_balance(
    event: Event,
    terms: Terms,
    subscription: SubscriptionTerms,
    period: PeriodTerms,
    feature: FeatureTerms,
    book: PriceBook,
    occurred_at_ms: int,
) -> Take:
    pool = pools.balance(subscription.subscription_id, period.grant_start_s)
    blocks = subscription.blocks_on_exhaustion or not period.overage_allowed
    if feature.pricing_mode != "ai_model":
        if event.model is not None:
            _mismatch(f"Feature {feature.code} has a fixed price on this plan: send `value`, not `model`.")
        amount = money.divide_half_even(event.quantity_nano * feature.unit_price_nano, money.NANO)
        return Take(pool, 0 if feature.unlimited else amount, period.balance_opening, blocks)
    if event.model is None:
        _mismatch(f"Feature {feature.code} is priced by AI model: send `model`, `inputTokens` and `outputTokens`.")
    priced = book.price(
        terms.tenant.id,
        event.model,
        occurred_at_ms,
        cost.Tokens(
            event.input_tokens,
            event.output_tokens,
            event.cache_read_tokens,
            event.cache_write_tokens,
            event.cache_write_1h_tokens,
        ),
        feature.margin_bps or 0,
    )
    return Take(pool, 0 if feature.unlimited else priced.charge_nano, period.balance_opening, blocks, ai=priced)


def _mismatch(message: str) -> NoReturn:
    raise errors.BillingError("pricing_mode_mismatch", message)


def _charge(
    event: Event,
    terms: Terms,
    period: PeriodTerms,
    feature: FeatureTerms,
    take: Take,
    arrival: Arrival,
    occurred_at_ms: int,
) -> Charge:
    occurred_in_open_period = occurred_at_ms // 1000 >= period.start_s
    record = usage_log.Record(
        kind=usage_log.Kind.USAGE,
        tenant_id=terms.tenant.id,
        customer_id=terms.customer_id,
        digest=ids.event_digest(terms.tenant.id, terms.customer_id, arrival.identity),
        pool=take.pool,
        amount=take.amount,
        event_id=event.event_id,
        feature_id=feature.feature_id,
        period_start_s=period.start_s,
        belongs_to_s=0 if occurred_in_open_period else occurred_at_ms // 1000,
        occurred_at_ms=occurred_at_ms,
        quantity_nano=event.quantity_nano,
        properties=event.properties,
        **_ai_fields(event, take.ai),
    )
    return Charge(
        partition=terms.partition,
        record=record,
        amount=-take.amount,
        opening=take.opening,
        blocks=take.blocks,
        spare_pool=take.spare_pool,
        tenant_version=terms.tenant_version,
        customer_version=terms.customer_version,
        fingerprint=event.fingerprint,
        idempotency=arrival.idempotency,
    )
