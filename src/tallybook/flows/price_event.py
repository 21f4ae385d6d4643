"""Price: one event and the customer's terms → one charge for the till. Pure; no clock, no I/O."""

from typing import NoReturn

import msgspec

from tallybook.catalog.model import FeatureTerms
from tallybook.charge.commands import Charge
from tallybook.core import errors, ids, money, pools, usage_log
from tallybook.pricing import cost
from tallybook.pricing.price_book import PriceBook
from tallybook.receive.model import Event, Usage
from tallybook.subscriptions.terms import ConsumptionModel, PeriodTerms, SubscriptionTerms, Terms


class PricedEvent(msgspec.Struct, frozen=True, gc=False):
    """An event with its charge, and the terms both come from."""

    event: Event
    terms: Terms
    subscription: SubscriptionTerms
    period: PeriodTerms
    feature: FeatureTerms
    charge: Charge


class AiPrice(msgspec.Struct, frozen=True, gc=False):
    """How an AI event was priced: the model its id meant, how it was matched, the price row, the book's version and the margin."""

    model_id: str
    matched_by: str
    price_id: int
    catalog_version: int
    margin_bps: int
    priced: cost.Priced


class Take(msgspec.Struct, frozen=True, gc=False):
    """What usage takes from which pool (1e-9 of the pool's unit), how much was used, and the AI price, if any."""

    pool: str
    amount: int
    opening: int
    blocks: bool
    quantity_nano: int
    spare_pool: str = ""
    ai: AiPrice | None = None


class Arrival(msgspec.Struct, frozen=True, gc=False):
    """When an event arrived (tenant's clock) and under which id: the caller's, or one made from the request."""

    now_ms: int
    identity: str
    idempotency: bytes


def price(event: Event, terms: Terms, book: PriceBook, arrival: Arrival) -> PricedEvent:
    """Decide what an event costs and which pool pays.

    Raises NotFound (`no_active_subscription`, `model_not_found`, `model_unpriced`), BillingError (`feature_not_in_plan`,
    `feature_disabled`, `pricing_mode_mismatch`), Conflict (`ambiguous_model`), ValidationError, and `PeriodUnknown` when the terms do
    not reach far enough.
    """
    occurred_at_ms = arrival.now_ms if event.occurred_at_ms is None else event.occurred_at_ms
    subscription, period = paying_period(terms, event.customer_id, occurred_at_ms)
    feature = usable_feature(event.feature_code, period)
    take = take_from_pool(event, Paying(terms, subscription, period, feature), book, occurred_at_ms)
    charge = _charge(event, terms, period, feature, take, arrival, occurred_at_ms)
    return PricedEvent(event, terms, subscription, period, feature, charge)


class Paying(msgspec.Struct, frozen=True, gc=False):
    """Whose terms decide: the customer, its subscription, the period that pays and the feature used."""

    terms: Terms
    subscription: SubscriptionTerms
    period: PeriodTerms
    feature: FeatureTerms


class PeriodUnknown(Exception):
    """The event lies in a period that the terms at hand do not reach."""


