"""litellm: the module with its functions, or a Router. Its answers look like OpenAI's, whoever served."""

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final, TypeVar, cast

from tallybook.client.tracking import streams, twins, usage
from tallybook.client.tracking.streams import ItemReading, Reader
from tallybook.client.tracking.tracker import Call, Tracker
from tallybook.client.tracking.usage import Usage

T = TypeVar("T")
_COMPLETIONS: Final = ("completion", "acompletion", "text_completion", "atext_completion")
_FUNCTIONS: Final = (*_COMPLETIONS, "embedding", "aembedding", "responses", "aresponses")
_OWNERS: Final = {
    "anthropic": "anthropic",
    "azure": "openai",
    "cohere": "cohere",
    "cohere_chat": "cohere",
    "deepseek": "deepseek",
    "gemini": "google",
    "mistral": "mistral",
    "moonshot": "moonshotai",
    "openai": "openai",
    "text-completion-openai": "openai",
    "xai": "xai",
}
"""Who owns the models of a litellm provider; those that serve models of others are not listed."""


class TrackedModule(ModuleType):
    """A module with some functions of its own; everything else is read from, and set on, the original."""

    def __init__(self, original: ModuleType, functions: dict[str, Callable[..., Any]]) -> None:
        """`functions` stand in front of those of `original`."""
        super().__init__(original.__name__, original.__doc__)
        vars(self).update(functions, _tallybook_original=original)

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)["_tallybook_original"], name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(vars(self)["_tallybook_original"], name, value)


def track_module(module: T, tracker: Tracker) -> T:
    """A module that does what litellm does."""
    original: Any = twins.original_of(module)
    functions = {name: _tracked(getattr(original, name), name, tracker) for name in _FUNCTIONS if hasattr(original, name)}
    return cast("T", TrackedModule(original, functions))


def track_router(router: T, tracker: Tracker) -> T:
    """A twin of a Router."""
    made = twins.twin(router)
    original = twins.original_of(router)
    twins.override(
        made, **{name: _tracked(getattr(original, name), name, tracker) for name in _FUNCTIONS if hasattr(original, name)}
    )
    return made


def _tracked(function: Callable[..., Any], name: str, tracker: Tracker) -> Callable[..., Any]:
    calls = _Calls(function, tracker, takes_usage_option=name in _COMPLETIONS)
    if inspect.iscoroutinefunction(function) or name.startswith("a"):
        return calls.call_async
    if tracker.terms.gate:
        return calls.call_gated
    return calls.call


class _Calls:
    """One function, tracked."""

    def __init__(self, function: Callable[..., Any], tracker: Tracker, *, takes_usage_option: bool) -> None:
        self._function = function
        self._tracker = tracker
        self._takes_usage_option = takes_usage_option

    def _begin(self, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Call, dict[str, Any], bool]:
        model = named.get("model", given[0] if given else None)
        body = [named.get(name) for name in ("messages", "input", "prompt")] + list(given[1:2])
        call = self._tracker.begin(model, body, None)
        options: dict[str, Any] = named.get("stream_options") or {}
        if not self._takes_usage_option or named.get("stream") is not True or options.get("include_usage"):
            return call, named, False
        return call, {**named, "stream_options": {**options, "include_usage": True}}, True

    def call(self, *given: Any, **named: Any) -> Any:
        """The function of a sync caller."""
        call, asked, is_injected = self._begin(given, named)
        return self._look_at(self._function(*given, **asked), call, is_injected=is_injected)

    def call_gated(self, *given: Any, **named: Any) -> Any:
        """The same, with a gate before it."""
        self._tracker.require_sync_gate()
        self._tracker.check(self._begin(given, named)[0])
        return self.call(*given, **named)

    async def call_async(self, *given: Any, **named: Any) -> Any:
        """The function of an async caller."""
        call, asked, is_injected = self._begin(given, named)
        await self._tracker.check_async(call)
        return self._look_at(await self._function(*given, **asked), call, is_injected=is_injected, is_async=True)

    def _look_at(self, answer: Any, call: Call, *, is_injected: bool, is_async: bool = False) -> Any:
        if hasattr(answer, "__next__") or hasattr(answer, "__anext__"):
            kept: list[Any] = getattr(answer, "chunks", [])
            is_ours = _is_usage_only if is_injected else _never
            reader = Reader(_usage_in_stream, _is_last, is_ours, _output, lambda: _last_usage(kept))
            held = getattr(answer, "completion_stream", None)
            self._tracker.guarded(lambda: streams.swap(answer, self._tracker, ItemReading(call, reader), held, is_async=is_async))
        else:
            self._tracker.guarded(lambda: _meter(answer, call))
        return answer


def _meter(answer: Any, call: Call) -> None:
    if usage.get(answer, "_hidden_params", "cache_hit"):
        return
    found = _usage(answer)
    call.unknown() if found is None else call.used(found, "final")


def _usage_in_stream(item: Any) -> Usage | None:
    whole = usage.get(item, "response")
    return _usage(item if whole is None else whole)


def _usage(answer: Any) -> Usage | None:
    told = usage.get(answer, "usage")
    if told is None:
        return None
    hidden = usage.get(answer, "_hidden_params")
    found = usage.of_openai_chat(answer) if usage.get(told, "prompt_tokens") is not None else usage.of_openai_responses(answer)
    if found is None:
        return None
    details = usage.get(told, "prompt_tokens_details")
    model = usage.text(hidden, "provider_response_model") or found.model or ""
    return Usage(
        found.response_id,
        _owned(model, usage.text(hidden, "custom_llm_provider")),
        found.input,
        found.output,
        found.cache_read,
        found.cache_write or usage.number(details, "cache_creation_tokens") or usage.number(told, "cache_creation_input_tokens"),
        usage.number(details, "cache_creation_token_details", "ephemeral_1h_input_tokens"),
        found.service_tier,
        usage.number(told, "server_tool_use", "web_search_requests"),
    )


def _owned(model: str, provider: str | None) -> str:
    owner = _OWNERS.get(provider or "")
    return model if owner is None or "/" in model else f"{owner}/{model}"


def _last_usage(chunks: list[Any]) -> Usage | None:
    """What the chunks say that litellm keeps for itself; of a broken stream they are all there is."""
    found = (_usage(chunk) for chunk in reversed(chunks))
    return next((each for each in found if each is not None), None)


def _is_last(item: Any) -> bool:
    return not usage.text(item, "type") or usage.text(item, "type") == "response.completed"


def _is_usage_only(item: Any) -> bool:
    """The chunk that is there for the usage: it has nothing else to say."""
    if usage.get(item, "usage") is None:
        return False
    return not any(
        usage.get(choice, "finish_reason") or _says(usage.get(choice, "delta")) for choice in usage.get(item, "choices") or ()
    )


def _says(delta: Any) -> bool:
    return any(usage.get(delta, name) for name in ("content", "tool_calls", "function_call", "reasoning_content"))


def _output(item: Any) -> str:
    return "".join(usage.text(choice, "delta", "content") or "" for choice in usage.get(item, "choices") or ())


def _never(_item: Any) -> bool:
    return False
