"""What is accepted: every spelling that means the same, read by the typed decoder wherever clients really write it."""

import json

import pytest

from tallybook.core import money
from tallybook.receive import events, explain, strict_json
from tallybook.receive.model import Event
from tallybook.receive.strict_json import Value

GOOD = '"featureCode":"api_calls","customerId":"user_1"'
CACHE = '"cacheReadTokens":7000,"cacheWriteTokens":1000'
AI = f'{GOOD},"model":"anthropic/claude-sonnet-4.6","inputTokens":10000,"outputTokens":2000,{CACHE}'

QUICK = [
    GOOD,
    GOOD + ',"value":3',
    GOOD + ',"value":0',
    GOOD + ',"value":0.5',
    GOOD + ',"value":1e-05',
    GOOD + ',"value":1000000000',
    '"feature":"api_calls","customerId":"user_1","idempotencyKey":"req_1"',
    GOOD + ',"feature":"api_calls","eventId":"req_1","idempotencyKey":"req_1"',
    GOOD + ',"timestamp":"2026-01-15T10:00:00.123Z"',
    GOOD + ',"timestamp":"2026-01-15T10:00:00.123456+05:30"',
    GOOD + ',"properties":{"region":"eu","path":"/v1"}',
    GOOD + ',"properties":[{"property":"region","value":"eu"}]',
    GOOD + ',"properties":{}',
    GOOD + ',"value":null,"eventId":null,"timestamp":null,"properties":null,"model":null',
    AI,
    AI + ',"serviceTier":"batch","webSearchRequests":2,"cacheWrite1hTokens":10',
    AI + ',"value":null,"serviceTier":null',
    AI.replace("/", "\\/"),
    AI.replace("10000", "7").replace('"cache', '"inputTokensIncludeCache":false,"cache', 1),
    '"featureCode":"api_calls","customerId":"Zoë \\u00e9\\ud83d\\ude00"',
    GOOD + ',"properties":{"quote":"say \\"no\\"\\n"}',
]


def refuse_to_explain(given: Value, path: str = "") -> Event:
    """Stands in for the slow reader where it must not be needed."""
    raise AssertionError((given, path))


@pytest.mark.parametrize("fields", QUICK)
def test_what_clients_write_never_needs_the_slow_reader(fields: str, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = explain.event(strict_json.parse(f"{{{fields}}}".encode()))
    monkeypatch.setattr(explain, "event", refuse_to_explain)
    assert events.parse_one(f"{{{fields}}}".encode()) == slow
    assert events.parse_batch(f'{{"events":[{{{fields}}},{{{fields}}}]}}'.encode()) == [slow, slow]


def read(fields: str) -> Event:
    """A single event."""
    return events.parse_one(f"{{{fields}}}".encode())


@pytest.mark.parametrize(
    ("text", "nano"),
    [
        ("0.1", 100_000_000),
        ("0.3", 300_000_000),
        ("1", 1_000_000_000),
        ("1.0", 1_000_000_000),
        ("0.000000001", 1),
        ("1e-9", 1),
        ("1E9", money.QUANTITY_MAX),
        ("1e+2", 100_000_000_000),
        ("0.5000000000000", 500_000_000),
        ("123456789.123456789", 123_456_789_123_456_789),
        ("999999999.999999999", 999_999_999_999_999_999),
        ("1000000000.000000000", money.QUANTITY_MAX),
        ("-0", 0),
        ("-0.0", 0),
        ("0e999", 0),
        ("10000000000000000000e-19", 1_000_000_000),
    ],
)
def test_a_value_is_exact_to_the_ninth_decimal(text: str, nano: int) -> None:
    assert read(f'{GOOD},"value":{text}').quantity_nano == nano
    assert events.parse_check(f'{{{GOOD},"quantity":{text}}}'.encode()).quantity_nano == nano
    assert events.parse_set(f'{{{GOOD},"value":{text}}}'.encode()).quantity_nano == nano


def test_an_event_without_a_value_is_one_unit() -> None:
    assert read(GOOD).quantity_nano == money.NANO
    assert read(AI).quantity_nano == money.NANO


def test_the_fields_of_an_ai_event_arrive_where_they_belong() -> None:
    extras = '"cacheWrite1hTokens":600,"serviceTier":"priority","webSearchRequests":2'
    event = read(f'{AI},{extras},"eventId":"e","timestamp":"2026-01-15T10:00:00.5Z"')
    assert event == Event(
        feature_code="api_calls",
        customer_id="user_1",
        quantity_nano=money.NANO,
        model="anthropic/claude-sonnet-4.6",
        input_tokens=10000,
        output_tokens=2000,
        cache_read_tokens=7000,
        cache_write_tokens=1000,
        cache_write_1h_tokens=600,
        service_tier="priority",
        web_search_requests=2,
        input_tokens_include_cache=True,
        event_id="e",
        occurred_at_ms=1_768_471_200_500,
        properties=None,
        fingerprint=event.fingerprint,
    )


def test_properties_read_the_same_from_an_object_and_from_a_list() -> None:
    listed = read(GOOD + ',"properties":[{"property":"b","value":"2"},{"property":"a","value":"1"}]')
    named = read(GOOD + ',"properties":{"a":"1","b":"2"}')
    assert listed.properties == named.properties == {"a": "1", "b": "2"}
    assert read(GOOD + ',"properties":[]').properties is None


def test_disjoint_counters_may_exceed_the_input() -> None:
    event = read(GOOD + ',"model":"m","inputTokens":1,"outputTokens":1,"cacheReadTokens":5,"inputTokensIncludeCache":false')
    assert (event.input_tokens, event.cache_read_tokens, event.input_tokens_include_cache) == (1, 5, False)


def test_one_faulty_item_leaves_the_others_to_the_typed_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    explained: list[str] = []
    original = explain.event

    def note(given: Value, path: str = "") -> Event:
        explained.append(path)
        return original(given, path)

    monkeypatch.setattr(explain, "event", note)
    events.parse_batch(f'{{"events":[{{{GOOD}}},{{{GOOD},"value":-1}},{{{AI}}}]}}'.encode())
    assert explained == ["events[1]"]


def test_a_client_that_writes_python_floats_is_understood() -> None:
    for value in (0.1, 1e-05, 2.5, 1e9, 3.0, 1e-9):
        assert read(f'{GOOD},"value":{json.dumps(value)}').quantity_nano == round(value * 10**9)
