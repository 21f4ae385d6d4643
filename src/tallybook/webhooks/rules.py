"""When a delivery is tried again, when it is given up, and when an endpoint is. Pure."""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from tallybook.core import errors
from tallybook.webhooks import topics
from tallybook.webhooks.model import Attempt, EndpointSettings, Verdict

RETRY_AFTER: Final = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 15, 30, 60, 60, 60))
"""After the first attempt, the second, … : eight attempts in all, over about four hours."""
JITTER_MAX: Final = 0.1
"""The part of a pause that may be added to it, so that what failed together is not tried again together."""
FAILURES_MAX: Final = 3
"""Events in a row that could not be delivered: then the endpoint is switched off."""
DISABLED: Final = "endpoint_disabled"
DISABLED_REASON: Final = f"{FAILURES_MAX} events in a row could not be delivered"
ENDPOINTS_MAX: Final = 100
DESCRIPTION_CHARACTERS_MAX: Final = 500
VERSION: Final = "2026-08-27"
"""What deliveries say they are shaped by, unless an endpoint says otherwise."""
_DATE: Final = re.compile(r"20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])")


def judge(attempts: int, attempt: Attempt, now: datetime, jitter: float) -> Verdict:
    """What follows from the attempt with this number (from 1); `jitter` is 0 to 1."""
    if attempt.is_delivered:
        return Verdict("delivered", None)
    if attempts > len(RETRY_AFTER):
        return Verdict("failed", None)
    return Verdict("pending", now + RETRY_AFTER[attempts - 1] * (1 + JITTER_MAX * jitter))


def check(settings: EndpointSettings) -> EndpointSettings:
    """The settings, each event once. Raises ValidationError for events, a version or a description that break a rule."""
    if not settings.events:
        raise errors.invalid("events", "events must name at least one event.")
    for event in settings.events:
        if event not in topics.KNOWN:
            raise errors.invalid("events", f"{event[:64]!r} is no event.")
    if settings.api_version is not None and not _DATE.fullmatch(settings.api_version):
        raise errors.invalid("apiVersion", f"apiVersion is {settings.api_version[:32]!r}; it is a date like {VERSION}.")
    return EndpointSettings(settings.url, _once(settings.events), settings.description, settings.api_version, settings.is_active)


def _once(events: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(events))
