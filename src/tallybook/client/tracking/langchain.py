"""Models of LangChain. A model that uses a known SDK gets a twin with tracked clients; others are asked for their usage."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final, TypeVar, cast

from tallybook.client.tracking import packages, streams, twins, usage
from tallybook.client.tracking.streams import ItemReading, Reader
from tallybook.client.tracking.tracker import Call, Tracker
from tallybook.client.tracking.usage import Usage

T = TypeVar("T")
_CLIENTS: Final = ("root_client", "root_async_client", "client", "async_client", "_client", "_async_client")
"""Where models keep clients of SDKs, or resources of such."""


def track_model(model: T, tracker: Tracker) -> T:
    """A twin of a chat model or of embeddings; of a bound model, such as `model.bind_tools(…)`, the model inside is tracked."""
    source: Any = twins.original_of(model)
    made: Any = twins.twin(model)
    if packages.is_a(source, "langchain_core.runnables.base", "RunnableBindingBase"):
        twins.override(made, bound=track_model(source.bound, tracker))
        return cast("T", made)
    tracked = {name: client for name in _CLIENTS if (client := _tracked_client(getattr(source, name, None), tracker)) is not None}
    if tracked:
        twins.override(made, **tracked)
    elif hasattr(source, "_generate"):
        calls = _Calls(source, tracker)
        twins.override(made, _generate=calls.generate, _agenerate=calls.agenerate, _stream=calls.stream, _astream=calls.astream)
    else:
        raise TypeError(f"tracked() finds no client of a known SDK in {type(source).__qualname__}")
    return cast("T", made)


def _tracked_client(value: Any, tracker: Tracker) -> Any:
    """A tracked client of an SDK, or a resource of one, for what a model keeps; None for anything else."""
    track = packages.track_of_sdk(value)
    if track is not None:
        return track(value, tracker)
    owner = getattr(value, "_client", None)
    track = packages.track_of_sdk(owner)
    return None if track is None else type(value)(track(owner, tracker))


class _Calls:
    """The methods of a tracked model of a kind that is not known."""

    def __init__(self, model: Any, tracker: Tracker) -> None:
        self._model = model
        self._tracker = tracker

    def _begin(self, messages: Any) -> Call:
        model = usage.text(self._model, "model_name") or usage.text(self._model, "model")
        return self._tracker.begin(model, usage.texts_of(messages), None)

    def generate(self, messages: Any, *more: Any, **named: Any) -> Any:
        """One call."""
        call = self._begin(messages)
        if self._tracker.terms.gate:
            self._tracker.require_sync_gate()
            self._tracker.check(call)
        result = self._model._generate(messages, *more, **named)  # noqa: SLF001 - what LangChain's models are made of
        self._tracker.guarded(lambda: _meter(call, result))
        return result

    async def agenerate(self, messages: Any, *more: Any, **named: Any) -> Any:
        """One call."""
        call = self._begin(messages)
        await self._tracker.check_async(call)
        result = await self._model._agenerate(messages, *more, **named)  # noqa: SLF001 - what LangChain's models are made of
        self._tracker.guarded(lambda: _meter(call, result))
        return result

    def stream(self, messages: Any, *more: Any, **named: Any) -> Iterator[Any]:
        """One streamed call."""
        call = self._begin(messages)
        if self._tracker.terms.gate:
            self._tracker.require_sync_gate()
            self._tracker.check(call)
        source = self._model._stream(messages, *more, **named)  # noqa: SLF001 - what LangChain's models are made of
        yield from streams.passed_on(self._tracker, ItemReading(call, _reader()), source)

    async def astream(self, messages: Any, *more: Any, **named: Any) -> AsyncIterator[Any]:
        """One streamed call."""
        call = self._begin(messages)
        await self._tracker.check_async(call)
        source = self._model._astream(messages, *more, **named)  # noqa: SLF001 - what LangChain's models are made of
        async for item in streams.passed_on_async(self._tracker, ItemReading(call, _reader()), source):
            yield item


def _meter(call: Call, result: Any) -> None:
    found = [_usage(generation.message) for generation in result.generations]
    if not any(found):
        call.unknown()
    for each in found:
        if each is not None:
            call.used(each, "final")


def _usage(message: Any) -> Usage | None:
    told = usage.get(message, "usage_metadata")
    if told is None:
        return None
    metadata, details = usage.get(message, "response_metadata"), usage.get(told, "input_token_details")
    return Usage(
        usage.text(metadata, "id"),
        usage.text(metadata, "model_name") or usage.text(metadata, "model"),
        usage.number(told, "input_tokens"),
        usage.number(told, "output_tokens"),
        usage.number(details, "cache_read"),
        usage.number(details, "cache_creation"),
        usage.number(details, "ephemeral_1h_input_tokens"),
    )


def _reader() -> Reader:
    """In LangChain the parts of a stream add up."""
    return Reader(_sum(), output=lambda chunk: usage.text(chunk, "message", "content") or "")


def _sum() -> Callable[[Any], Usage | None]:
    whole: list[Any] = []

    def add(chunk: Any) -> Usage | None:
        whole[:] = [whole[0] + chunk.message] if whole else [chunk.message]
        return _usage(whole[0])

    return add
