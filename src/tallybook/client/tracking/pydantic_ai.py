"""Models and agents of pydantic-ai. A model that uses a known SDK gets a twin with a tracked client; others are asked for their usage."""

import contextlib
import copy
import sys
from collections.abc import AsyncGenerator
from typing import Any, TypeVar, cast

from tallybook.client.tracking import packages, twins, usage
from tallybook.client.tracking.tracker import Call, Tracker
from tallybook.client.tracking.usage import Usage

T = TypeVar("T")


def track_agent(agent: T, tracker: Tracker) -> T:
    """A twin of an agent, with a tracked model. Raises TypeError for an agent that is given its model when it runs."""
    source: Any = twins.original_of(agent)
    models: Any = sys.modules["pydantic_ai.models"]
    if source.model is None:
        raise TypeError("the agent has no model of its own: track the model that it is run with")
    made: Any = twins.twin(agent)
    made.model = track_model(models.infer_model(source.model), tracker)
    return made


def track_model(model: T, tracker: Tracker) -> T:
    """A twin of a model. Of wrappers and fallbacks the models inside are tracked."""
    source: Any = twins.original_of(model)
    made: Any = twins.twin(model)
    provider = getattr(source, "_provider", None)
    client = getattr(provider, "_client", None)
    track = packages.track_of_sdk(client)
    if packages.is_a(source, "pydantic_ai.models.wrapper", "WrapperModel"):
        made.wrapped = track_model(source.wrapped, tracker)
    elif packages.is_a(source, "pydantic_ai.models.fallback", "FallbackModel"):
        made.models = [track_model(each, tracker) for each in source.models]
    elif track is not None:
        tracked_provider: Any = copy.copy(provider)
        tracked_provider._client = track(client, tracker)  # noqa: SLF001 - where providers keep their client
        made._provider = tracked_provider  # noqa: SLF001 - where models keep their provider
    else:
        calls = _Calls(source, tracker)
        twins.override(made, request=calls.request, request_stream=calls.request_stream)
    return cast("T", made)


class _Calls:
    """The methods of a tracked model of a kind that is not known."""

    def __init__(self, model: Any, tracker: Tracker) -> None:
        self._model = model
        self._tracker = tracker

    def _begin(self, messages: Any) -> Call:
        return self._tracker.begin(self._model.model_name, usage.texts_of(messages), _owner(self._model))

    async def request(self, messages: Any, *more: Any, **named: Any) -> Any:
        """One call."""
        call = self._begin(messages)
        await self._tracker.check_async(call)
        response = await self._model.request(messages, *more, **named)
        self._tracker.guarded(lambda: call.used(_usage(response, response.usage), "final"))
        return response

    @contextlib.asynccontextmanager
    async def request_stream(self, messages: Any, *more: Any, **named: Any) -> AsyncGenerator[Any]:
        """One streamed call. Broken off, what was used by then is metered."""
        call = self._begin(messages)
        await self._tracker.check_async(call)
        async with self._model.request_stream(messages, *more, **named) as stream:
            try:
                yield stream
            finally:
                self._tracker.guarded(lambda: _meter_stream(call, stream))


def _meter_stream(call: Call, stream: Any) -> None:
    told = stream.usage() if callable(stream.usage) else stream.usage
    if not usage.number(told, "input_tokens") and not usage.number(told, "output_tokens"):
        call.unknown()
        return
    is_whole = getattr(stream, "final_result_event", None) is not None or getattr(stream, "finish_reason", None) is not None
    call.used(_usage(stream, told), "final" if is_whole else "partial")


def _usage(response: Any, told: Any) -> Usage:
    return Usage(
        usage.text(response, "provider_response_id"),
        usage.text(response, "model_name"),
        usage.number(told, "input_tokens"),
        usage.number(told, "output_tokens"),
        usage.number(told, "cache_read_tokens"),
        usage.number(told, "cache_write_tokens"),
    )


def _owner(model: Any) -> str | None:
    """The maker of the models that a provider of this name serves, as far as it serves its own."""
    name = usage.text(model, "system") or ""
    return {"mistral": "mistral", "cohere": "cohere", "deepseek": "deepseek", "xai": "xai"}.get(name)
