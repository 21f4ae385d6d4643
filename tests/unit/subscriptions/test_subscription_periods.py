"""Calendar rules of subscriptions: anchors, clamped month ends, trials, cycles."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.subscriptions import rules
from tallybook.subscriptions.model import Period

INTERVALS = ("weekly", "monthly", "quarterly", "semiannual", "yearly", "one_time", None)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def usage(start: str, interval: str | None, moment: str, trial_end: str | None = None) -> Period:
    trial = at(trial_end) if trial_end else None
    return rules.usage_period_at(at(start), trial or at(start), trial, interval, at(moment))


@pytest.mark.parametrize(
    ("anchor", "months", "expected"),
    [
        ("2026-01-31", 1, "2026-02-28"),
        ("2026-01-31", 2, "2026-03-31"),
        ("2026-01-31", 3, "2026-04-30"),
        ("2028-01-31", 1, "2028-02-29"),
        ("2024-02-29", 12, "2025-02-28"),
        ("2024-02-29", 48, "2028-02-29"),
        ("2026-11-30", 3, "2027-02-28"),
        ("2026-12-15", 1, "2027-01-15"),
        ("2100-01-29", 1, "2100-02-28"),
        ("2000-01-30", 1, "2000-02-29"),
        ("2026-03-31", -1, "2026-02-28"),
        ("2026-01-31", -1, "2025-12-31"),
    ],
)
def test_months_are_clamped_to_the_day_of_the_original_anchor(anchor: str, months: int, expected: str) -> None:
    assert rules.add_months(at(anchor), months) == at(expected)


def test_usage_periods_from_31_january_end_on_the_last_day_of_short_months() -> None:
    assert usage("2026-01-31", "monthly", "2026-02-10") == Period(at("2026-01-31"), at("2026-02-28"))
    assert usage("2026-01-31", "monthly", "2026-02-28") == Period(at("2026-02-28"), at("2026-03-31"))
    assert usage("2026-01-31", "monthly", "2026-04-01") == Period(at("2026-03-31"), at("2026-04-30"))


def test_a_yearly_price_from_a_leap_day_renews_on_28_february_and_again_on_the_leap_day() -> None:
    start = at("2024-02-29")
    renewals = [
        rules.boundary(start, "yearly", index)
        for index in range(60)
        if rules.is_renewal(start, "yearly", rules.boundary(start, "yearly", index))
    ]
    assert renewals == [at("2024-02-29"), at("2025-02-28"), at("2026-02-28"), at("2027-02-28"), at("2028-02-29")]


def test_weekly_usage_periods_are_seven_days() -> None:
    assert usage("2026-02-26T10:00:00", "weekly", "2026-03-05T09:59:59") == Period(
        at("2026-02-26T10:00:00"), at("2026-03-05T10:00:00")
    )
    assert usage("2026-02-26T10:00:00", "weekly", "2026-03-05T10:00:00").starts_at == at("2026-03-05T10:00:00")


@pytest.mark.parametrize("interval", ["monthly", "quarterly", "semiannual", "yearly", "one_time", None])
def test_usage_resets_monthly_whatever_the_billing_interval(interval: str | None) -> None:
    assert usage("2026-01-15", interval, "2026-05-20") == Period(at("2026-05-15"), at("2026-06-15"))


def test_a_moment_before_the_start_has_no_period() -> None:
    with pytest.raises(ValueError, match="before the subscription's start"):
        usage("2026-01-15", "monthly", "2026-01-14T23:59:59")
    with pytest.raises(ValueError, match="before the subscription's start"):
        rules.cycle_at(at("2026-01-15"), at("2026-01-15"), None, "yearly", at("2026-01-14"))


def test_a_trial_shorter_than_a_month_is_one_usage_period_cut_at_its_end() -> None:
    assert usage("2026-01-31", "monthly", "2026-02-01", "2026-02-14") == Period(at("2026-01-31"), at("2026-02-14"))


def test_a_trial_longer_than_a_month_has_monthly_usage_periods_and_a_cut_last_one() -> None:
    assert usage("2026-01-10", "weekly", "2026-01-20", "2026-02-24") == Period(at("2026-01-10"), at("2026-02-10"))
    assert usage("2026-01-10", "weekly", "2026-02-10", "2026-02-24") == Period(at("2026-02-10"), at("2026-02-24"))


def test_paid_periods_are_counted_from_the_end_of_the_trial() -> None:
    assert usage("2026-01-17", "monthly", "2026-01-31", "2026-01-31") == Period(at("2026-01-31"), at("2026-02-28"))
    assert usage("2026-01-17", "monthly", "2026-03-01", "2026-01-31") == Period(at("2026-02-28"), at("2026-03-31"))


def test_the_next_period_of_the_last_trial_period_is_the_first_paid_one() -> None:
    trial_end = at("2026-01-31")
    ended = Period(at("2026-01-17"), trial_end)
    assert rules.next_period(at("2026-01-17"), trial_end, trial_end, "monthly", ended) == Period(trial_end, at("2026-02-28"))


@pytest.mark.parametrize(
    ("interval", "length"), [("weekly", 1), ("monthly", 1), ("quarterly", 3), ("semiannual", 6), ("yearly", 12)]
)
def test_a_base_price_falls_due_once_a_cycle(interval: str, length: int) -> None:
    anchor = at("2026-01-31")
    due = [index for index in range(25) if rules.is_renewal(anchor, interval, rules.boundary(anchor, interval, index))]
    assert due == list(range(0, 25, length))


def test_a_one_time_price_falls_due_at_the_anchor_only() -> None:
    anchor = at("2026-01-31")
    due = [index for index in range(25) if rules.is_renewal(anchor, "one_time", rules.boundary(anchor, "one_time", index))]
    assert due == [0]


def test_nothing_falls_due_on_a_free_plan_inside_a_trial_or_between_boundaries() -> None:
    anchor = at("2026-01-31")
    assert not rules.is_renewal(anchor, None, anchor)
    assert not rules.is_renewal(anchor, "monthly", at("2025-12-31"))
    assert not rules.is_renewal(anchor, "monthly", anchor + timedelta(seconds=1))


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        ("weekly", ("2026-08-12", "2026-08-19")),
        ("monthly", ("2026-07-31", "2026-08-31")),
        ("quarterly", ("2026-07-31", "2026-10-31")),
        ("semiannual", ("2026-07-31", "2027-01-31")),
        ("yearly", ("2026-01-31", "2027-01-31")),
        ("one_time", ("2026-07-31", "2026-08-31")),
        (None, ("2026-07-31", "2026-08-31")),
    ],
)
def test_a_billing_cycle_is_what_one_base_price_pays(interval: str | None, expected: tuple[str, str]) -> None:
    anchor = at("2026-01-31") if interval != "weekly" else at("2026-08-05")
    cycle = rules.cycle_at(anchor, anchor, None, interval, at("2026-08-15"))
    assert cycle == Period(at(expected[0]), at(expected[1]))


def test_the_cycle_of_a_trial_is_the_whole_trial() -> None:
    trial_end = at("2026-03-20")
    assert rules.cycle_at(at("2026-01-10"), trial_end, trial_end, "yearly", at("2026-02-15")) == Period(
        at("2026-01-10"), trial_end
    )
    assert rules.cycle_at(at("2026-01-10"), trial_end, trial_end, "yearly", trial_end) == Period(trial_end, at("2027-03-20"))


def test_periods_are_in_utc_and_know_no_summer_time() -> None:
    anchor = datetime(2026, 3, 1, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    period = rules.usage_period_at(anchor, anchor, None, "monthly", at("2026-03-30"))
    assert period == Period(at("2026-03-28T23:30:00"), at("2026-04-28T23:30:00"))
    assert period.starts_at.tzinfo is UTC


def test_a_period_is_named_by_the_unix_second_of_its_start() -> None:
    assert Period(at("2025-11-20"), at("2025-12-20")).key_s == 1763596800


@given(
    st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - hypothesis wants naive bounds
    st.timedeltas(timedelta(0), timedelta(days=3000)),
    st.sampled_from(INTERVALS),
    st.none() | st.integers(1, 400),
)
def test_usage_periods_cover_all_time_without_gap_or_overlap(
    started: datetime, after: timedelta, interval: str | None, trial_days: int | None
) -> None:
    trial_end = None if trial_days is None else started + timedelta(days=trial_days)
    anchor = trial_end or started
    period = rules.usage_period_at(started, anchor, trial_end, interval, started + after)
    assert started + after in period
    assert period.starts_at >= started
    following = rules.next_period(started, anchor, trial_end, interval, period)
    assert following.starts_at == period.ends_at < following.ends_at
    cycle = rules.cycle_at(started, anchor, trial_end, interval, started + after)
    assert cycle.starts_at <= period.starts_at
    assert period.ends_at <= cycle.ends_at
