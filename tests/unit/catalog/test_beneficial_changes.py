"""What a period that has begun takes of later changes of its plan."""

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.catalog import rules
from tallybook.catalog.model import ConsumptionModel, FeatureRevision, FeatureSettings

START = datetime(2026, 11, 1, tzinfo=UTC)
BASE = FeatureSettings(included_units=100, overage_enabled=True, unit_price_nano=20)
AI = FeatureSettings(pricing_mode="ai_model", margin_bps=2000)


def revision(after_days: float, settings: FeatureSettings, *, removed: bool = False) -> FeatureRevision:
    return FeatureRevision(1, START + timedelta(days=after_days), removed, settings)


def folded(base: FeatureSettings, later: FeatureSettings, model: ConsumptionModel = "metered") -> FeatureSettings:
    result = rules.fold_beneficial(base, [later], model)
    assert result is not None
    return result


@pytest.mark.parametrize(
    ("changes", "model"),
    [
        ({"included_units": 200}, "metered"),
        ({"unlimited": True}, "metered"),
        ({"unit_price_nano": 5}, "metered"),
        ({"unit_price_nano": 0}, "metered"),
        ({"unit_price_nano": 5}, "balance"),
    ],
)
def test_what_benefits_the_customer_holds_at_once(changes: dict[str, Any], model: ConsumptionModel) -> None:
    assert folded(BASE, dataclasses.replace(BASE, **changes), model) == dataclasses.replace(BASE, **changes)


@pytest.mark.parametrize(
    ("changes", "model"),
    [
        ({"included_units": 50}, "metered"),
        ({"enabled": False}, "metered"),
        ({"overage_enabled": False}, "metered"),
        ({"unit_price_nano": 50}, "metered"),
        ({"unit_price_nano": 50}, "balance"),
    ],
)
def test_what_harms_the_customer_waits_for_the_renewal(changes: dict[str, Any], model: ConsumptionModel) -> None:
    assert folded(BASE, dataclasses.replace(BASE, **changes), model) == BASE


def test_the_price_of_overage_that_is_off_says_nothing() -> None:
    without = dataclasses.replace(BASE, overage_enabled=False, unit_price_nano=0)
    assert folded(BASE, without).unit_price_nano == 20
    assert folded(without, BASE).unit_price_nano == 20
    assert folded(without, BASE).overage_enabled


def test_a_balance_plan_has_unit_prices_without_overage() -> None:
    dear = FeatureSettings(unit_price_nano=20)
    assert folded(dear, FeatureSettings(unit_price_nano=5), "balance").unit_price_nano == 5


def test_the_lower_margin_holds_and_none_is_the_lowest() -> None:
    assert folded(AI, dataclasses.replace(AI, margin_bps=1000), "balance").margin_bps == 1000
    assert folded(AI, dataclasses.replace(AI, margin_bps=3000), "balance").margin_bps == 2000
    assert folded(AI, dataclasses.replace(AI, margin_bps=None), "balance").margin_bps is None
    assert folded(dataclasses.replace(AI, margin_bps=None), AI, "balance").margin_bps is None


def test_another_pricing_mode_waits_for_the_renewal_and_makes_nothing_free() -> None:
    fixed = FeatureSettings(unit_price_nano=20, included_units=100)
    later_ai = dataclasses.replace(AI, included_units=200)
    assert folded(fixed, later_ai, "balance") == dataclasses.replace(fixed, included_units=200)
    assert folded(AI, fixed, "balance") == dataclasses.replace(AI, included_units=100)


def test_fewer_credits_per_unit_hold_at_once() -> None:
    assert folded(FeatureSettings(credits_per_unit=5), FeatureSettings(credits_per_unit=2), "credits").credits_per_unit == 2
    assert folded(FeatureSettings(credits_per_unit=2), FeatureSettings(credits_per_unit=5), "credits").credits_per_unit == 2
    assert folded(FeatureSettings(), FeatureSettings(), "metered").credits_per_unit is None


def test_a_feature_is_as_it_was_when_the_period_began() -> None:
    later = dataclasses.replace(BASE, included_units=50)
    history = [revision(-20, FeatureSettings(included_units=7)), revision(-10, BASE), revision(1, later)]
    assert rules.in_force(history, START, "metered") == BASE


def test_a_change_at_the_very_start_is_in_force_at_the_start() -> None:
    later = dataclasses.replace(BASE, included_units=50)
    assert rules.in_force([revision(-10, BASE), revision(0, later)], START, "metered") == later


def test_what_came_after_the_begin_is_later_although_it_has_the_same_time() -> None:
    first, second = (dataclasses.replace(revision(0, BASE), id=1), dataclasses.replace(revision(0, FeatureSettings()), id=2))
    assert rules.in_force([first, second], START, "metered", begun_with=1) == BASE
    assert rules.in_force([first, second], START, "metered", begun_with=2) == FeatureSettings()


def test_what_was_there_at_the_begin_is_in_force_although_its_time_is_within_the_first_second() -> None:
    history = [dataclasses.replace(revision(0.5, settings), id=place) for place, settings in enumerate([BASE, FeatureSettings()])]
    assert rules.in_force(history, START, "metered", begun_with=1) == FeatureSettings()


def test_a_removed_feature_stays_until_the_renewal() -> None:
    history = [revision(-10, BASE), revision(1, BASE, removed=True)]
    assert rules.in_force(history, START, "metered") == BASE
    assert rules.in_force(history, START + timedelta(days=30), "metered") is None


def test_a_feature_added_in_a_period_is_there_at_once_and_stays_when_it_is_removed() -> None:
    history = [revision(1, BASE), revision(2, BASE, removed=True)]
    assert rules.in_force(history, START, "metered") == BASE


def test_a_feature_removed_before_and_added_again_is_as_it_was_added() -> None:
    history = [revision(-9, BASE), revision(-5, BASE, removed=True), revision(3, FeatureSettings(included_units=1))]
    assert rules.in_force(history, START, "metered") == FeatureSettings(included_units=1)


def test_a_feature_that_was_never_on_the_plan_is_not() -> None:
    assert rules.in_force([], START, "metered") is None
    assert rules.in_force([revision(-1, BASE, removed=True)], START, "metered") is None


settings_of_a_metered_plan = st.builds(
    FeatureSettings,
    enabled=st.booleans(),
    included_units=st.integers(0, 1000),
    unlimited=st.booleans(),
    overage_enabled=st.booleans(),
    unit_price_nano=st.integers(0, 1000),
)


@given(settings_of_a_metered_plan, st.lists(settings_of_a_metered_plan, max_size=4))
def test_no_sequence_of_changes_makes_a_begun_period_worse(base: FeatureSettings, later: list[FeatureSettings]) -> None:
    kept = rules.fold_beneficial(base, later, "metered")
    assert kept is not None
    assert kept.enabled >= base.enabled
    assert kept.unlimited >= base.unlimited
    assert kept.overage_enabled >= base.overage_enabled
    assert kept.included_units == max(settings.included_units for settings in [base, *later])
    if base.overage_enabled:
        assert kept.unit_price_nano <= base.unit_price_nano


@given(settings_of_a_metered_plan, st.lists(settings_of_a_metered_plan, max_size=4))
def test_a_price_that_is_charged_was_once_the_price_of_overage(base: FeatureSettings, later: list[FeatureSettings]) -> None:
    kept = rules.fold_beneficial(base, later, "metered")
    assert kept is not None
    if kept.overage_enabled:
        assert kept.unit_price_nano == min(settings.unit_price_nano for settings in [base, *later] if settings.overage_enabled)
