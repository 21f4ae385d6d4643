"""Clients of google-genai. Every request of a client and of what hangs on it goes through its API client, of which a twin gets its own.

The API client answers in JSON text, whatever it speaks HTTP with.
"""

import copy
import json
from collections.abc import AsyncGenerator, Generator
from typing import Any, Final, TypeVar, cast

from tallybook.client.tracking import streams, twins, usage
from tallybook.client.tracking.streams import ItemReading, Reader
from tallybook.client.tracking.tracker import Call, Tracker
from tallybook.client.tracking.usage import Usage

T = TypeVar("T")
_OPERATIONS: Final = frozenset({"generateContent", "streamGenerateContent", "embedContent", "batchEmbedContents"})
_MODULE_DEPTH_MAX: Final = 3


def track_google(client: T, tracker: Tracker) -> T:
    """A twin of a `google.genai.Client`."""
    if tracker.terms.gate:
        tracker.require_sync_gate()
    made: Any = twins.twin(client)
    twins.without_finalizer(made)
    source: Any = twins.original_of(client)
    original: Any = source._api_client  # noqa: SLF001 - what every request goes through
    api_client: Any = copy.copy(original)
    twins.without_finalizer(api_client)
    calls = _Calls(original, tracker)
    twins.override(
        api_client,
        request=calls.request,
        request_streamed=calls.request_streamed,
        async_request=calls.async_request,
        async_request_streamed=calls.async_request_streamed,
    )
    _adopt(made, original, api_client, _MODULE_DEPTH_MAX)
    return cast("T", made)


def _adopt(holder: Any, original: Any, api_client: Any, depth: int) -> None:
    """Give a twin, and copies of all modules in it, the tracked API client instead of the original."""
    for name, value in twins.state(holder).items():
        if value is original:
            object.__setattr__(holder, name, api_client)
        elif name != "_tallybook_original" and depth and getattr(value, "_api_client", None) is original:
            module: Any = copy.copy(value)
            if hasattr(module, "__del__"):
                twins.without_finalizer(module)
            _adopt(module, original, api_client, depth - 1)
            object.__setattr__(holder, name, module)


def _response(answer: Any) -> Any:
    """The JSON in an answer of the API client."""
    return json.loads(answer.body) if answer.body else None


def _usage(answer: Any) -> Usage | None:
    return usage.of_gemini(_response(answer))


def _is_last(answer: Any) -> bool:
    candidates = usage.get(_response(answer), "candidates")
    return any(usage.get(each, "finishReason") for each in candidates or ())


def _output(answer: Any) -> str:
    candidates = usage.get(_response(answer), "candidates")
    parts = [part for each in candidates or () for part in usage.get(each, "content", "parts") or ()]
    return "".join(usage.text(part, "text") or "" for part in parts)


_READER: Final = Reader(_usage, _is_last, output=_output, says_totals=True)


class _Calls:
    """The methods of a tracked API client. Those of the original do the work."""

    def __init__(self, original: Any, tracker: Tracker) -> None:
        self._original = original
        self._tracker = tracker

    def _begin(self, path: str, body: Any) -> Call | None:
        return self._tracker.guarded(self._begin_operation, path, body)

    def _begin_operation(self, path: str, body: Any) -> Call | None:
        model, _, operation = path.partition("?")[0].rpartition(":")
        if operation not in _OPERATIONS:
            return None
        return self._tracker.begin(model.rpartition("/")[2], body, "google")

    def _meter(self, call: Call, answer: Any) -> None:
        found = _usage(answer)
        call.unknown() if found is None else call.used(found, "final")

    def request(self, http_method: str, path: str, request_dict: Any, *more: Any, **named: Any) -> Any:
        """One call."""
        call = self._begin(path, request_dict)
        if call is None:
            return self._original.request(http_method, path, request_dict, *more, **named)
        self._tracker.check(call)
        answer = self._original.request(http_method, path, request_dict, *more, **named)
        self._tracker.guarded(self._meter, call, answer)
        return answer

    async def async_request(self, http_method: str, path: str, request_dict: Any, *more: Any, **named: Any) -> Any:
        """One call."""
        call = self._begin(path, request_dict)
        if call is None:
            return await self._original.async_request(http_method, path, request_dict, *more, **named)
        await self._tracker.check_async(call)
        answer = await self._original.async_request(http_method, path, request_dict, *more, **named)
        self._tracker.guarded(self._meter, call, answer)
        return answer

    def request_streamed(self, http_method: str, path: str, request_dict: Any, *more: Any, **named: Any) -> Generator[Any]:
        """One streamed call, which begins when its first part is asked for."""
        call = self._begin(path, request_dict)
        if call is None:
            yield from self._original.request_streamed(http_method, path, request_dict, *more, **named)
            return
        self._tracker.check(call)
        source = self._original.request_streamed(http_method, path, request_dict, *more, **named)
        yield from streams.passed_on(self._tracker, ItemReading(call, _READER), source)

    async def async_request_streamed(
        self, http_method: str, path: str, request_dict: Any, *more: Any, **named: Any
    ) -> AsyncGenerator[Any]:
        """One streamed call."""
        call = self._begin(path, request_dict)
        if call is None:
            return await self._original.async_request_streamed(http_method, path, request_dict, *more, **named)
        await self._tracker.check_async(call)
        source = await self._original.async_request_streamed(http_method, path, request_dict, *more, **named)
        return streams.passed_on_async(self._tracker, ItemReading(call, _READER), source)
