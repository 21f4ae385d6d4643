"""Fuzzing: both readers of the package against the reference, and against bytes that mean nothing."""

from collections.abc import Callable
from dataclasses import replace

import orjson
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from tallybook.core.errors import TallybookError
from tallybook.receive import events, explain, strict_json
from tallybook.receive.model import Event, Usage
from tests.unit.receive import bodies, reference
from tests.unit.receive.reference import Expected

PARSERS = (events.parse_one, events.parse_batch, events.parse_check, events.parse_set)

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
OPENINGS = (b"[", b'{"a":', b'{"events":[', b'{"events":[{"value":', b'{"value":', b'{"properties":[', b'{"value":[[')


def as_expected(read: Usage) -> Expected:
    """What was read, in the reference's form."""
    counts = (read.input_tokens, read.output_tokens, read.cache_read_tokens, read.cache_write_tokens, read.cache_write_1h_tokens)
    expected = Expected(
        read.feature_code,
        read.customer_id,
        read.quantity_nano,
        read.model,
        counts,
        read.service_tier,
        read.web_search_requests,
        read.input_tokens_include_cache,
    )
    if not isinstance(read, Event):
        return expected
    properties = tuple(sorted((read.properties or {}).items()))
    return replace(expected, event_id=read.event_id, occurred_at_ms=read.occurred_at_ms, properties=properties)


def code_of(error: TallybookError) -> str:
    """The error's code, once it is certain that it can be sent: short, and text that JSON can hold."""
    orjson.dumps([error.code, error.message, error.param, error.details])
    assert len(error.message) < 500
    return error.code


def one(body: bytes) -> Expected | str:
    """What `parse_one` says."""
    try:
        return as_expected(events.parse_one(body))
    except TallybookError as error:
        return code_of(error)


def check(body: bytes) -> Expected | str:
    """What `parse_check` says."""
    try:
        return as_expected(events.parse_check(body))
    except TallybookError as error:
        return code_of(error)


def total(body: bytes) -> tuple[str, str, int, str | None] | str:
    """What `parse_set` says."""
    try:
        read = events.parse_set(body)
    except TallybookError as error:
        return code_of(error)
    return (read.feature_code, read.customer_id, read.quantity_nano, read.reason)


def batch(body: bytes) -> list[Expected | str] | str:
    """What `parse_batch` says."""
    try:
        read = events.parse_batch(body)
    except TallybookError as error:
        return code_of(error)
    return [as_expected(item) if isinstance(item, Event) else code_of(item) for item in read]


def referred(read: Callable[[reference.Json], object], body: bytes) -> object:
    """What the reference says."""
    try:
        return read(reference.read_json(body))
    except reference.Refused as refused:
        return refused.code


@settings(UNHURRIED, max_examples=400)
@given(bodies.bodies())
@example(b'{"featureCode":"a","customerId":"b","customerId":"c"}')
@example(b'{"featureCode":"a","customerId":"b","customerId":"\\u0022"}')
@example(b'{"featureCode":"a","customerId":"b","eventId":"x","eventId":"\\u0022\\u0022\\u0022\\u0022"}')
@example(b'{"featureCode":"a","customerId":"b","timestamp":"2026-01-01T00:00:00+0530","timestamp":"2026-01-01T00:00:00Z"}')
@example(b'{"featureCode":"a","customerId":"b","value":[{"a":1e9}]}')
@example(b'{"featureCode":"a","customerId":"b","value":"1.5"}')
@example(b'{"featureCode":"a","customerId":"b","timestamp":"\\ud800"}')
@example(b'{"featureCode":"a","customerId":"b","serviceTier":"\\ud800","model":"\\udc00"}')
@example(b'{"featureCode":"a","customerId":"b","value":true}')
def test_an_event_is_read_as_the_reference_reads_it(body: bytes) -> None:
    assert one(body) == referred(reference.event, body)


@settings(UNHURRIED, max_examples=200)
@given(bodies.bodies("quantity"))
def test_a_check_is_read_as_the_reference_reads_it(body: bytes) -> None:
    assert check(body) == referred(reference.check, body)


@settings(UNHURRIED, max_examples=300)
@given(bodies.batches())
@example(b'{"events":[{"featureCode":"a","customerId":"b"},{"featureCode":"a","customerId":"b","value":NaN}]}')
@example(b'{"events":[{"featureCode":"a","customerId":"b"},{"featureCode":"a","customerId":"\xff","x":1}]}')
@example(b'{"events":[{"featureCode":"a","customerId":"b"},{"featureCode":"a","customerId":"b","customerId":"b"}]}')
@example(b'{"events":[{"featureCode":"a","customerId":"b"}],"events":[{"featureCode":"a","customerId":"b"}]}')
@example(b'{"events":[' + b"[" * 62 + b"]" * 62 + b"]}")
@example(b'{"events":[' + b"[" * 63 + b"]" * 63 + b"]}")
@example(b'{"events":[1,' + b"[" * 62 + b"]" * 62 + b',{"a":"' + b"[" * 90 + b'"}]}')
def test_a_batch_is_read_as_the_reference_reads_it(body: bytes) -> None:
    assert batch(body) == referred(reference.batch, body)


@settings(UNHURRIED, max_examples=300)
@given(bodies.bodies())
def test_a_total_is_read_as_the_reference_reads_it(body: bytes) -> None:
    assert total(body) == referred(reference.total, body)


@settings(UNHURRIED, max_examples=400)
@given(bodies.good_pairs().flatmap(bodies.rendered))
def test_both_readers_make_the_same_event_down_to_the_fingerprint(text: str) -> None:
    body = text.encode()
    assume(isinstance(one(body), Expected))
    quick = events.parse_one(body)
    assert quick == explain.event(strict_json.parse(body))
    assert events.parse_batch(b'{"events":[%s]}' % body) == [quick]
    assert events.parse_batch(b'{"events":[%s,0]}' % body)[0] == quick


@pytest.mark.parametrize("parse", PARSERS)
@given(body=st.one_of(st.binary(max_size=200), st.text('{}[]",:\\u0e1.-ntf \n', max_size=60).map(str.encode)))
def test_bytes_that_mean_nothing_are_refused_and_nothing_else(parse: Callable[[bytes], object], body: bytes) -> None:
    with pytest.raises(TallybookError) as caught:
        parse(body)
    code_of(caught.value)


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize("opening", OPENINGS)
@pytest.mark.parametrize("depth", [30, 60, 70, 500, 990, 2000])
def test_nesting_is_refused_at_any_depth(parse: Callable[[bytes], object], opening: bytes, depth: int) -> None:
    for body in (opening * depth, opening + b"[" * depth, opening + b"[" * depth + b"]" * depth):
        with pytest.raises(TallybookError) as caught:
            parse(body)
        code_of(caught.value)
