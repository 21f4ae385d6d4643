"""What a tracked call costs its caller: `python -m tests.client.overhead` prints it, in microseconds of CPU of the calling thread.

Calls go to a transport in the same process that answers at once with bytes made before, so that nothing but the SDK and the wrapper is
measured. A stream comes in one chunk an event; what a chunk costs is what streams that are longer by MORE_EVENTS cost more. Plain and
tracked calls take turns. Of each kind the quickest counts, because whatever else the machine does only adds; beside it stands the median
of the differences of pairs. The thread that sends the events is not the caller's: its CPU is not in these figures.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from tallybook.client import MeterSettings, Problem, Tallybook, tracked
from tests.client import fake_formats, stub_service
from tests.client.fake_formats import Answer, Tokens
from tests.client.provider_cases import ASK, package

CALLS = 200
MORE_EVENTS = 100
TOKENS = Tokens(1000, 100, 300, 200, 80)
CHAT: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": ASK}]}
RESPONSE: dict[str, Any] = {"model": "gpt-4o", "input": ASK}
MESSAGE: dict[str, Any] = {"model": "claude-sonnet-4-6", "max_tokens": 100, "messages": [{"role": "user", "content": ASK}]}
CONTENT: dict[str, Any] = {"model": "gemini-flash-latest", "contents": ASK}


@dataclass(frozen=True, slots=True)
class Cost:
    """µs of CPU: the quickest plain call, the quickest tracked one, and the median of what one took more than the plain one before it."""

    plain: float
    tracked: float
    more_typically: float


def transport(http: Any, make: Callable[[dict[str, Any], int, Tokens], Answer], more_events: int = 0) -> Any:
    """A transport of `http` (httpx or its successor) that answers like the fake provider, with bytes that were made before."""
    made: dict[tuple[str, bytes], Any] = {}

    class Chunks(http.SyncByteStream):
        def __init__(self, chunks: list[bytes]) -> None:
            self.chunks = chunks

        def __iter__(self) -> Iterator[bytes]:
            return iter(self.chunks)

    def answer(request: Any) -> Any:
        key = (str(request.url), request.content)
        kept = made.get(key)
        if kept is None:
            body = json.loads(request.content)
            found = make(body, 1, TOKENS)
            is_stream = body.get("stream") or "stream" in request.url.path
            kept = made[key] = chunks_of(found, more_events) if is_stream else json.dumps(found.body).encode()
        if isinstance(kept, bytes):
            return http.Response(200, content=kept, headers={"content-type": "application/json"})
        return http.Response(200, stream=Chunks(kept), headers={"content-type": "text/event-stream"})

    return http.MockTransport(answer)


def chunks_of(answer: Answer, more_events: int) -> list[bytes]:
    """The events of a stream, with one of its middle, which is a piece of text, so many times more."""
    events = [event for event, _ in answer.events]
    middle = len(events) // 2
    return [*events[:middle], *[events[middle]] * more_events, *events[middle:]]


def clients(more_events: int = 0) -> dict[str, tuple[Any, Callable[[Any], object]]]:
    """A client and a call for each measured form."""
    http = package("httpx2")
    sdk = package("openai")

    def openai_client(make: Callable[[dict[str, Any], int, Tokens], Answer]) -> Any:
        answering = httpx.Client(transport=transport(httpx, make, more_events))
        return sdk.OpenAI(api_key="x", base_url="http://provider/v1", http_client=answering)

    openai, responses = openai_client(fake_formats.chat), openai_client(fake_formats.responses)
    messages = http.Client(transport=transport(http, fake_formats.messages, more_events))
    gemini = google(http, more_events)
    anthropic = package("anthropic").Anthropic(api_key="x", base_url="http://provider", http_client=messages)
    return {
        "openai chat": (openai, lambda client: client.chat.completions.create(**CHAT)),
        "openai chat, streamed": (openai, lambda client: list(client.chat.completions.create(**CHAT, stream=True))),
        "openai chat, raw": (openai, lambda client: client.chat.completions.with_raw_response.create(**CHAT)),
        "openai responses": (responses, lambda client: client.responses.create(**RESPONSE)),
        "openai responses, streamed": (responses, lambda client: list(client.responses.create(**RESPONSE, stream=True))),
        "anthropic": (anthropic, lambda client: client.messages.create(**MESSAGE)),
        "anthropic, streamed": (anthropic, lambda client: list(client.messages.create(**MESSAGE, stream=True))),
        "google-genai": (gemini, lambda client: client.models.generate_content(**CONTENT)),
        "google-genai, streamed": (gemini, lambda client: list(client.models.generate_content_stream(**CONTENT))),
    }


def google(http: Any, more_events: int) -> Any:
    """A client of google-genai on the same transport."""

    def make(body: dict[str, Any], number: int, tokens: Tokens) -> Answer:
        return fake_formats.gemini(body, "gemini-flash-latest", number, tokens)

    options = {"base_url": "http://provider", "client_args": {"transport": transport(http, make, more_events)}}
    return package("google.genai").Client(api_key="x", vertexai=False, http_options=options)


def measure(calls: int = CALLS, spool: str | None = None, only: str = "", more_events: int = 0) -> dict[str, Cost]:
    """What a call costs, by form; `only`: those that have this in their name."""
    with stub_service.running() as stub:
        settings = MeterSettings(spool=spool, linger_s=60, events_max=1_000_000)
        with Tallybook("ck_test", url=stub.url, meter=settings, on_error=_stop) as tallybook:
            figures: dict[str, Cost] = {}
            forms = {name: form for name, form in clients(more_events).items() if only in name}
            for name, (client, call) in forms.items():
                wrapped = tracked(client, tallybook=tallybook, feature="ai_chat", customer_id="user_1")
                figures[name] = _compare(lambda c=client, do=call: do(c), lambda c=wrapped, do=call: do(c), calls)
            return figures


def _stop(problem: Problem) -> None:
    raise AssertionError(problem)


def _compare(plain: Callable[[], object], wrapped: Callable[[], object], calls: int) -> Cost:
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(calls + 20):
        for kind, call in enumerate((plain, wrapped)):
            begun = time.thread_time_ns()
            call()
            if number >= 20:  # the first calls fill caches
                times[kind].append((time.thread_time_ns() - begun) / 1000)
    more = statistics.median(tracked - plain for plain, tracked in zip(*times, strict=True))
    return Cost(min(times[0]), min(times[1]), more)


def chunks(calls: int = CALLS) -> dict[str, float]:
    """What looking at a chunk costs, in µs of CPU, by form."""
    short, long = (measure(calls, only="streamed", more_events=more) for more in (0, MORE_EVENTS))
    return {
        name: (long[name].tracked - long[name].plain - short[name].tracked + short[name].plain) / MORE_EVENTS for name in short
    }


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for title, spool in (("in memory", None), ("with a spool", folder)):
            sys.stdout.write(f"{title}\n")
            for name, cost in measure(1000, spool).items():
                sys.stdout.write(
                    f"  {name:26} plain {cost.plain:7.1f} µs   tracked {cost.tracked:7.1f} µs   more {cost.tracked - cost.plain:6.1f} µs"
                    f"   ratio {cost.tracked / cost.plain:.2f}   typically more {cost.more_typically:6.1f} µs\n"
                )
    for name, cost in chunks().items():
        sys.stdout.write(f"  {name:26} each chunk {cost:4.1f} µs\n")


if __name__ == "__main__":
    main()
