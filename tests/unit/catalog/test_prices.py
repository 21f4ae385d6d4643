"""Prices: what they may be, what they grant, and which one is sold to who names none."""

import dataclasses
from datetime import UTC, datetime

import pytest

from tallybook.catalog import rules
from tallybook.catalog.model import BillingInterval, ConsumptionModel, Plan, Price, PriceAmounts, PriceChange
from tallybook.core import money
from tallybook.core.errors import ValidationError

NOW = datetime(2026, 11, 20, tzinfo=UTC)
PLAN = Plan(
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


def plan(model: ConsumptionModel | None, *, is_free: bool = False) -> Plan:
    return dataclasses.replace(PLAN, consumption_model=model, is_free=is_free)


def broken(on: Plan, amounts: PriceAmounts, interval: BillingInterval = "monthly") -> str | None:
    try:
        rules.check_amounts(on, interval, amounts)
    except ValidationError as refusal:
        return refusal.param
    return None


@pytest.mark.parametrize("model", [None, "metered", "credits"])
def test_an_included_balance_is_for_balance_plans(model: ConsumptionModel | None) -> None:
    assert broken(plan(model), PriceAmounts(100, included_balance_nano=0)) == "includedBalance"
    assert broken(plan("balance"), PriceAmounts(100, included_balance_nano=0)) is None


@pytest.mark.parametrize("model", [None, "metered", "balance"])
def test_included_credits_are_for_credits_plans(model: ConsumptionModel | None) -> None:
    assert broken(plan(model), PriceAmounts(100, included_credits=0)) == "includedCredits"
    assert broken(plan("credits"), PriceAmounts(100, included_credits=0)) is None


def test_a_free_plan_costs_nothing_and_has_no_trial() -> None:
    assert broken(plan("metered", is_free=True), PriceAmounts(1)) == "price"
    assert broken(plan("metered", is_free=True), PriceAmounts(0, trial_days=7)) == "trialDays"
    assert broken(plan("metered", is_free=True), PriceAmounts(0)) is None


def test_a_one_time_price_has_no_trial() -> None:
    assert broken(PLAN, PriceAmounts(100, trial_days=7), "one_time") == "trialDays"
    assert broken(PLAN, PriceAmounts(100, trial_days=7), "yearly") is None


@pytest.mark.parametrize("interval", ["weekly", "monthly"])
def test_a_balance_plan_that_says_nothing_grants_its_base_price(interval: BillingInterval) -> None:
    assert rules.granted_balance_nano("balance", interval, PriceAmounts(2900)) == 29 * money.NANO


@pytest.mark.parametrize("interval", ["quarterly", "semiannual", "yearly", "one_time"])
def test_a_balance_plan_billed_for_more_than_a_period_grants_only_what_it_says(interval: BillingInterval) -> None:
    assert rules.granted_balance_nano("balance", interval, PriceAmounts(2900)) == 0
    assert rules.granted_balance_nano("balance", interval, PriceAmounts(2900, included_balance_nano=5)) == 5


def test_an_included_balance_of_zero_is_zero() -> None:
    assert rules.granted_balance_nano("balance", "monthly", PriceAmounts(2900, included_balance_nano=0)) == 0


def test_other_plans_grant_no_balance_and_no_credits() -> None:
    assert rules.granted_balance_nano("metered", "monthly", PriceAmounts(2900)) == 0
    assert rules.granted_credits("metered", PriceAmounts(2900)) == 0
    assert rules.granted_credits("credits", PriceAmounts(2900)) == 0
    assert rules.granted_credits("credits", PriceAmounts(2900, included_credits=50)) == 50


def test_a_change_leaves_the_amounts_it_does_not_name() -> None:
    amounts = PriceAmounts(2900, 14, 5, None)
    assert rules.changed_amounts(amounts, PriceChange(price_cents=3900, is_default=True)) == PriceAmounts(3900, 14, 5, None)
    assert rules.changed_amounts(amounts, PriceChange(included_balance_nano=None)) == PriceAmounts(2900, 14, None, None)


def price(number: int, interval: BillingInterval, *, is_default: bool = False) -> Price:
    return Price(number, 1, f"price_{number}", interval, is_default, {}, NOW, NOW, PriceAmounts(100))


def test_who_names_nothing_gets_the_default() -> None:
    prices = [price(1, "monthly"), price(2, "yearly", is_default=True)]
    assert rules.default_price(prices, None) == prices[1]


def test_who_names_an_interval_gets_the_default_of_it_or_else_its_oldest() -> None:
    prices = [price(1, "yearly"), price(2, "yearly"), price(3, "monthly"), price(4, "monthly", is_default=True)]
    assert rules.default_price(prices, "yearly") == prices[0]
    assert rules.default_price(prices, "monthly") == prices[3]
    assert rules.default_price(prices, "weekly") is None


def test_a_plan_without_prices_has_no_default() -> None:
    assert rules.default_price([], None) is None


def test_more_metadata_than_is_kept_is_refused() -> None:
    rules.check_metadata({"note": "x" * 1000})
    with pytest.raises(ValidationError, match="16384"):
        rules.check_metadata({"note": "x" * rules.METADATA_BYTES_MAX})