def paying_period(terms: Terms, reference: str, occurred_at_ms: int) -> tuple[SubscriptionTerms, PeriodTerms]:
    """The subscription and the period that pay for a moment. Raises NotFound `no_active_subscription`, or PeriodUnknown."""
    subscription = terms.subscription
    if subscription is None or subscription.has_ended_at(occurred_at_ms // 1000):
        raise errors.NotFound("no_active_subscription", f"Customer {reference} has no active subscription.", param="customerId")
    period = subscription.period_at(occurred_at_ms // 1000)
    if period is None:
        raise PeriodUnknown
    return subscription, period


def usable_feature(code: str, period: PeriodTerms) -> FeatureTerms:
    """The feature if usage can be sent for it. Raises BillingError otherwise."""
    feature = period.features.get(code)
    if feature is None:
        raise not_in_plan(code)
    if feature.type != "usage":
        message = f"Feature {code} is of type {feature.type}; usage events are for features of type usage."
        raise errors.BillingError("pricing_mode_mismatch", message, param="featureCode")
    if not feature.enabled:
        raise errors.BillingError("feature_disabled", f"Feature {code} is disabled in the customer's plan.", param="featureCode")
    return feature


def not_in_plan(code: str) -> errors.BillingError:
    """The plan lacks the feature; whether anybody has it is not known here."""
    return errors.BillingError("feature_not_in_plan", f"Feature {code} is not in the customer's plan.", param="featureCode")


def take_from_pool(used: Usage, paying: Paying, book: PriceBook, occurred_at_ms: int) -> Take:
    """What some usage takes from which pool. Raises as `price` does."""
    model = paying.subscription.consumption_model
    if model is ConsumptionModel.BALANCE:
        take = _from_balance(used, paying, book, occurred_at_ms)
    elif used.model is not None:
        _mismatch(f"Feature {paying.feature.code} is not priced by AI model on this plan: send `value`, not `model`.")
    elif model is ConsumptionModel.CREDITS:
        take = _from_credits(used, paying)
    else:
        take = _from_included_units(used, paying)
    if take.amount > most_of(model):
        raise errors.invalid(
            "value",
            f"The event would take {take.amount} from its pool (in 1e-9 of its unit); one event takes at most {most_of(model)}.",
        )
    return take


def most_of(model: ConsumptionModel) -> int:
    """The largest amount one event may take: money and credits 1e15, units 1e18 (1e-9 of each)."""
    return money.QUANTITY_MAX if model is ConsumptionModel.METERED else money.AMOUNT_MAX


def _from_included_units(used: Usage, paying: Paying) -> Take:
    feature, period = paying.feature, paying.period
    pool = pools.feature(paying.subscription.subscription_id, feature.feature_id, period.start_s)
    blocks = not feature.unlimited and not (feature.overage_enabled and period.overage_allowed)
    return Take(pool, used.quantity_nano, feature.included_nano, blocks, used.quantity_nano)


def _from_credits(used: Usage, paying: Paying) -> Take:
    feature, period = paying.feature, paying.period
    amount = 0 if feature.unlimited else used.quantity_nano * (feature.credits_per_unit or 0)
    pool = pools.credits(paying.subscription.subscription_id, period.grant_start_s)
    return Take(
        pool, amount, period.credits_opening, blocks=True, quantity_nano=used.quantity_nano, spare_pool=pools.PURCHASED_CREDITS
    )


def _from_balance(used: Usage, paying: Paying, book: PriceBook, occurred_at_ms: int) -> Take:
    feature, period = paying.feature, paying.period
    pool = pools.balance(paying.subscription.subscription_id, period.grant_start_s)
    blocks = paying.subscription.blocks_on_exhaustion or not period.overage_allowed
    if feature.pricing_mode == "ai_model":
        ai = _ai_price(used, paying, book, occurred_at_ms)
        tokens = (ai.priced.input_tokens + used.output_tokens) * money.NANO
        return Take(pool, 0 if feature.unlimited else ai.priced.charge_nano, period.balance_opening, blocks, tokens, ai=ai)
    if used.model is not None:
        _mismatch(f"Feature {feature.code} has a fixed price on this plan: send `value`, not `model`.")
    amount = 0 if feature.unlimited else money.divide_half_even(used.quantity_nano * feature.unit_price_nano, money.NANO)
    return Take(pool, amount, period.balance_opening, blocks, used.quantity_nano)


def _ai_price(used: Usage, paying: Paying, book: PriceBook, occurred_at_ms: int) -> AiPrice:
    if used.model is None:
        _mismatch(f"Feature {paying.feature.code} is priced by AI model: send `model`, `inputTokens` and `outputTokens`.")
    resolved = book.resolve(paying.terms.tenant.id, used.model)
    row = resolved.entry.row_at(occurred_at_ms)
    usage = cost.TokenUsage(
        used.input_tokens,
        used.output_tokens,
        used.cache_read_tokens,
        used.cache_write_tokens,
        used.cache_write_1h_tokens,
        used.web_search_requests,
        used.service_tier,
        used.input_tokens_include_cache,
    )
    margin_bps = _margin_bps(paying)
    priced = cost.price(row, usage, margin_bps)
    return AiPrice(resolved.model_id, resolved.matched_by, row.id, book.version, margin_bps, priced)


def _margin_bps(paying: Paying) -> int:
    """The customer's own margin, else the plan's for the feature, else none."""
    own = paying.terms.ai_margin_bps
    return (paying.feature.margin_bps or 0) if own is None else own


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
        quantity_nano=take.quantity_nano,
        properties=event.properties,
        fingerprint=event.fingerprint + arrival.idempotency,
    )
    if take.ai is not None:
        record = _with_ai_price(record, event, take.ai)
    return Charge(
        partition=terms.partition,
        record=record,
        amount=-take.amount,
        opening=take.opening,
        blocks=take.blocks,
        spare_pool=take.spare_pool,
        tenant_version=terms.tenant_version,
        customer_version=terms.customer_version,
    )


def _with_ai_price(record: usage_log.Record, event: Event, ai: AiPrice) -> usage_log.Record:
    priced = ai.priced
    return msgspec.structs.replace(
        record,
        model=ai.model_id,
        matched_by=ai.matched_by,
        service_tier=event.service_tier,
        price_id=ai.price_id,
        margin_bps=ai.margin_bps,
        cost_nano=priced.cost_nano,
        input_tokens=priced.input_tokens,
        output_tokens=event.output_tokens,
        cache_read_tokens=event.cache_read_tokens,
        cache_write_tokens=event.cache_write_tokens,
        cache_write_1h_tokens=event.cache_write_1h_tokens,
        web_searches=event.web_search_requests,
        input_pico=priced.input_pico,
        output_pico=priced.output_pico,
        cache_read_pico=priced.cache_read_pico,
        cache_write_pico=priced.cache_write_pico,
        cache_write_1h_pico=priced.cache_write_1h_pico,
        web_search_pico=priced.web_search_pico,
        catalog_version=ai.catalog_version,
    )
