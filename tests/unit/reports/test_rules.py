"""Words, time zones, exact numbers, cursors and run rates."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.core import errors
from tallybook.core.tenant import Tenant
from tallybook.reports import rules
from tallybook.reports.model import Column, Grain, Question, Unit

TENANT = Tenant(1, "org_1", livemode=False)
JANUARY, MARCH = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)


def asked(zone: str, *words: str, starts_at: datetime = JANUARY, ends_at: datetime = MARCH) -> Question:
    return Question(TENANT, "usage", starts_at, ends_at, zone, words)


@given(st.integers(-(10**30), 10**30), st.integers(0, 12))
def test_exact_text_has_every_digit(value: int, digits: int) -> None:
    assert Decimal(rules.exact(value, digits)) == Decimal(f"{value}e-{digits}")


@pytest.mark.parametrize(("nano", "text"), [(0, "0"), (50_220_000, "0.05022"), (-1, "-0.000000001"), (10**10, "10")])
def test_exact_text_has_no_more_digits_than_it_needs(nano: int, text: str) -> None:
    assert rules.exact(nano, 9) == text


@pytest.mark.parametrize(
    ("question", "fits"),
    [
        (asked("UTC", "hour"), True),
        (asked("Europe/Berlin", "day"), True),
        (asked("Asia/Kolkata", "day"), False),
        (asked("Asia/Kathmandu", "hour"), False),
        (asked("Asia/Kolkata", "model"), True),
        (asked("Australia/Lord_Howe", "day"), True),  # +11:00 in its summer, all of the time asked for
        (asked("Australia/Lord_Howe", "day", ends_at=datetime(2026, 4, 6, tzinfo=UTC)), False),  # +10:30 from 5 April on
        (asked("UTC", starts_at=JANUARY + timedelta(microseconds=1)), False),
        (asked("UTC", ends_at=MARCH + timedelta(minutes=30)), False),
    ],
)
def test_hourly_totals_answer_when_no_stretch_of_time_cuts_an_hour(question: Question, *, fits: bool) -> None:
    assert rules.fits_hours(question) is fits


@pytest.mark.parametrize(
    ("zone", "month", "hours"),
    [("Europe/Berlin", 3, 743), ("Europe/Berlin", 10, 745), ("America/New_York", 11, 721), ("UTC", 2, 672), ("UTC", 12, 744)],
)
def test_a_month_is_as_long_as_the_clocks_of_its_zone_say(zone: str, month: int, hours: int) -> None:
    starts_at, ends_at = rules.month_bounds(2026, month, rules.zone(zone))
    assert (ends_at - starts_at) == timedelta(hours=hours)


def test_the_hour_that_comes_twice_has_two_names() -> None:
    berlin = rules.zone("Europe/Berlin")
    hours = [datetime(2026, 10, 25, hour, tzinfo=UTC) for hour in (0, 1)]
    assert [rules.bucket_name(hour, Grain.HOUR, berlin) for hour in hours] == ["2026-10-25T02:00+02:00", "2026-10-25T02:00+01:00"]


@given(
    st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=50),
    st.datetimes(timezones=st.just(UTC)),
)
def test_a_cursor_gives_back_the_keys_it_was_made_of(text: str, moment: datetime) -> None:
    keys = (Column("a", Unit.TEXT), Column("day", Unit.BUCKET, Grain.DAY), Column("price", Unit.PICO_PER_TOKEN))
    cursor = rules.encode_cursor(keys, {"a": text, "day": moment, "price": 3_000_000})
    assert rules.decode_cursor(keys, cursor) == (text, moment, 3_000_000)


@pytest.mark.parametrize("cursor", ["", "!", "W10", "WzFd", "W251bGxd", "WyJhIiwiYiJd", "eyJhIjoxfQ", "WyJcdTAwMDAiXQ"])
def test_what_is_no_cursor_of_this_report_is_refused(cursor: str) -> None:
    with pytest.raises(errors.ValidationError):
        rules.decode_cursor((Column("a", Unit.TEXT),), cursor)


@pytest.mark.parametrize(
    ("report", "words"),
    [
        ("usage", "colour"),
        ("usage", "day,day"),
        ("usage", "property:"),
        ("revenue", "property:x"),
        ("usage", "unitPrice"),
        ("revenue", "model"),
    ],
)
def test_a_report_refuses_words_it_does_not_know(report: str, words: str) -> None:
    with pytest.raises(errors.ValidationError):
        rules.group_words(report, words)


@pytest.mark.parametrize("text", ["2026-13", "2026", "26-10", "2026-10-01", "0000-01"])
def test_what_is_no_month_is_refused(text: str) -> None:
    with pytest.raises(errors.ValidationError):
        rules.first_of_month(text)


@pytest.mark.parametrize(
    ("used", "elapsed_h", "projected"),
    [(10, 10, 30), (5, 20, 8), (7, 30, 7), (7, 45, 7), (7, 0, 7), (0, 10, 0), (10**18, 15, 2 * 10**18)],
)
def test_a_run_rate_is_carried_on_to_the_end(used: int, elapsed_h: int, projected: int) -> None:
    assert rules.projected(used, timedelta(hours=elapsed_h), timedelta(hours=30)) == projected


@pytest.mark.parametrize(
    ("part", "whole", "bps"), [(20, 120, 1667), (-50, 100, -5000), (-50, -100, 5000), (1, 0, None), (0, 7, 0)]
)
def test_a_share_is_in_basis_points(part: int, whole: int, bps: int | None) -> None:
    assert rules.percent_of(part, whole) == bps
