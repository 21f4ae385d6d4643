"""The parts of the dashboard that need no server: markup, numbers, stretches of time, and how often a key may be tried."""

from datetime import UTC, datetime, timedelta
from importlib import resources
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.core import errors
from tallybook.entrypoints.http.dashboard import figures, files, numbers, view
from tallybook.entrypoints.http.dashboard.figures import Choice
from tallybook.entrypoints.http.dashboard.markup import Markup, element, together
from tallybook.entrypoints.http.dashboard.security import Tries
from tallybook.reports import rules
from tallybook.reports.model import Grain
from tests.support.pages import Page

AUTUMN, SPRING = datetime(2026, 10, 25, 12, tzinfo=UTC), datetime(2026, 3, 29, 12, tzinfo=UTC)


@given(st.text(), st.text())
def test_no_text_can_leave_its_element(text: str, value: str) -> None:
    """Mutants: text or an attribute is put into the page as it is."""
    made = element("p", element("b", text), title=value, id="x")
    assert made.count("<") == 4
    assert made.count('"') == 4
    assert Page(made).ids == ["x"]


def test_only_markup_is_taken_as_it_is() -> None:
    assert together("<b>", Markup("<b>"), ["&", None, 7]) == "&lt;b&gt;<b>&amp;7"
    assert element("input", required=True, hidden=False, value=None, class_="a", data_unit="$") == (
        '<input required class="a" data-unit="$">'
    )


@pytest.mark.parametrize(
    ("exact", "shown"),
    [
        ("0", "$0.00"),
        ("1234567.895", "$1,234,567.90"),
        ("1.005", "$1.00"),
        ("0.01", "$0.01"),
        ("0.00418512", "$0.00419"),
        ("0.000000001", "$0.000000001"),
        ("-3.5", "-$3.50"),
        ("-0.002", "-$0.002"),
    ],
)
def test_money_is_shown_to_the_cent_and_less_than_a_cent_to_three_digits(exact: str, shown: str) -> None:
    assert numbers.money(exact) == f'<data value="{exact}">{shown}</data>'


def test_other_numbers_are_shown_with_their_unit() -> None:
    assert numbers.amount("credits", "1200.5") == '<data value="1200.5">1,200.5 credits</data>'
    assert numbers.amount("balance", "15") == '<data value="15">$15.00</data>'
    assert numbers.plain("-1901") == '<data value="-1901">-1,901</data>'
    assert [numbers.short(value) for value in (999, 12_300_000, 4_000_000_000)] == ["999", "12.3 million", "4.0 billion"]


@pytest.mark.parametrize(
    "zone", ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia"]
)
@pytest.mark.parametrize("picked", list(figures.RANGES))
@pytest.mark.parametrize(
    "now", [AUTUMN, SPRING, datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC), datetime(2026, 2, 28, 23, 59, tzinfo=UTC)]
)
def test_the_stretches_of_a_span_cover_it_without_gap_and_now_is_in_it(zone: str, picked: str, now: datetime) -> None:
    """Mutants: the last hour is left out; days of 24 hours whatever the clocks do."""
    over, in_zone = figures.span(Choice(picked, zone), now), ZoneInfo(zone)
    starts = rules.buckets(over.starts_at, over.ends_at, over.grain, in_zone)
    assert over.starts_at <= now + timedelta(minutes=5) < over.ends_at or over.grain is Grain.DAY
    assert over.starts_at <= now < over.ends_at
    assert starts[0] <= over.starts_at
    assert starts[-1] < over.ends_at
    names = [rules.bucket_name(start, over.grain, in_zone) for start in starts]
    assert len(set(names)) == len(names)
    longest = timedelta(hours=1 if over.grain is Grain.HOUR else 25)
    assert all(timedelta() < later - earlier <= longest for earlier, later in pairwise(starts))
    assert all(rules.bucket_start(start, over.grain, in_zone) == start for start in starts)
    if over.grain is Grain.DAY:
        assert over.starts_at == starts[0]
        assert over.ends_at.astimezone(in_zone).time() == datetime.min.time()


@pytest.mark.parametrize(("day", "hours"), [(SPRING, 23), (AUTUMN, 25)])
def test_a_day_in_which_clocks_are_set_has_all_of_its_hours(day: datetime, hours: int) -> None:
    zone = ZoneInfo("Europe/Berlin")
    start = rules.local_midnight(day.date(), zone)
    end = rules.local_midnight(day.date() + timedelta(days=1), zone)
    assert len(rules.buckets(start, end, Grain.HOUR, zone)) == hours


def test_weeks_begin_on_mondays_and_months_on_the_first() -> None:
    zone = ZoneInfo("America/New_York")
    monday, first = (rules.bucket_start(AUTUMN, grain, zone) for grain in (Grain.WEEK, Grain.MONTH))
    assert (monday, first) == (datetime(2026, 10, 19, 4, tzinfo=UTC), datetime(2026, 10, 1, 4, tzinfo=UTC))
    sunday = rules.bucket_start(datetime(2026, 3, 1, 12, tzinfo=UTC), Grain.WEEK, zone)
    assert sunday == datetime(2026, 2, 23, 5, tzinfo=UTC)


def test_a_choice_is_one_of_those_there_are() -> None:
    assert figures.choice({}) == Choice()
    assert figures.choice({"zone": "", "range": "24h", "other": "x"}) == Choice("24h")
    for wrong in ({"range": "1y"}, {"by": "name"}, {"zone": "Nowhere"}):
        with pytest.raises(errors.ValidationError):
            figures.choice(wrong)


def test_every_zone_to_pick_is_one() -> None:
    zones = view.zones()
    assert zones[0] == "UTC"
    assert len(zones) > 300
    assert all(rules.zone(name).key == name for name in zones)


def test_an_address_has_ten_tries_and_one_more_in_six_seconds() -> None:
    """Mutants: no limit; a limit for good; one that all addresses share; one for each of a household's 2^64."""
    now_s = 100.0
    tries = Tries(lambda: now_s)
    for _ in range(10):
        tries.check("10.0.0.1")
        tries.count_wrong("10.0.0.1")
    with pytest.raises(errors.RateLimited) as refused:
        tries.check("10.0.0.1")
    assert refused.value.retry_after_s == 6
    tries.check("10.0.0.2")
    now_s += 6
    tries.check("10.0.0.1")
    tries.count_wrong("10.0.0.1")
    with pytest.raises(errors.RateLimited):
        tries.check("10.0.0.1")
    for number in range(10):
        tries.count_wrong(f"2001:db8:1:2::{number}")
    with pytest.raises(errors.RateLimited):
        tries.check("2001:db8:1:2:ffff::1")
    tries.check("2001:db8:1:3::1")
    tries.check("")


def test_the_chart_library_came_with_its_licence() -> None:
    folder = files.path("uPlot.iife.min.js")
    assert folder.startswith("/dashboard/assets/")
    licence = resources.files(files.FOLDER).joinpath("assets", "uPlot.LICENSE.txt")
    assert "MIT" in licence.read_text()
