"""Each bound, by name: what the error says, and that the events beside it are read as if it were not there."""

import json

import msgspec
import pytest

from tallybook.core.errors import PayloadTooLarge, TallybookError, ValidationError
from tallybook.receive import events, explain, strict_json
from tallybook.receive.model import Event

GOOD = '"featureCode":"api_calls","customerId":"user_1"'
AI = GOOD + ',"model":"gpt-4o","inputTokens":10,"outputTokens":5'
NUMBER = "must be a number from 0 to 1000000000 with at most 9 digits after the point"
COUNT = "must be an integer from 0 to 1000000000"
ID = "must be a string of 1 to 128 bytes of UTF-8 without control characters"
CODE = "must be 1 to 128 of the characters a-z, 0-9 and _"
MOMENT = "must be an ISO 8601 moment with seconds and Z or an offset, such as 2026-01-15T10:00:00Z"
TOTAL_RULE = "it must be the total prompt count, or inputTokensIncludeCache must be false"
TWICE = "stands twice in the same object; which one is meant?"
PROPERTY = "must be a string of at most 256 bytes of UTF-8 without NUL"

MODEL = "must be a string of 1 to 256 bytes of UTF-8 without control characters"
AI_FIELDS = [
    ("inputTokens", "0"),
    ("outputTokens", "0"),
    ("cacheReadTokens", "0"),
    ("cacheWriteTokens", "0"),
    ("cacheWrite1hTokens", "0"),
    ("serviceTier", '"batch"'),
    ("webSearchRequests", "0"),
    ("inputTokensIncludeCache", "true"),
]

