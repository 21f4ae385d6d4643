"""Moments and how far they may be from now."""

import pytest

from tallybook.core.errors import ValidationError
from tallybook.receive import times

NOW_MS = 1_768_471_200_000
DAY_MS = 86_400_000


@pytest.mark.parametrize("offset_ms", [-35 * DAY_MS, -35 * DAY_MS + 1, -1, 0, 1, 5 * 60_000])
def test_a_moment_within_the_bounds_is_taken(offset_ms: int) -> None:
    times.check_time(NOW_MS + offset_ms, NOW_MS)


def test_an_absent_moment_is_taken() -> None:
    times.check_time(None, NOW_MS)


@pytest.mark.parametrize(
    ("offset_ms", "shown"),
    [
        (-35 * DAY_MS - 1, "2025-12-11T09:59:59.999Z"),
        (5 * 60_000 + 1, "2026-01-15T10:05:00.001Z"),
        (-NOW_MS - 1, "-1 ms after 1970"),
        (-NOW_MS - 62_135_596_800_000, "-62135596800000 ms after 1970"),
        (253_402_300_800_000 - NOW_MS, "253402300800000 ms after 1970"),
        (253_402_300_799_999 - NOW_MS, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_a_moment_outside_is_refused_with_both_bounds(offset_ms: int, shown: str) -> None:
    with pytest.raises(ValidationError) as caught:
        times.check_time(NOW_MS + offset_ms, NOW_MS, "events[3].timestamp")
    assert caught.value.param == "events[3].timestamp"
    bounds = "must be from 2025-12-11T10:00:00.000Z (35 days before now) to 2026-01-15T10:05:00.000Z (5 minutes after now)"
    assert caught.value.message == f"events[3].timestamp: got {shown}; {bounds}"


@pytest.mark.parametrize(
    ("text", "moment_ms"),
    [
        ("2026-01-15T10:00:00Z", NOW_MS),
        ("2026-01-15T15:30:00+05:30", NOW_MS),
        ("2026-01-15T10:00:00.0019Z", NOW_MS + 1),
        ("1970-01-01T00:00:00.000Z", 0),
        ("1969-12-31T23:59:59.999Z", -1),
        ("1969-12-31T23:59:59.9995Z", -1),
        ("0001-01-01T00:00:00+23:59", -62_135_596_800_000 - 86_340_000),
        ("2026-01-15T10:00:00", None),
        ("2026-01-15T10:00Z", None),
        ("15 January 2026", None),
        ("\ud800", None),
    ],
)
def test_a_text_is_read_to_the_millisecond(text: str, moment_ms: int | None) -> None:
    assert times.from_text(text) == moment_ms


def test_an_installation_may_keep_a_shorter_past() -> None:
    day_ms = 24 * 3600 * 1000
    times.check_time(NOW_MS - day_ms, NOW_MS, past_ms=day_ms)
    with pytest.raises(ValidationError, match="1 days before now"):
        times.check_time(NOW_MS - day_ms - 1, NOW_MS, past_ms=day_ms)
