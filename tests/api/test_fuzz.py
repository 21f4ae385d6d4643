"""Bytes, numbers and keys that nobody meant: every answer is a named refusal or a success, and no bug stands in the log."""

import json
import logging
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tallybook.entrypoints.http import resources, routing
from tallybook.entrypoints.http.routing import Operation
from tallybook.storage import postgres
from tallybook.storage.redis import Redis
from tests.api import matrix
from tests.support import api, billing
from tests.support.billing import World

WRITING = [operation for operation in routing.collect(resources.MODULES) if operation.body is not None]
_EXAMPLES = 150
_QUIET = settings(
    max_examples=_EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
_DIGITS = st.text(alphabet="0123456789+-.eE", min_size=1, max_size=40)
_NUMBERS = st.one_of(
    _DIGITS,
    st.sampled_from(
        [
            "1e400",
            "1e-400",
            "-0",
            "-0.0",
            "1e3000000",
            "9" * 400,
            "0." + "0" * 400 + "1",
            "NaN",
            "Infinity",
            "0x1",
            "\u0661",
            "1_0",
        ]
    ),
    st.decimals(allow_nan=False, allow_infinity=False).map(str),
    st.integers(-(2**70), 2**70).map(str),
)
_HOSTILE = st.one_of(
    st.sampled_from(
        [
            '"\\ud800"',
            '"\\u0000"',
            "[" * 200 + "]" * 200,
            "{}",
            "[]",
            "null",
            "true",
            '""',
            '"' + "x" * 5000 + '"',
            '{"a":1,"a":2}',
        ]
    ),
    st.text(max_size=30).map(json.dumps),
    _NUMBERS,
)


@pytest.fixture
async def world(database: postgres.Pool, redis_client: Redis) -> AsyncGenerator[World]:
    async with billing.world(database, redis_client) as made:
        yield made


@contextmanager
def no_bugs(caplog: pytest.LogCaptureFixture) -> Generator[None]:
    """Nothing in the log is an error or shows a traceback."""
    caplog.clear()
    yield
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR or record.exc_info] == []


@_QUIET
@given(
    operation=st.sampled_from(WRITING),
    raw=st.binary(max_size=200) | st.text(alphabet='{}[]":,01eE+-.\\u nulltrue\x00é', max_size=80).map(str.encode),
)
async def test_no_bytes_break_an_operation(
    world: World, caplog: pytest.LogCaptureFixture, operation: Operation, raw: bytes
) -> None:
    with no_bugs(caplog):
        answer = await _send(world, operation, raw)
    assert answer.status < 500, answer


@_QUIET
@given(operation=st.sampled_from(WRITING), field=st.integers(0, 100), hostile=_HOSTILE)
async def test_no_value_of_a_field_breaks_an_operation(
    world: World, caplog: pytest.LogCaptureFixture, operation: Operation, field: int, hostile: str
) -> None:
    body = _with(matrix.body_of(operation) or {}, operation, field, hostile)
    with no_bugs(caplog):
        answer = await _send(world, operation, body)
    assert answer.status < 500, answer


@_QUIET
@given(number=_NUMBERS, field=st.sampled_from(["value", "inputTokens", "cacheReadTokens"]))
async def test_no_number_breaks_an_event(world: World, caplog: pytest.LogCaptureFixture, number: str, field: str) -> None:
    event = f'{{"customerId": "nobody", "featureCode": "api_calls", "{field}": {number}}}'
    with no_bugs(caplog):
        single = await world.api.send("POST", "/api/v1/usage/events", data=event.encode("utf-8", "surrogatepass"))
        batch = await world.api.send("POST", "/api/v1/usage/events/batch", data=f'{{"events": [{event}]}}'.encode())
    assert 400 <= single.status < 500, single
    assert batch.status == 400 or [one["status"] for one in batch.body["results"]] == ["invalid"], batch


@dataclass(frozen=True, slots=True)
class Slip:
    """One thing done to a key at one place of it."""

    kind: Literal["cut", "put", "insert", "double", "swap", "prefix"]
    at: int
    letter: str

    def of(self, key: str) -> str:
        """The key after it."""
        at = self.at % len(key)
        return {
            "cut": key[:at],
            "put": key[:at] + self.letter + key[at + 1 :],
            "insert": key[:at] + self.letter + key[at:],
            "double": key + key,
            "swap": key.swapcase(),
            "prefix": f"Bearer {key}",
        }[self.kind]


_SLIPS = st.builds(
    Slip,
    kind=st.sampled_from(["cut", "put", "insert", "double", "swap", "prefix"]),
    at=st.integers(0, 200),
    letter=st.characters(min_codepoint=33, max_codepoint=126),
)
_ANY_HEADER = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=300)


@_QUIET
@given(slip=_SLIPS | _ANY_HEADER)
async def test_no_text_but_the_key_is_the_key(world: World, caplog: pytest.LogCaptureFixture, slip: Slip | str) -> None:
    text = slip.of(world.account.key) if isinstance(slip, Slip) else slip
    assume(text.strip(" \t") != world.account.key)
    with no_bugs(caplog):
        answer = await world.api.send("GET", "/api/v1/customers", headers={"x-api-key": text})
    assert (answer.status, answer.code) == (401, "unauthorized")


async def _send(world: World, operation: Operation, raw: bytes) -> api.Answer:
    path = operation.template
    for name in operation.path_parameters:
        path = path.replace(f"{{{name}}}", "nobody")
    return await world.api.send(operation.method, f"/api/v1{path}", data=raw)


def _with(body: Mapping[str, Any], operation: Operation, field: int, hostile: str) -> bytes:
    """The body with one field, known to the operation, put as it is told."""
    assert operation.body is not None
    names = operation.body.__struct_encode_fields__
    name = names[field % len(names)]
    fields = {**{other: json.dumps(value) for other, value in body.items()}, name: hostile}
    text = ", ".join(f"{json.dumps(other)}: {value}" for other, value in fields.items())
    return f"{{{text}}}".encode("utf-8", "surrogatepass")
