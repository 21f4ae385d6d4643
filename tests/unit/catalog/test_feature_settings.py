"""What a plan may say about a feature, by its consumption model."""

import dataclasses
from datetime import UTC, datetime
from typing import cast

import pytest

from tallybook.catalog import rules
from tallybook.catalog.model import ConsumptionModel, Feature, FeatureSettings, FeatureType, Plan, SettingsChange
from tallybook.core.errors import ValidationError

NOW = datetime(2026, 11, 20, tzinfo=UTC)
METERED = Plan(
    id=1,
    tenant_id=1,
    public_id="plan_1",
    code="pro",
    name="Pro",
    description=None,
    consumption_model="metered",
    is_public=True,
    is_free=False,
    block_on_exhaustion=None,
    sort_order=0,
    metadata=None,
    created_at=NOW,
    updated_at=NOW,
    deleted_at=None,
)
USAGE = Feature(1, 1, "feat_1", "calls", "Calls", "usage", None, None, NOW, NOW)


def plan(model: ConsumptionModel | None, *, is_free: bool = False) -> Plan:
    return dataclasses.replace(METERED, consumption_model=model, is_free=is_free)


def feature(kind: FeatureType) -> Feature:
    return dataclasses.replace(USAGE, type=kind)


def broken(on: Plan, what: Feature, change: SettingsChange, current: FeatureSettings | None = None) -> list[str]:
    with pytest.raises(ValidationError) as refusal:
        rules.settings(on, what, current, change)
    details = cast("list[dict[str, str]]", refusal.value.details)
    return [detail["field"] for detail in details]


def test_what_is_not_given_has_its_default() -> None:
    assert rules.settings(METERED, USAGE, None, SettingsChange(included_units=10)) == FeatureSettings(included_units=10)


def test_what_is_not_given_in_a_change_stays() -> None:
    current = FeatureSettings(included_units=10, overage_enabled=True, unit_price_nano=5)
    changed = rules.settings(METERED, USAGE, current, SettingsChange(unlimited=True))
    assert changed == dataclasses.replace(current, unlimited=True)


def test_a_plan_without_a_model_is_metered() -> None:
    assert rules.model_of(plan(None)) == "metered"


def test_a_free_plan_has_no_overage() -> None:
    change = SettingsChange(overage_enabled=True, unit_price_nano=1)
    assert broken(plan("metered", is_free=True), USAGE, change) == ["overage.enabled"]


def test_a_paid_metered_plan_has_overage() -> None:
    assert rules.settings(METERED, USAGE, None, SettingsChange(overage_enabled=True, unit_price_nano=1)).overage_enabled


def test_a_credits_plan_has_no_overage() -> None:
    change = SettingsChange(overage_enabled=True, unit_price_nano=1, credits_per_unit=1)
    assert broken(plan("credits"), USAGE, change) == ["overage.enabled"]


@pytest.mark.parametrize("model", [None, "metered", "balance"])
def test_credits_per_unit_are_for_credits_plans(model: ConsumptionModel | None) -> None:
    assert "creditsPerUnit" in broken(plan(model), USAGE, SettingsChange(credits_per_unit=1, unit_price_nano=1))


def test_usage_on_a_credits_plan_needs_credits_per_unit() -> None:
    assert broken(plan("credits"), USAGE, SettingsChange()) == ["creditsPerUnit"]


def test_credits_per_unit_cannot_be_taken_away_from_usage() -> None:
    current = FeatureSettings(credits_per_unit=3)
    assert broken(plan("credits"), USAGE, SettingsChange(credits_per_unit=None), current) == ["creditsPerUnit"]


def test_a_switch_on_a_credits_plan_takes_no_credits() -> None:
    assert rules.settings(plan("credits"), feature("boolean"), None, SettingsChange()).credits_per_unit is None


@pytest.mark.parametrize("model", [None, "metered"])
def test_ai_model_pricing_is_for_balance_plans(model: ConsumptionModel | None) -> None:
    assert broken(plan(model), USAGE, SettingsChange(pricing_mode="ai_model")) == ["pricingMode"]


def test_ai_model_pricing_is_for_usage() -> None:
    assert broken(plan("balance"), feature("seats"), SettingsChange(pricing_mode="ai_model")) == ["pricingMode"]


def test_ai_model_pricing_takes_a_margin_and_no_unit_price() -> None:
    settings = rules.settings(plan("balance"), USAGE, None, SettingsChange(pricing_mode="ai_model", margin_bps=2000))
    assert (settings.pricing_mode, settings.margin_bps) == ("ai_model", 2000)
    change = SettingsChange(pricing_mode="ai_model", unit_price_nano=1)
    assert broken(plan("balance"), USAGE, change) == ["overage.unitPrice"]


def test_a_margin_is_for_ai_model_pricing() -> None:
    assert broken(plan("balance"), USAGE, SettingsChange(unit_price_nano=1, margin_bps=2000)) == ["margin"]


def test_a_fixed_price_on_a_balance_plan_must_be_given_even_if_it_is_zero() -> None:
    assert broken(plan("balance"), USAGE, SettingsChange()) == ["overage.unitPrice"]
    assert rules.settings(plan("balance"), USAGE, None, SettingsChange(unit_price_nano=0)).unit_price_nano == 0


def test_unlimited_use_of_a_balance_plan_needs_no_price_until_it_is_limited() -> None:
    unlimited = rules.settings(plan("balance"), USAGE, None, SettingsChange(unlimited=True))
    assert broken(plan("balance"), USAGE, SettingsChange(unlimited=False), unlimited) == ["overage.unitPrice"]


def test_overage_must_have_a_price_even_if_it_is_zero() -> None:
    assert broken(METERED, USAGE, SettingsChange(overage_enabled=True)) == ["overage.unitPrice"]
    assert rules.settings(METERED, USAGE, None, SettingsChange(overage_enabled=True, unit_price_nano=0)).overage_enabled


def test_overage_turned_on_later_must_have_a_price() -> None:
    assert broken(METERED, USAGE, SettingsChange(overage_enabled=True), FeatureSettings()) == ["overage.unitPrice"]
    priced = FeatureSettings(unit_price_nano=7)
    assert rules.settings(METERED, USAGE, priced, SettingsChange(overage_enabled=True)).unit_price_nano == 7


def test_a_price_of_zero_given_once_need_not_be_given_again() -> None:
    current = FeatureSettings(overage_enabled=True, unit_price_nano=0)
    assert rules.settings(METERED, USAGE, current, SettingsChange(included_units=5)).included_units == 5


def test_seats_on_a_balance_plan_need_no_price_without_overage() -> None:
    assert rules.settings(plan("balance"), feature("seats"), None, SettingsChange(included_units=3)).included_units == 3


def test_every_broken_rule_is_named() -> None:
    change = SettingsChange(overage_enabled=True, credits_per_unit=1, pricing_mode="ai_model")
    assert broken(plan("metered", is_free=True), feature("seats"), change) == [
        "overage.enabled",
        "creditsPerUnit",
        "pricingMode",
        "pricingMode",
        "overage.unitPrice",
    ]
