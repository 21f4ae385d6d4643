"""Same meaning, same fingerprint; another meaning, another one."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.receive import events

PLAIN = '"featureCode":"api_calls","customerId":"user_1"'
AI = PLAIN + ',"model":"gpt-4o","inputTokens":100,"outputTokens":20'

SAME = [
    (PLAIN, '"customerId" : "user_1" ,\n"featureCode":"api_calls"'),
    (PLAIN, '"feature":"api_calls","customerId":"user_1"'),
    (PLAIN, PLAIN + ',"value":1'),
    (PLAIN, PLAIN + ',"value":1.0'),
    (PLAIN, PLAIN + ',"value":null,"properties":{}'),
    (PLAIN, PLAIN + ',"eventId":"e1"'),
    (PLAIN + ',"eventId":"e1"', PLAIN + ',"idempotencyKey":"e2"'),
    (PLAIN, PLAIN.replace("user_1", "cus_0123")),
    (PLAIN, PLAIN.replace("api", "\\u0061pi")),
    (PLAIN + ',"value":0.5', PLAIN + ',"value":5e-1'),
    (PLAIN + ',"timestamp":"2026-01-15T10:00:00Z"', PLAIN + ',"timestamp":"2026-01-15T15:30:00.000+05:30"'),
    (
        PLAIN + ',"properties":{"a":"1","b":"2"}',
        PLAIN + ',"properties":[{"property":"b","value":"2"},{"value":"1","property":"a"}]',
    ),
    (AI, AI + ',"cacheReadTokens":0,"inputTokensIncludeCache":true'),
]
DIFFERENT = [
    PLAIN,
    PLAIN + ',"value":2',
    PLAIN + ',"value":1.000000001',
    PLAIN.replace("api_calls", "api_call"),
    PLAIN + ',"timestamp":"2026-01-15T10:00:00Z"',
    PLAIN + ',"timestamp":"2026-01-15T10:00:00.001Z"',
    PLAIN + ',"properties":{"a":"1"}',
    PLAIN + ',"properties":{"a":"2"}',
    PLAIN + ',"properties":{"a1":""}',
    PLAIN + ',"properties":{"a":"1","b":"2"}',
    AI,
    AI.replace("gpt-4o", "gpt-4"),
    AI.replace("100", "101"),
    AI.replace("20", "21"),
    AI + ',"cacheReadTokens":1',
    AI + ',"cacheWriteTokens":1',
    AI + ',"cacheWriteTokens":1,"cacheWrite1hTokens":1',
    AI + ',"serviceTier":"batch"',
    AI + ',"serviceTier":"flex"',
    AI + ',"webSearchRequests":1',
    AI + ',"inputTokensIncludeCache":false',
]


def fingerprint(fields: str) -> bytes:
    """The fingerprint of an event."""
    return events.parse_one(f"{{{fields}}}".encode()).fingerprint


@pytest.mark.parametrize(("one", "other"), SAME)
def test_spelling_does_not_change_a_fingerprint(one: str, other: str) -> None:
    assert fingerprint(one) == fingerprint(other)


def test_every_field_that_means_something_changes_a_fingerprint() -> None:
    assert len({fingerprint(fields) for fields in DIFFERENT}) == len(DIFFERENT)


def test_fingerprints_stay_what_they_were() -> None:
    """Entries of the last days hold them: another canonical form would turn every retry across a release into a conflict."""
    assert fingerprint(PLAIN).hex() == "a03ce4203e23811e"
    assert fingerprint(AI + ',"timestamp":"2026-01-15T10:00:00Z","properties":{"b":"2","a":"1"}').hex() == "eda6f7a426751264"


@given(st.permutations(list(json.loads(f"{{{AI}}}").items())), st.sampled_from([None, 1, "\t"]))
def test_key_order_and_white_space_do_not_matter(items: list[tuple[str, object]], indent: int | str | None) -> None:
    assert events.parse_one(json.dumps(dict(items), indent=indent).encode()).fingerprint == fingerprint(AI)