BROKEN = [
    ('"customerId":"user_1"', "featureCode", "is required"),
    ('"featureCode":null,"customerId":"user_1"', "featureCode", "is required"),
    ('"featureCode":"api_calls"', "customerId", "is required"),
    ('"featureCode":"Api-Calls","customerId":"user_1"', "featureCode", f'got "Api-Calls"; {CODE}'),
    ('"featureCode":"","customerId":"user_1"', "featureCode", f'got ""; {CODE}'),
    ('"featureCode":"a\\n","customerId":"user_1"', "featureCode", f'got "a\\n"; {CODE}'),
    ('"featureCode":"é","customerId":"user_1"', "featureCode", f'got "é"; {CODE}'),
    (f'"featureCode":"{"a" * 129}","customerId":"user_1"', "featureCode", f'got "{"a" * 48}…"; {CODE}'),
    (GOOD + ',"feature":"other"', "feature", "differs from featureCode, which it is the older spelling of; send one of them"),
    (
        GOOD + ',"eventId":"a","idempotencyKey":"b"',
        "idempotencyKey",
        "differs from eventId, which it is the older spelling of; send one of them",
    ),
    ('"featureCode":"a","customerId":7', "customerId", f"got 7; {ID}"),
    ('"featureCode":"a","customerId":""', "customerId", f'got ""; {ID}'),
    (f'"featureCode":"a","customerId":"{"x" * 129}"', "customerId", f'got "{"x" * 48}…"; {ID}'),
    (f'"featureCode":"a","customerId":"{"é" * 65}"', "customerId", f'got "{"é" * 48}…"; {ID}'),
    (GOOD + ',"eventId":"a\\u0000b"', "eventId", f'got "a\\u0000b"; {ID}'),
    (GOOD + ',"eventId":"a\\ud800"', "eventId", f'got "a\\ud800"; {ID}'),
    (GOOD + ',"eventId":"a\x7f"', "eventId", f'got "a\\u007f"; {ID}'),
    (GOOD + ',"eventId":"a\x85"', "eventId", f'got "a\\u0085"; {ID}'),
    (GOOD + ',"value":-1', "value", f"got -1; {NUMBER}"),
    (GOOD + ',"value":1000000000.000000001', "value", f"got 1000000000.000000001; {NUMBER}"),
    (GOOD + ',"value":0.1234567891', "value", f"got 0.1234567891; {NUMBER}"),
    (GOOD + ',"value":1e3000000', "value", f"got 1e3000000; {NUMBER}"),
    (GOOD + ',"value":1e-3000000', "value", f"got 1e-3000000; {NUMBER}"),
    (GOOD + ',"value":18446744073709551616', "value", f"got 18446744073709551616; {NUMBER}"),
    (GOOD + ',"value":' + "9" * 5000, "value", f"got {'9' * 48}…; {NUMBER}"),
    (GOOD + ',"value":' + "9" * 5000 + ".5", "value", f"got {'9' * 48}…; {NUMBER}"),
    (GOOD + ',"value":NaN', "value", f"got NaN; {NUMBER}"),
    (GOOD + ',"value":-Infinity', "value", f"got -Infinity; {NUMBER}"),
    (GOOD + ',"value":"1"', "value", f'got "1"; {NUMBER}'),
    (GOOD + ',"value":true', "value", f"got true; {NUMBER}"),
    (GOOD + ',"value":[1]', "value", f"got an array; {NUMBER}"),
    (GOOD + ',"value":1,"value":2', "value", TWICE),
    (GOOD + ',"value":1,"\\u0076alue":2', "value", TWICE),
    (GOOD + ',"properties":{"a":"1","a":"2"}', "properties.a", TWICE),
    (GOOD + ',"price":1', "price", "is not a field of this request"),
    (GOOD + ',"customer_id":"x"', "customer_id", "is not a field of this request"),
    (GOOD + ',"\\ud800":1', '"\\ud800"', "is not a field of this request"),
    (GOOD + f',"{"k" * 60}":1', f'"{"k" * 48}…"', "is not a field of this request"),
    (GOOD + ',"timestamp":"2026-01-15"', "timestamp", f'got "2026-01-15"; {MOMENT}'),
    (GOOD + ',"timestamp":"2026-01-15T10:00:00"', "timestamp", f'got "2026-01-15T10:00:00"; {MOMENT}'),
    (GOOD + ',"timestamp":"2026-02-30T10:00:00Z"', "timestamp", f'got "2026-02-30T10:00:00Z"; {MOMENT}'),
    (GOOD + ',"timestamp":1768471200', "timestamp", f"got 1768471200; {MOMENT}"),
    (GOOD + ',"properties":"a"', "properties", 'got "a"; must be an object of strings or an array of {property, value}'),
    (GOOD + ',"properties":{"a":1}', "properties.a", f"got 1; {PROPERTY}"),
    (GOOD + ',"properties":{"a":null}', "properties.a", "is required"),
    (GOOD + ',"properties":{"a":"\\u0000"}', "properties.a", f'got "\\u0000"; {PROPERTY}'),
    (GOOD + f',"properties":{{"a":"{"é" * 129}"}}', "properties.a", f'got "{"é" * 48}…"; {PROPERTY}'),
    (GOOD + ',"properties":{"":"x"}', 'properties.""', "the name must be 1 to 256 bytes of UTF-8 without control characters"),
    (GOOD + ',"properties":[{"property":"a"}]', "properties[0].value", "is required"),
    (GOOD + ',"properties":[{"value":"a"}]', "properties[0].property", "is required"),
    (GOOD + ',"properties":[7]', "properties[0]", "got 7; must be an object"),
    (GOOD + ',"properties":[{"property":"a","value":"b","c":"d"}]', "properties[0].c", "is not a field of this request"),
    (
        GOOD + ',"properties":[{"property":"a","value":"b"},{"property":"a","value":"c"}]',
        "properties[1].property",
        "is the name of an earlier property too",
    ),
    (
        GOOD + ',"properties":' + json.dumps({f"p{place}": "" for place in range(21)}),
        "properties",
        "got 21 properties; must be at most 20",
    ),
    (AI + ',"value":1', "value", "must not be sent together with model: a model is charged by tokens, not by value"),
    (GOOD + ',"model":"gpt-4o","outputTokens":5', "inputTokens", "is required when model is given"),
    (GOOD + ',"model":"gpt-4o","inputTokens":5', "outputTokens", "is required when model is given"),
    *((f'{GOOD},"{name}":{value}', name, "has a meaning only together with model") for name, value in AI_FIELDS),
    (AI.replace("gpt-4o", "gpt\\u0000"), "model", f'got "gpt\\u0000"; {MODEL}'),
    (AI.replace("gpt-4o", "é" * 129), "model", f'got "{"é" * 48}…"; {MODEL}'),
    (
        GOOD + ',"model":"","inputTokens":1,"outputTokens":1',
        "model",
        f'got ""; {MODEL}',
    ),
    (GOOD + ',"model":"m","inputTokens":-1,"outputTokens":1', "inputTokens", f"got -1; {COUNT}"),
    (GOOD + ',"model":"m","inputTokens":1,"outputTokens":1.0', "outputTokens", f"got 1.0; {COUNT}"),
    (GOOD + ',"model":"m","inputTokens":1,"outputTokens":1000000001', "outputTokens", f"got 1000000001; {COUNT}"),
    (GOOD + ',"model":"m","inputTokens":1,"outputTokens":true', "outputTokens", f"got true; {COUNT}"),
    (AI + ',"webSearchRequests":1000001', "webSearchRequests", "got 1000001; must be an integer from 0 to 1000000"),
    (AI + ',"serviceTier":"fast"', "serviceTier", 'got "fast"; must be one of batch, flex, priority'),
    (AI + ',"inputTokensIncludeCache":"no"', "inputTokensIncludeCache", 'got "no"; must be true or false'),
    (
        AI + ',"cacheWriteTokens":3,"cacheWrite1hTokens":4',
        "cacheWrite1hTokens",
        "is 4, more than cacheWriteTokens 3, which it is a part of",
    ),
    (
        AI + ',"cacheReadTokens":8,"cacheWriteTokens":3',
        "inputTokens",
        f"is 10, less than cacheReadTokens 8 + cacheWriteTokens 3; {TOTAL_RULE}",
    ),
]
NOT_JSON = [
    (b"", "the body is not JSON: Expecting value at character 0"),
    (b'{"a":1,}', "the body is not JSON: Expecting property name enclosed in double quotes at character 7"),
    (b'{"a":"\x00"}', "the body is not JSON: Invalid control character at character 6"),
    (b'{"a":"\xff"}', "the body is not UTF-8: byte 6 is 0xff"),
    (b'{"a":"\xed\xa0\x80"}', "the body is not UTF-8: byte 6 is 0xed"),
    (b"\xef\xbb\xbf{}", "the body starts with a byte order mark; send plain UTF-8"),
    (b"[" * 65 + b"]" * 65, "the body nests deeper than 64 levels"),
    ('{"a":1}'.encode("utf-16"), "the body is not UTF-8: byte 0 is 0xff"),
]
NOT_A_BATCH = [
    (b"[]", "", "the body: got an array; must be an object"),
    (b"{}", "events", "events: is required"),
    (b'{"events":{}}', "events", "events: got an object; must be an array of 1 to 100 events"),
    (b'{"events":[]}', "events", "events: got 0 events; must be 1 to 100"),
    (b'{"events":[' + b"1," * 100 + b"1]}", "events", "events: got 101 events; must be 1 to 100"),
    (b'{"events":[1],"dryRun":true}', "dryRun", "dryRun: is not a field of this request"),
    (b'{"events":[1],"events":[2]}', "events", f"events: {TWICE}"),
]


