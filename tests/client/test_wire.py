"""What is kept of an answer on its way to the caller, and what the caller gets, however the connection cuts it."""

import json
from collections.abc import Callable, Sequence

import pytest

from tallybook.client import MeterSettings, Tallybook
from tallybook.client.tracking.shapes import ChatShape, MessagesShape, ResponsesShape, Shape
from tallybook.client.tracking.tracker import Terms, Tracker
from tallybook.client.tracking.wire import BodyObservation, ChatObservation, Observation
from tests.client import fake_formats
from tests.client.comparing import counts
from tests.client.fake_formats import Answer, Tokens
from tests.client.overhead import CHAT, MESSAGE, RESPONSE
from tests.client.quiet import SDKS_ARE_QUIET
from tests.client.stub_service import StubService

pytestmark = SDKS_ARE_QUIET
TOKENS = Tokens(1000, 100, 300, 200, 80)
STREAMED = {"stream": True}
WITH_USAGE = {"stream": True, "stream_options": {"include_usage": True}}
SIZES = (1, 7, 64, 1000, 100_000)


def observed(
    kind: type[Observation], shape: Shape, chunks: Sequence[bytes], stub: StubService
) -> tuple[list[bytes], list[object]]:
    """What the caller gets, part by part, and the counts of the event."""
    with Tallybook("ck_test", url=stub.url, meter=MeterSettings(linger_s=0.005)) as tallybook:
        tracker = Tracker(tallybook, Terms("user_1", "ai_chat"))
        observation = kind(tracker.begin("some-model", {}, "openai"), shape)
        passed = [observation.feed(chunk) for chunk in chunks]
        passed.append(observation.end())
    return passed, [(*counts(event), event["properties"]["usageStatus"]) for event in stub.recorded.values()]


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[place : place + size] for place in range(0, len(data), size)]


def stream_of(answer: Answer) -> bytes:
    return b"".join(event for event, _ in answer.events)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"], ids=["LF", "CRLF"])
def test_usage_that_we_asked_for_is_taken_out_however_the_stream_is_cut(size: int, end: bytes, stub: StubService) -> None:
    """Mutant: only events that come in a chunk of their own are looked at."""
    asked, plain = (
        stream_of(fake_formats.chat({**CHAT, **options}, 1, TOKENS)).replace(b"\n\n", end) for options in (WITH_USAGE, STREAMED)
    )
    passed, events = observed(ChatObservation, ChatShape(False), cut(asked, size), stub)  # noqa: FBT003 - a factory
    assert b"".join(passed) == plain
    assert events == [(*counts_of_chat(), "final")]


def counts_of_chat() -> Sequence[object]:
    return counts({"inputTokens": 1000, "outputTokens": 100, "cacheReadTokens": 300, "model": "openai/gpt-4o-2024-08-06"})


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("shape", "answer"),
    [
        (MessagesShape, fake_formats.messages({**MESSAGE, **STREAMED}, 1, TOKENS)),
        (ResponsesShape, fake_formats.responses({**RESPONSE, **STREAMED}, 1, TOKENS)),
        (ChatShape, fake_formats.chat({**CHAT, **WITH_USAGE}, 1, TOKENS)),
    ],
    ids=["messages", "responses", "chat"],
)
def test_a_stream_passes_as_it_comes_and_is_read_in_lumps(
    shape: Callable[[bool], Shape], answer: Answer, size: int, stub: StubService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mutant: the event that the end of a lump cuts is lost."""
    whole = stream_of(answer)
    _, expected = observed(Observation, shape(False), [whole], stub)  # noqa: FBT003 - a factory
    stub.recorded.clear()
    monkeypatch.setattr(Observation, "_lump_bytes", 50)
    chunks = cut(whole, size)
    passed, events = observed(Observation, shape(False), chunks, stub)  # noqa: FBT003 - a factory
    assert passed == [*chunks, b""]
    assert events == expected != []


def test_what_was_read_of_a_long_stream_is_not_kept() -> None:
    """Mutant: the whole stream is kept until its end."""
    with Tallybook("ck_test", url="http://localhost:9") as tallybook:
        tracker = Tracker(tallybook, Terms("user_1", "ai_chat"))
        observation = Observation(tracker.begin("some-model", {}, "anthropic"), MessagesShape(False))  # noqa: FBT003 - a factory
        event = fake_formats.sse({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "x" * 500}})
        for _ in range(2000):
            observation.feed(event)
        kept: list[bytes] = observation._parts  # pyright: ignore[reportPrivateUsage] - nothing else tells
    assert 0 < sum(map(len, kept)) < 100_000


def test_a_body_is_read_when_it_is_whole(stub: StubService) -> None:
    body = json.dumps(fake_formats.chat(CHAT, 1, TOKENS).body).encode()
    passed, events = observed(BodyObservation, ChatShape(False), cut(body, 100), stub)  # noqa: FBT003 - a factory
    assert b"".join(passed) == body
    assert events == [(*counts_of_chat(), "final")]
