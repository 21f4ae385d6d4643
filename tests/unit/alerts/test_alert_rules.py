"""When a pool is low or depleted, when it is armed again, and what a threshold of one's own reads."""

import pytest

from tallybook.alerts import rules
from tallybook.alerts.model import AlertSettings, Reading, Signal, Standing, Watch
from tallybook.core import money, pools
from tallybook.core.errors import ValidationError
from tallybook.core.tenant import Tenant

LOW, DEPLETED = Signal.LOW, Signal.DEPLETED
BALANCE, CREDITS, FEATURE = pools.balance(7, 100), pools.credits(7, 100), pools.feature(7, 3, 100)


def standing(pool: str, opening: int, left: int, watch: Watch | None = None, *, adjusted: int = 0) -> Standing:
    charged = opening + adjusted - left
    return Standing(Tenant(1, "org_1", livemode=True), 5, pool, pools.parse(pool), opening, charged, adjusted, left, watch)


def told(pool: str, opening: int, *lefts: int, purchased: int = 0, may_be_exceeded: bool = True) -> list[Signal | None]:
    """What is told of a pool that is seen with one amount after the other."""
    signals: list[Signal | None] = []
    watch: Watch | None = None
    for left in lefts:
        watch, signal = rules.look(standing(pool, opening, left, watch), purchased=purchased, may_be_exceeded=may_be_exceeded)
        signals.append(signal)
    return signals


@pytest.mark.parametrize(
    ("lefts", "signals"),
    [
        ((1000, 101, 100, 99, 1), [None, None, LOW, None, None]),
        ((100, 0, -5, -900), [LOW, DEPLETED, None, None]),
        ((1000, -1, -2), [None, DEPLETED, None]),
        ((0, 50, 0), [DEPLETED, None, DEPLETED]),
        ((50, 500, 50, 0, 1, 0), [LOW, None, LOW, DEPLETED, None, DEPLETED]),
    ],
)
def test_a_balance_is_told_once_a_crossing_and_what_is_depleted_at_once_as_that_alone(
    lefts: tuple[int, ...], signals: list[Signal | None]
) -> None:
    assert told(BALANCE, 1000, *lefts) == signals


@pytest.mark.parametrize(
    ("lefts", "signals"),
    [
        ((100, 500, 100), [LOW, None, None]),
        ((0, 500, 0), [DEPLETED, None, DEPLETED]),
        ((0, 50), [DEPLETED, None]),
        ((101,), [None]),
    ],
)
def test_credits_are_low_once_a_period_and_depleted_once_a_crossing(lefts: tuple[int, ...], signals: list[Signal | None]) -> None:
    assert told(CREDITS, 1000, *lefts) == signals


def test_purchased_credits_count_beside_the_plans() -> None:
    assert told(CREDITS, 1000, 0, purchased=101) == [None]
    assert told(CREDITS, 1000, 0, purchased=100) == [LOW]


@pytest.mark.parametrize(
    ("lefts", "signals"),
    [((201, 200, 0, -1, -2), [None, LOW, None, DEPLETED, None]), ((-1,), [DEPLETED]), ((200, 500, 200), [LOW, None, None])],
)
def test_included_units_are_told_at_four_fifths_and_beyond_once_a_period(
    lefts: tuple[int, ...], signals: list[Signal | None]
) -> None:
    assert told(FEATURE, 1000, *lefts) == signals


def test_where_usage_stops_at_what_is_included_its_end_is_told() -> None:
    assert told(FEATURE, 1000, 1, 0, 0, may_be_exceeded=False) == [LOW, DEPLETED, None]


def test_a_pool_that_was_never_granted_anything_is_nothing_to_tell_of() -> None:
    for pool in (BALANCE, CREDITS, FEATURE):
        assert told(pool, 0, 0, -5) == [None, None]


def test_a_refill_is_what_a_tenth_is_of_from_then_on() -> None:
    watch, signal = rules.look(standing(BALANCE, 1000, 50))
    assert signal is LOW
    watch, signal = rules.look(standing(BALANCE, 1000, 550, watch, adjusted=500))
    assert (signal, watch.refilled_to, watch.told_low) == (None, 550, False)
    assert rules.look(standing(BALANCE, 1000, 56, watch, adjusted=500))[1] is None
    assert rules.look(standing(BALANCE, 1000, 55, watch, adjusted=500))[1] is LOW


def test_a_refill_that_was_used_up_in_the_same_pass_counts_as_what_it_was() -> None:
    watch, signal = rules.look(standing(BALANCE, 1000, 40, Watch(), adjusted=500))
    assert (signal, watch.refilled_to) == (LOW, 500)


def test_what_is_taken_away_is_no_refill() -> None:
    watch, signal = rules.look(standing(BALANCE, 1000, 90, Watch(), adjusted=-500))
    assert (signal, watch.refilled_to, watch.adjusted) == (LOW, None, -500)


def settings(metric: str, unit: str, threshold: int, feature_id: int | None = None) -> AlertSettings:
    return AlertSettings("name", metric, unit, threshold, None, feature_id)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wanted", "reading", "is_crossed"),
    [
        (settings("balance", "amount", 50), (51, 100), False),
        (settings("balance", "amount", 50), (50, 100), True),
        (settings("spend", "amount", 50), (49, 100), False),
        (settings("spend", "amount", 50), (50, 100), True),
        (settings("usage", "units", 50, 3), (50, 0), True),
        (settings("balance", "percent", 25 * money.NANO), (251, 1000), False),
        (settings("balance", "percent", 25 * money.NANO), (250, 1000), True),
        (settings("usage", "percent", 80 * money.NANO, 3), (799, 1000), False),
        (settings("usage", "percent", 80 * money.NANO, 3), (800, 1000), True),
        (settings("spend", "percent", 50 * money.NANO), (10, 0), False),
    ],
)
def test_a_threshold_is_reached_to_the_unit(wanted: AlertSettings, reading: tuple[int, int], is_crossed: bool) -> None:  # noqa: FBT001 - a case
    assert rules.is_crossed(wanted, Reading(7, "scope", 100, *reading)) is is_crossed


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        (settings("usage", "units", 5), "featureCode"),
        (settings("spend", "amount", 5, 3), "featureCode"),
        (settings("usage", "amount", 5, 3), "unit"),
        (settings("balance", "units", 5), "unit"),
        (settings("spend", "amount", 0), "threshold"),
        (settings("spend", "percent", 1001 * money.NANO), "threshold"),
        (settings("balance", "amount", -1), "threshold"),
    ],
)
def test_settings_that_make_no_sense_together_are_refused(wanted: AlertSettings, field: str) -> None:
    with pytest.raises(ValidationError) as refused:
        rules.check(wanted)
    assert refused.value.param == field


def test_values_are_shown_in_their_unit() -> None:
    assert rules.shown_value(settings("spend", "amount", 5), Reading(7, "scope", 100, 50_220_000, 0)) == 502.2
    assert rules.shown_value(settings("usage", "percent", 5, 3), Reading(7, "scope", 100, 1, 3)) == 33.333333333
    assert rules.shown_value(settings("usage", "units", 5, 3), Reading(7, "scope", 100, 2 * money.NANO, 3)) == 2