def refusal(body: bytes) -> tuple[str, str]:
    """Field and message of the first error of a single event."""
    with pytest.raises(ValidationError) as caught:
        events.parse_one(body)
    assert caught.value.code == "validation_error"
    return str(caught.value.param or ""), caught.value.message


def fields_of(error: ValidationError) -> list[str]:
    """The fields that an error names."""
    details = msgspec.convert(error.details, list[dict[str, str]])
    return [detail["field"] for detail in details]


@pytest.mark.parametrize(("fields", "field", "rule"), BROKEN)
def test_a_broken_bound_is_named_with_field_value_and_rule(fields: str, field: str, rule: str) -> None:
    assert refusal(f"{{{fields}}}".encode()) == (field, f"{field}: {rule}")


@pytest.mark.parametrize(("fields", "field", "rule"), BROKEN)
def test_a_broken_bound_costs_no_event_beside_it(fields: str, field: str, rule: str) -> None:
    body = f'{{"events":[{{{GOOD},"eventId":"before"}},{{{fields}}},{{{AI},"eventId":"after"}}]}}'.encode()
    before, broken, after = events.parse_batch(body)
    assert isinstance(before, Event)
    assert isinstance(after, Event)
    assert (before.event_id, after.event_id) == ("before", "after")
    assert isinstance(broken, TallybookError)
    assert (broken.param, broken.message) == (f"events[1].{field}", f"events[1].{field}: {rule}")


@pytest.mark.parametrize(("body", "message"), NOT_JSON)
def test_a_body_that_is_no_json_says_where(body: bytes, message: str) -> None:
    for parse in (events.parse_one, events.parse_batch, events.parse_check, events.parse_set):
        with pytest.raises(ValidationError) as caught:
            parse(body)
        assert (caught.value.code, caught.value.message) == ("invalid_json", message)


def test_a_byte_that_is_no_utf_8_is_counted_from_the_start_of_the_body() -> None:
    body = b'{"events":[{"featureCode":"a","customerId":"b"},{"featureCode":"a","x":"\xff"}]}'
    with pytest.raises(ValidationError, match=f"the body is not UTF-8: byte {body.index(255)} is 0xff"):
        events.parse_batch(body)


