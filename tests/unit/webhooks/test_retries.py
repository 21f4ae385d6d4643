"""When a delivery is tried again and when it is given up; what can be subscribed to."""

import json
from datetime import UTC, datetime, timedelta
from importlib import resources

import pytest

from tallybook.core.errors import ValidationError
from tallybook.webhooks import rules, topics
from tallybook.webhooks.model import Attempt, EndpointSettings

NOW = datetime(2026, 11, 20, 9, tzinfo=UTC)
FAILED = Attempt(500)


def test_pauses_grow_from_a_minute_to_an_hour_and_the_eighth_failure_is_the_last() -> None:
    pauses: list[int] = []
    for attempts in range(1, 8):
        verdict = rules.judge(attempts, FAILED, NOW, 0.0)
        assert verdict.state == "pending"
        assert verdict.next_attempt_at is not None
        pauses.append(int((verdict.next_attempt_at - NOW).total_seconds()))
    assert pauses == [60, 300, 900, 1800, 3600, 3600, 3600]
    assert rules.judge(8, FAILED, NOW, 0.0) == rules.Verdict("failed", None)


def test_jitter_adds_a_tenth_at_most_and_never_shortens() -> None:
    for jitter in (0.0, 0.5, 1.0):
        verdict = rules.judge(1, FAILED, NOW, jitter)
        assert verdict.next_attempt_at == NOW + timedelta(seconds=60 + 6 * jitter)


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_any_2xx_is_a_delivery(status: int) -> None:
    assert rules.judge(1, Attempt(status), NOW, 0.0).state == "delivered"
    assert rules.judge(8, Attempt(status), NOW, 0.0).state == "delivered"


@pytest.mark.parametrize(
    "attempt", [Attempt(100), Attempt(301), Attempt(307), Attempt(404), Attempt(410), Attempt(503), Attempt(None, "timeout")]
)
def test_anything_else_is_not(attempt: Attempt) -> None:
    assert rules.judge(1, attempt, NOW, 0.0).state == "pending"


def test_every_event_of_the_wire_can_be_asked_for() -> None:
    contract = json.loads(resources.files("commet").joinpath("docs/webhooks.openapi.json").read_text(encoding="utf-8"))
    assert contract["webhooks"].keys() | set(topics.OWN) == topics.KNOWN


def test_an_unknown_event_is_named() -> None:
    with pytest.raises(ValidationError, match=r"'invoice\.exploded' is no event"):
        rules.check(EndpointSettings("https://example.com/", ("invoice.created", "invoice.exploded"), None, None))


def test_an_event_asked_for_twice_is_sent_once() -> None:
    checked = rules.check(EndpointSettings("https://example.com/", ("invoice.created", "invoice.created"), None, None))
    assert checked.events == ("invoice.created",)


@pytest.mark.parametrize("version", ["2026-13-01", "latest", "2026-08-27 ", ""])
def test_a_version_is_a_date(version: str) -> None:
    with pytest.raises(ValidationError, match="it is a date"):
        rules.check(EndpointSettings("https://example.com/", ("invoice.created",), None, version))
