"""How a new subscription is scheduled, and which wishes contradict each other."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tallybook.core.errors import ValidationError
from tallybook.subscriptions import schedule
from tallybook.subscriptions.schedule import Order, Schedule

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def order(**fields: Any) -> Order:  # noqa: ANN401 - any field of an order
    return Order("user_1", "pro", **fields)


def decide(asked: Order, interval: str | None = "monthly", trial_days: int = 0) -> Schedule:
    return schedule.decide(asked, is_free=interval is None, billing_interval=interval, trial_days=trial_days, now=NOW)


def refused(asked: Order, interval: str | None = "monthly") -> str | None:
    with pytest.raises(ValidationError) as raised:
        schedule.check(asked, is_free=interval is None, billing_interval=interval, now=NOW)
    return raised.value.param


def test_without_a_trial_a_subscription_is_active_and_anchored_at_once() -> None:
    assert decide(order()) == Schedule("active", NOW, None, NOW, None)


def test_a_trial_moves_the_anchor_to_its_end() -> None:
    assert decide(order(), trial_days=14) == Schedule("trialing", NOW, NOW + 14 * DAY, NOW + 14 * DAY, None)


def test_custom_trial_days_override_the_trial_of_the_price() -> None:
    assert decide(order(custom_trial_days=3), trial_days=14).trial_ends_at == NOW + 3 * DAY


def test_a_trial_can_be_skipped() -> None:
    assert decide(order(skip_trial=True), trial_days=14).status == "active"


def test_a_free_plan_has_no_trial() -> None:
    assert decide(order(), None, trial_days=14).status == "active"


def test_a_purchase_that_ends_with_its_period_skips_the_trial_and_knows_its_end() -> None:
    found = decide(order(cancel_at_period_end=True), "quarterly", trial_days=14)
    assert (found.status, found.cancel_at) == ("active", datetime(2026, 4, 30, 12, tzinfo=UTC))


def test_a_start_in_the_past_anchors_there_and_ends_a_trial_that_is_over() -> None:
    started = NOW - 40 * DAY
    assert decide(order(start_at=started), trial_days=14) == Schedule(
        "active", started, started + 14 * DAY, started + 14 * DAY, None
    )
    assert decide(order(start_at=NOW - DAY), trial_days=14).status == "trialing"


def test_a_start_a_little_ahead_means_now() -> None:
    ahead = order(start_at=NOW + timedelta(minutes=5))
    schedule.check(ahead, is_free=False, billing_interval="monthly", now=NOW)
    assert decide(ahead).started_at == NOW


def test_a_start_is_cut_to_the_whole_second() -> None:
    asked = order(start_at=NOW - DAY + timedelta(microseconds=999_999))
    assert decide(asked, trial_days=14) == decide(order(start_at=NOW - DAY), trial_days=14)


def test_nothing_starts_before_the_year_2000() -> None:
    assert refused(order(start_at=datetime(1999, 12, 31, 23, 59, 59, tzinfo=UTC))) == "startDate"
    schedule.check(order(start_at=schedule.EARLIEST), is_free=False, billing_interval="monthly", now=NOW)


def test_a_start_in_the_future_is_refused_by_name() -> None:
    assert refused(order(start_at=NOW + timedelta(minutes=6))) == "startDate"


@pytest.mark.parametrize(
    ("fields", "interval", "field"),
    [
        ({"custom_trial_days": 3, "skip_trial": True}, "monthly", "customTrialDays"),
        ({"custom_trial_days": 3, "cancel_at_period_end": True}, "monthly", "customTrialDays"),
        ({"custom_trial_days": 3}, None, "customTrialDays"),
        ({"cancel_at_period_end": True}, None, "cancelAtPeriodEnd"),
        ({"cancel_at_period_end": True}, "one_time", "cancelAtPeriodEnd"),
    ],
)
def test_wishes_that_contradict_each_other_are_refused_by_name(fields: dict[str, Any], interval: str | None, field: str) -> None:
    assert refused(order(**fields), interval) == field
