"""Which plans, features and prices are valid, and what of a later change holds in a period that has begun."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from msgspec import UNSET

from tallybook.catalog.model import (
    BillingInterval,
    ConsumptionModel,
    Feature,
    FeatureChange,
    FeatureRevision,
    FeatureSettings,
    FeatureType,
    Plan,
    PlanChange,
    Price,
    PriceAmounts,
    PriceChange,
    SettingsChange,
)
from tallybook.core import errors, money
from tallybook.core.errors import FieldError, ValidationError

METADATA_BYTES_MAX = 16_384
PLAN_FEATURES_MAX: Final = 500
"""Each may be a pool of its own of every subscriber, and all pools of a customer are read and written with each of its events."""
FEATURE_TAKEN_OFF_FOR: Final = timedelta(days=366)
"""How long a feature counts that a plan has no more: a period that has begun keeps it."""
_INTERVALS_FUNDED_BY_PRICE = ("weekly", "monthly")


def given(change: FeatureChange | PlanChange | SettingsChange | PriceChange) -> dict[str, Any]:
    """What a change says, without what it leaves as it is."""
    values = {field.name: getattr(change, field.name) for field in dataclasses.fields(change)}
    return {name: value for name, value in values.items() if value is not UNSET}


# ── a feature on a plan ──────────────────────────────────────────────────────────────────────────────────────────────


def check_room(plan: Plan, other_features: int) -> None:
    """Whether a feature can be added to so many others. Raises ValidationError."""
    if other_features >= PLAN_FEATURES_MAX:
        message = f"Plan {plan.code} has {other_features} features, with those of the last year; at most {PLAN_FEATURES_MAX} are allowed."
        raise errors.invalid("featureId", message)


def settings(plan: Plan, feature: Feature, current: FeatureSettings | None, change: SettingsChange) -> FeatureSettings:
    """What a plan says about a feature after a change; `current` None: it is being added.

    Raises ValidationError with every broken rule.
    """
    changed = dataclasses.replace(current or FeatureSettings(), **given(change))
    problems = list(_settings_problems(plan, feature, changed))
    if _lacks_price(plan, feature, current, changed) and change.unit_price_nano is UNSET:
        message = f"overage.unitPrice is needed: it is what a unit of {feature.code} costs (0 when it costs nothing)."
        problems.append(FieldError("overage.unitPrice", message))
    if problems:
        raise ValidationError(problems)
    return changed


def _settings_problems(plan: Plan, feature: Feature, new: FeatureSettings) -> Iterator[FieldError]:
    model = model_of(plan)
    if new.overage_enabled and plan.is_free:
        yield FieldError("overage.enabled", f"Plan {plan.code} is free: usage stops at what is included; overage can't be on.")
    if new.overage_enabled and model == "credits":
        yield FieldError("overage.enabled", f"Plan {plan.code} is paid by credits, which run out; overage can't be on.")
    if new.credits_per_unit is not None and model != "credits":
        yield FieldError("creditsPerUnit", f"creditsPerUnit is for plans paid by credits; plan {plan.code} is {model}.")
    if new.credits_per_unit is None and paid_by(plan, feature.type) == "credits":
        yield FieldError("creditsPerUnit", f"creditsPerUnit is needed: what a unit of {feature.code} takes on plan {plan.code}.")
    if new.pricing_mode == "ai_model":
        yield from _ai_model_problems(plan, feature, new)
    elif new.margin_bps is not None:
        yield FieldError("margin", "margin is for pricingMode ai_model; this feature has a fixed price.")


def _ai_model_problems(plan: Plan, feature: Feature, new: FeatureSettings) -> Iterator[FieldError]:
    if model_of(plan) != "balance":
        yield FieldError("pricingMode", f"pricingMode ai_model is for balance plans; plan {plan.code} is {model_of(plan)}.")
    if feature.type != "usage":
        yield FieldError("pricingMode", f"pricingMode ai_model is for usage features; {feature.code} is {feature.type}.")
    if new.unit_price_nano:
        yield FieldError("overage.unitPrice", "overage.unitPrice is for a fixed price; with ai_model the model's prices apply.")


def _lacks_price(plan: Plan, feature: Feature, current: FeatureSettings | None, new: FeatureSettings) -> bool:
    """Whether a unit price is in force now that nobody has ever given: usage must not be free because a field was forgotten."""
    was_priced = current is not None and _is_priced(plan, feature, current)
    return _is_priced(plan, feature, new) and not was_priced and new.unit_price_nano == 0


def _is_priced(plan: Plan, feature: Feature, settings: FeatureSettings) -> bool:
    if paid_by(plan, feature.type) == "balance":
        return settings.pricing_mode == "fixed" and not settings.unlimited
    return settings.overage_enabled


def model_of(plan: Plan) -> ConsumptionModel:
    """How a plan's usage is paid; a plan that doesn't say is metered."""
    return plan.consumption_model or "metered"


def paid_by(plan: Plan, feature_type: FeatureType) -> ConsumptionModel:
    """How use of a feature is paid: seats and quotas are counted and billed by the unit on every plan."""
    return model_of(plan) if feature_type == "usage" else "metered"


def in_force(
    revisions: Sequence[FeatureRevision], period_start: datetime, model: ConsumptionModel, begun_with: int | None = None
) -> FeatureSettings | None:
    """What holds for a feature in a period that began at `period_start`, by its revisions in order; None: it isn't on the plan.

    `begun_with` is the last revision that was there when it began (`Edition.features`). A period that has none, because it has not
    begun, is going to begin with those of its very first instant, too.
    """

    def was_there(revision: FeatureRevision) -> bool:
        return revision.effective_at <= period_start if begun_with is None else revision.id <= begun_with

    earlier = [revision for revision in revisions if was_there(revision)]
    later = [revision.settings for revision in revisions if not was_there(revision) and not revision.removed]
    base = earlier[-1].settings if earlier and not earlier[-1].removed else None
    return fold_beneficial(base, later, model)


def fold_beneficial(
    base: FeatureSettings | None, later: Sequence[FeatureSettings], model: ConsumptionModel
) -> FeatureSettings | None:
    """What a period keeps of the settings it began with, and takes of later ones because it benefits the customer.

    Settings that only came later hold from then on, so a feature added in a period is usable at once.
    """
    for settings in later:
        base = settings if base is None else _better_of(base, settings, model)
    return base


def _better_of(base: FeatureSettings, later: FeatureSettings, model: ConsumptionModel) -> FeatureSettings:
    better = dataclasses.replace(
        base,
        enabled=base.enabled or later.enabled,
        included_units=max(base.included_units, later.included_units),
        unlimited=base.unlimited or later.unlimited,
        overage_enabled=base.overage_enabled or later.overage_enabled,
        unit_price_nano=_better_unit_price(base, later, model),
        credits_per_unit=_lower(base.credits_per_unit, later.credits_per_unit),
    )
    if base.pricing_mode != later.pricing_mode:
        return better
    margins = (base.margin_bps or 0, later.margin_bps or 0)
    return dataclasses.replace(better, margin_bps=base.margin_bps if margins[0] <= margins[1] else later.margin_bps)


def _better_unit_price(base: FeatureSettings, later: FeatureSettings, model: ConsumptionModel) -> int:
    """The lower of two unit prices, where both are prices: one that isn't charged (overage off, AI model) says nothing."""
    if base.pricing_mode != later.pricing_mode:
        return base.unit_price_nano
    if model != "balance" and not later.overage_enabled:
        return base.unit_price_nano
    if model != "balance" and not base.overage_enabled:
        return later.unit_price_nano
    return min(base.unit_price_nano, later.unit_price_nano)


