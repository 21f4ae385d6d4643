"""When usage is turned away: at which fill of the till, and how far behind the book. Each test says what it fails for."""

import pytest

from tallybook.core import errors
from tallybook.flows.pressure import Pressure, Sample


def sample(
    at_s: float = 0.0, used: int = 0, most: int = 1000, written: tuple[int, ...] = (0, 0), read: tuple[int, ...] = (0, 0)
) -> Sample:
    return Sample(at_s, used, most, written, read)


def answer(pressure: Pressure) -> tuple[int, str, int] | None:
    """Status, code and Retry-After; None: come in."""
    if pressure.refuse is None:
        return None
    error = pressure.refuse()
    assert isinstance(error, errors.RateLimited | errors.Unavailable)
    return error.status, error.code, error.retry_after_s


@pytest.mark.parametrize(
    ("used", "expected"),
    [
        (749, None),
        (750, (429, "rate_limited", 5)),
        (899, (429, "rate_limited", 5)),
        (900, (503, "till_full", 5)),
        (1100, (503, "till_full", 5)),
    ],
)
def test_three_quarters_of_the_memory_slow_down_and_nine_tenths_stop(used: int, expected: object) -> None:
    """Fails when either bound moves, or they are mixed up."""
    pressure = Pressure()
    pressure.observe(sample(used=used), 0)
    assert answer(pressure) == expected


def test_a_redis_without_a_limit_is_never_full() -> None:
    """Fails when a limit of 0 is divided by, or counts as reached."""
    pressure = Pressure()
    pressure.observe(sample(used=10**12, most=0), 0)
    assert pressure.refuse is None


def test_each_refusal_is_an_error_of_its_own() -> None:
    """Fails when one exception is raised again and again, and grows a traceback with every request."""
    pressure = Pressure()
    pressure.observe(sample(used=990), 0)
    assert pressure.refuse is not None
    assert pressure.refuse() is not pressure.refuse()


def test_the_book_is_as_far_behind_as_the_oldest_entry_that_it_has_not_read() -> None:
    """Fails when the lag is that of the newest entry, of one partition, or counts idle time."""
    pressure = Pressure()
    pressure.observe(sample(0, written=(5, 0)), 60)
    assert pressure.lag_s == 0
    pressure.observe(sample(10, written=(9, 2), read=(4, 0)), 60)
    assert pressure.lag_s == 10
    pressure.observe(sample(20, written=(9, 2), read=(9, 1)), 60)
    assert pressure.lag_s == 10
    pressure.observe(sample(500, written=(9, 2), read=(9, 2)), 60)
    assert (pressure.lag_s, pressure.refuse) == (0, None)
    pressure.observe(sample(900, written=(9, 3), read=(9, 2)), 60)
    assert pressure.lag_s == 0


def test_a_book_too_far_behind_refuses_until_it_has_caught_up() -> None:
    """Fails when the bound is not looked at, or once refused stays refused."""
    pressure = Pressure()
    pressure.observe(sample(0, written=(5, 0)), 60)
    pressure.observe(sample(61, written=(5, 0)), 60)
    assert answer(pressure) == (503, "book_behind", 5)
    pressure.observe(sample(62, written=(5, 0)), 0)
    assert pressure.refuse is None
    pressure.observe(sample(63, written=(5, 0), read=(5, 0)), 60)
    assert pressure.refuse is None


def test_years_of_samples_are_not_kept() -> None:
    """Fails when what waits is kept without bound."""
    pressure = Pressure()
    for second in range(20_000):
        pressure.observe(sample(float(second), written=(second + 1, 0)), 0)
    assert len(pressure.waiting) <= 10_000
    assert pressure.lag_s == 19_999
