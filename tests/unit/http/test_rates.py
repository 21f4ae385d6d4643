"""Limits of an API key, counted in events. Each test says what it fails for."""

import pytest

from tallybook.core import errors
from tallybook.entrypoints.http.rates import Rates


class Clock:
    """Seconds that a test sets."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_events_are_counted_not_requests_and_the_answer_says_when_to_come_back() -> None:
    """Fails when a batch counts as one, or Retry-After does not say how long the bucket takes."""
    clock = Clock()
    rates = Rates(200, clock)
    rates.take("key", 100)
    rates.take("key", 100)
    with pytest.raises(errors.RateLimited, match="200 usage events a second") as refusal:
        rates.take("key", 1)
    assert refusal.value.retry_after_s == 1
    clock.now_s = 0.5
    rates.take("key", 100)
    with pytest.raises(errors.RateLimited):
        rates.take("key", 1)


def test_a_refused_request_costs_nothing() -> None:
    """Fails when what was refused is counted, so that a client that insists never gets in."""
    clock = Clock()
    rates = Rates(100, clock)
    rates.take("key", 60)
    for _ in range(10):
        with pytest.raises(errors.RateLimited):
            rates.take("key", 50)
    rates.take("key", 40)


def test_each_key_has_its_own_bucket_and_a_whole_batch_always_fits() -> None:
    """Fails when keys share a bucket, or a slow key could never send a batch."""
    clock = Clock()
    rates = Rates(5, clock)
    rates.take("one", 100)
    rates.take("other", 100)
    with pytest.raises(errors.RateLimited) as refusal:
        rates.take("one", 100)
    assert refusal.value.retry_after_s == 20
    clock.now_s = 20.0
    rates.take("one", 100)


def test_without_a_limit_nothing_is_counted() -> None:
    """Fails when 0 means none."""
    rates = Rates(0, Clock())
    for _ in range(1000):
        rates.take("key", 100)