def _lower(left: int | None, right: int | None) -> int | None:
    known = [value for value in (left, right) if value is not None]
    return min(known, default=None)


# ── prices ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def check_amounts(plan: Plan, interval: BillingInterval, amounts: PriceAmounts) -> None:
    """Raises ValidationError with every rule that a price of this plan breaks."""
    problems = list(_amounts_problems(plan, interval, amounts))
    if problems:
        raise ValidationError(problems)


def _amounts_problems(plan: Plan, interval: BillingInterval, amounts: PriceAmounts) -> Iterator[FieldError]:
    model = model_of(plan)
    if plan.is_free and amounts.price_cents:
        yield FieldError("price", f"Plan {plan.code} is free: price is {amounts.price_cents}, and must be 0.")
    if plan.is_free and amounts.trial_days:
        yield FieldError("trialDays", f"Plan {plan.code} is free: there is nothing to try, so trialDays must be 0.")
    if interval == "one_time" and amounts.trial_days:
        yield FieldError("trialDays", "A one_time price is paid at the start: trialDays must be 0.")
    if amounts.included_balance_nano is not None and model != "balance":
        yield FieldError("includedBalance", f"includedBalance is for plans paid from a balance; plan {plan.code} is {model}.")
    if amounts.included_credits is not None and model != "credits":
        yield FieldError("includedCredits", f"includedCredits is for plans paid by credits; plan {plan.code} is {model}.")


def changed_amounts(amounts: PriceAmounts, change: PriceChange) -> PriceAmounts:
    """What a price charges and grants after a change."""
    names = {field.name for field in dataclasses.fields(PriceAmounts)}
    return dataclasses.replace(amounts, **{name: value for name, value in given(change).items() if name in names})


def granted_balance_nano(model: ConsumptionModel, interval: BillingInterval, amounts: PriceAmounts) -> int:
    """The balance a usage period is granted, in nano-USD.

    A balance plan that doesn't say grants what was paid for the period: the base price where a period is a billing cycle (weekly
    and monthly), else nothing.
    """
    if model != "balance":
        return 0
    if amounts.included_balance_nano is not None:
        return amounts.included_balance_nano
    return amounts.price_cents * money.NANO_PER_CENT if interval in _INTERVALS_FUNDED_BY_PRICE else 0


def granted_credits(model: ConsumptionModel, amounts: PriceAmounts) -> int:
    """The whole credits a usage period is granted."""
    return amounts.included_credits or 0 if model == "credits" else 0


def default_price(prices: Sequence[Price], interval: BillingInterval | None) -> Price | None:
    """What is sold to who names no price: the plan's default if it has the interval asked for, else the oldest that has."""
    candidates = [price for price in prices if interval in (None, price.billing_interval)]
    candidates.sort(key=lambda price: (not price.is_default, price.id))
    return candidates[0] if candidates else None


# ── metadata ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def check_metadata(metadata: Mapping[str, Any] | None) -> None:
    """Raises ValidationError for more metadata than is kept."""
    size = len(msgspec.json.encode(metadata))
    if size > METADATA_BYTES_MAX:
        raise errors.invalid("metadata", f"metadata is {size} bytes of JSON; at most {METADATA_BYTES_MAX} are kept.")
