"""The clock of a sandbox, which can be turned forward."""

from datetime import datetime

from tallybook.client.decoding import reader
from tallybook.client.models import TestClock, TestClockRun
from tallybook.client.requests import Mode, Request, Resource, operation, present


def get() -> Request[TestClock]:
    """What the clock shows, and its last turn."""
    return Request("GET", "/test-clock", reader(TestClock))


def advance(*, advance_days: int | None = None, frozen_time: datetime | str | None = None) -> Request[TestClockRun]:
    """Turn the clock by days, or to a moment. Renewals run in the background; `get` says when they are done."""
    return Request("POST", "/test-clock", reader(TestClockRun), present(advance_days=advance_days, frozen_time=frozen_time))


class Clock(Resource[Mode]):
    """`tallybook.test_clock`."""

    get = operation(get)
    advance = operation(advance)