@pytest.mark.parametrize(("body", "field", "message"), NOT_A_BATCH)
def test_a_batch_that_is_no_list_of_events_is_refused_as_a_whole(body: bytes, field: str, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        events.parse_batch(body)
    assert (caught.value.param or "", caught.value.message) == (field, message)


@pytest.mark.parametrize("item", ["null", "7", '"event"', "[]", "true"])
def test_an_item_that_is_no_object_is_its_own_error(item: str) -> None:
    read = events.parse_batch(f'{{"events":[{item},{{{GOOD}}}]}}'.encode())
    assert isinstance(read[0], ValidationError)
    assert read[0].param == "events[0]"
    assert isinstance(read[1], Event)


def test_a_body_above_its_size_is_not_read() -> None:
    padding = " " * (16 * 1024)
    with pytest.raises(PayloadTooLarge, match="the body is 16385 bytes; at most 16384 are taken"):
        events.parse_one(f"{{{GOOD}}}".encode().ljust(16385))
    with pytest.raises(PayloadTooLarge):
        events.parse_check(f"{{{GOOD}}}{padding}".encode())
    with pytest.raises(PayloadTooLarge):
        events.parse_set(f'{{{GOOD},"value":1}}{padding}'.encode())
    with pytest.raises(PayloadTooLarge):
        events.parse_batch(f'{{"events":[{{{GOOD}}}]}}'.encode() + b" " * (256 * 1024))


def test_a_body_of_just_its_size_is_read() -> None:
    body = f"{{{GOOD}}}".encode()
    assert events.parse_one(body.ljust(16 * 1024)) == events.parse_one(body)
    batch = b'{"events":[%s]}' % body
    assert events.parse_batch(batch.ljust(256 * 1024)) == events.parse_batch(batch)


def test_the_largest_valid_event_is_read_by_both_readers() -> None:
    ids = {"featureCode": "a", "feature": "a", "customerId": "é" * 64, "eventId": "e" * 128, "idempotencyKey": "e" * 128}
    counts = {
        "inputTokens": 10**9,
        "outputTokens": 10**9,
        "cacheReadTokens": 10**8,
        "cacheWriteTokens": 10**8,
        "cacheWrite1hTokens": 10**8,
    }
    rest = {"model": "m" * 256, "serviceTier": "flex", "webSearchRequests": 10**6, "inputTokensIncludeCache": True, "value": None}
    properties = [{"property": f"{place:02}" + "," * 254, "value": ":" * 256} for place in range(20)]
    body = json.dumps({**ids, **counts, **rest, "timestamp": "2026-01-15T10:00:00Z", "properties": properties}).encode()
    event = events.parse_one(body)
    assert len(event.properties or {}) == 20
    assert events.parse_batch(b'{"events":[%s,{"featureCode":null}]}' % body)[0] == event
    assert explain.event(strict_json.parse(body)) == event


def test_an_event_of_many_values_is_refused_before_it_is_built() -> None:
    crowd = ",".join(f'"k{place}":[]' for place in range(200))
    assert refusal(f"{{{GOOD},{crowd}}}".encode()) == ("", "the body holds more values than any valid one")
    good, crowded = events.parse_batch(f'{{"events":[{{{GOOD}}},{{{GOOD},{crowd}}}]}}'.encode())
    assert isinstance(good, Event)
    assert isinstance(crowded, ValidationError)
    assert (crowded.param, crowded.message) == ("events[1]", "events[1]: holds more values than any valid one")
    with pytest.raises(ValidationError, match="the body holds more values than any valid one"):
        events.parse_batch(b'{"events":[' + b"{}," * 80_000 + b"NaN]}")


def test_a_hundred_events_are_read_in_their_order() -> None:
    body = json.dumps({"events": [{"featureCode": "a", "customerId": "b", "eventId": f"e{place}"} for place in range(100)]})
    read = events.parse_batch(body.encode())
    assert [item.event_id for item in read if isinstance(item, Event)] == [f"e{place}" for place in range(100)]


def test_all_broken_rules_of_an_event_are_told_at_once_up_to_twenty() -> None:
    with pytest.raises(ValidationError) as caught:
        events.parse_one(b'{"featureCode":"A","value":-1,"model":"m","x":1}')
    assert fields_of(caught.value) == ["x", "featureCode", "customerId", "value", "value", "inputTokens", "outputTokens"]
    with pytest.raises(ValidationError) as caught:
        events.parse_one(json.dumps({f"x{place}": 1 for place in range(99)}).encode())
    assert fields_of(caught.value) == [f"x{place}" for place in range(20)]


def test_a_check_takes_a_quantity_and_no_event_fields() -> None:
    assert events.parse_check(f'{{{GOOD},"quantity":2.5}}'.encode()).quantity_nano == 2_500_000_000
    for field in ("value", "eventId", "timestamp", "properties", "idempotencyKey"):
        with pytest.raises(ValidationError, match=f"{field}: is not a field of this request"):
            events.parse_check(f'{{{GOOD},"{field}":null}}'.encode())


def test_a_total_needs_a_value_and_bounds_its_reason() -> None:
    read = events.parse_set(f'{{{GOOD},"value":123456789.123456789,"reason":"recount"}}'.encode())
    assert (read.quantity_nano, read.reason) == (123_456_789_123_456_789, "recount")
    with pytest.raises(ValidationError, match="value: is required"):
        events.parse_set(f"{{{GOOD}}}".encode())
    with pytest.raises(ValidationError, match=r"reason: got .* must be a string of at most 500 bytes"):
        events.parse_set(f'{{{GOOD},"value":1,"reason":"{"x" * 501}"}}'.encode())
