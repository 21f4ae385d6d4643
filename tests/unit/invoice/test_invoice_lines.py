"""Lines of an invoice: what is billed, from which pool, and how it is rounded."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.catalog.model import FeatureTerms
from tallybook.core import money
from tallybook.invoice import rules
from tallybook.invoice.model import BasePrice, Decision, Line, PoolTotals, Verdict, Waiver

UNIT = money.NANO
CALLS = FeatureTerms(
    feature_id=42,
    code="api_calls",
    name="API calls",
    unit_name=None,
    type="usage",
    enabled=True,
    included_nano=1000 * UNIT,
    unlimited=False,
    overage_enabled=True,
    unit_price_nano=10_000_000,
    credits_per_unit=None,
    pricing_mode="fixed",
    margin_bps=None,
)


def feature_pool(used: int, included: int = 1000 * UNIT, feature_id: int = 42) -> PoolTotals:
    return PoolTotals(f"17.f{feature_id}.1763596800", included, used, 0, included - used)


def balance_pool(opening: int, charged: int, adjusted: int = 0) -> PoolTotals:
    return PoolTotals("17.b.1763596800", opening, charged, adjusted, opening + adjusted - charged)


def lines(*pools: PoolTotals, features: tuple[FeatureTerms, ...] = (CALLS,), may_overdraw: bool = True) -> list[Line]:
    return rules.overage_lines(
        pools, {feature.feature_id: feature for feature in features}, balance_may_be_overdrawn=may_overdraw
    )


def test_the_units_beyond_what_is_included_are_billed() -> None:
    [line] = lines(feature_pool(3000 * UNIT))
    assert (line.line_type, line.charge_type, line.pool) == ("feature_overage", "true_up", "17.f42.1763596800")
    assert (line.included_nano, line.used_nano, line.overage_nano) == (1000 * UNIT, 3000 * UNIT, 2000 * UNIT)
    assert (line.quantity_nano, line.unit_price_nano, line.amount_cents) == (2000 * UNIT, 10_000_000, 2000)


@pytest.mark.parametrize("used", [0, 999 * UNIT, 1000 * UNIT])
def test_usage_within_what_is_included_bills_nothing(used: int) -> None:
    assert lines(feature_pool(used)) == []


@pytest.mark.parametrize("change", [{"unlimited": True}, {"overage_enabled": False}])
def test_an_unlimited_feature_or_one_without_overage_bills_nothing(change: dict[str, bool]) -> None:
    assert lines(feature_pool(3000 * UNIT), features=(dataclasses.replace(CALLS, **change),)) == []


def test_a_feature_that_is_not_in_the_terms_bills_nothing() -> None:
    assert lines(feature_pool(3000 * UNIT), features=()) == []


@pytest.mark.parametrize(
    ("change", "waiver", "verdict"),
    [
        ({}, None, "billed"),
        ({"unlimited": True}, None, "unlimited"),
        ({"overage_enabled": False}, None, "overage_off"),
        ({}, "trial", "trial"),
        ({"unlimited": True}, "free_plan", "free_plan"),
    ],
)
def test_overage_is_billed_or_says_why_not(change: dict[str, bool], waiver: Waiver | None, verdict: Verdict) -> None:
    features = {42: dataclasses.replace(CALLS, **change)}
    found = rules.decisions([feature_pool(3000 * UNIT), balance_pool(0, UNIT)], features, waiver)
    assert found == [Decision("17.f42.1763596800", verdict, 2000 * UNIT)]


def test_nothing_is_decided_about_a_pool_that_has_something_left_or_whose_feature_has_no_terms() -> None:
    assert rules.decisions([feature_pool(1000 * UNIT), feature_pool(3000 * UNIT, feature_id=7)], {42: CALLS}, None) == []


def test_a_total_that_was_set_counts_as_what_was_used() -> None:
    corrected = PoolTotals("17.f42.1763596800", 1000 * UNIT, 400 * UNIT, -900 * UNIT, -300 * UNIT)
    [line] = lines(corrected)
    assert (line.used_nano, line.overage_nano, line.amount_cents) == (1300 * UNIT, 300 * UNIT, 300)


@pytest.mark.parametrize(
    ("overage", "unit_price", "cents"),
    [
        (1 * UNIT, 5_000_000, 0),  # half a cent goes to the even neighbour
        (3 * UNIT, 5_000_000, 2),
        (UNIT // 2, 10_000_000, 0),
        (3 * UNIT // 2, 10_000_000, 2),
        (1, 5_000_001, 0),
        (UNIT + 1, 5_000_000, 1),  # a hair above half a cent goes up: nothing was rounded before
        (2000 * UNIT, 10_000_000, 2000),
        (10**18, 10**9, 10**11),
    ],
)
def test_a_line_is_rounded_to_cents_once_half_to_even(overage: int, unit_price: int, cents: int) -> None:
    [line] = lines(feature_pool(1000 * UNIT + overage), features=(dataclasses.replace(CALLS, unit_price_nano=unit_price),))
    assert line.amount_cents == cents


def test_an_overdrawn_balance_is_billed_with_its_exact_amount_kept() -> None:
    [line] = lines(balance_pool(10 * UNIT, 10 * UNIT + 50_220_000))
    assert (line.line_type, line.amount_cents, line.exact_nano) == ("balance_overage", 5, 50_220_000)
    assert (line.included_nano, line.used_nano, line.overage_nano) == (10 * UNIT, 10 * UNIT + 50_220_000, 50_220_000)


def test_what_was_added_to_a_balance_is_not_billed() -> None:
    assert lines(balance_pool(10 * UNIT, 15 * UNIT, adjusted=5 * UNIT)) == []


@pytest.mark.parametrize(
    ("charged", "adjusted", "billed"),
    [(0, -150, 0), (20, -150, 20), (80, -50, 30), (150, 0, 50), (100, 0, 0)],
)
def test_balance_taken_away_by_hand_bills_no_more_than_was_used(charged: int, adjusted: int, billed: int) -> None:
    assert rules.balance_overage_nano(balance_pool(100, charged, adjusted)) == billed


def test_a_plan_that_blocks_when_its_balance_is_empty_has_no_overage() -> None:
    assert lines(balance_pool(100 * UNIT, 90 * UNIT, adjusted=-50 * UNIT), may_overdraw=False) == []


def test_credits_have_no_overage() -> None:
    assert lines(PoolTotals("17.c.1763596800", 0, UNIT, 0, -UNIT), PoolTotals("credits", 0, UNIT, 0, -UNIT)) == []


def test_features_come_by_code_and_the_balance_last() -> None:
    zebra = dataclasses.replace(CALLS, feature_id=7, code="zebra")
    found = lines(
        balance_pool(0, UNIT), feature_pool(2000 * UNIT, feature_id=7), feature_pool(2000 * UNIT), features=(zebra, CALLS)
    )
    assert [line.feature_id for line in found] == [42, 7, None]


def test_a_base_price_is_paid_in_advance_and_makes_the_invoice_recurring() -> None:
    base = rules.base_line(BasePrice("Pro", "quarterly", 29_700))
    assert (base.line_type, base.charge_type, base.amount_cents, base.exact_nano) == ("plan_base", "advance", 29_700, 297 * UNIT)
    assert rules.invoice_type([base, *lines(feature_pool(3000 * UNIT))]) == "recurring"
    assert rules.invoice_type(lines(feature_pool(3000 * UNIT))) == "overage"


@given(st.lists(st.tuples(st.integers(1, 10**18), st.integers(0, 10**12)), max_size=5))
def test_the_total_is_the_sum_of_the_lines_and_each_is_within_half_a_cent(overages: list[tuple[int, int]]) -> None:
    features = tuple(
        dataclasses.replace(CALLS, feature_id=place, code=f"f{place}", unit_price_nano=price)
        for place, (_, price) in enumerate(overages)
    )
    found = lines(
        *(feature_pool(1000 * UNIT + units, feature_id=place) for place, (units, _) in enumerate(overages)), features=features
    )
    assert rules.total_cents(found) == sum(line.amount_cents for line in found)
    for line, (units, price) in zip(found, overages, strict=True):
        assert abs(line.amount_cents * UNIT * money.NANO_PER_CENT - units * price) * 2 <= UNIT * money.NANO_PER_CENT
        assert abs(line.exact_nano * UNIT - units * price) * 2 <= UNIT
