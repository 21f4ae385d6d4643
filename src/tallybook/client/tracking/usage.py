"""What a provider says it used, from any of its spellings to one: the input is the whole prompt, cache included.

Values may be objects of an SDK or the dicts of its JSON; `get` reads both.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

_TIERS = {"batch": "batch", "flex": "flex", "priority": "priority"}


@dataclass(frozen=True, slots=True)
class Usage:
    """The tokens of one response; `cache_write_1h` is a part of `cache_write`. `response_id` and `model` are the provider's."""

    response_id: str | None
    model: str | None
    input: int
    output: int
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0
    service_tier: str | None = None
    web_searches: int = 0


def get(value: Any, *names: str) -> Any:
    """The value at a path of names, or None where there is none."""
    for name in names:
        value = cast("dict[str, Any]", value).get(name) if isinstance(value, dict) else getattr(value, name, None)
        if value is None:
            return None
    return value


def number(value: Any, *names: str) -> int:
    """The count at a path of names; 0 where there is none."""
    found = get(value, *names)
    return int(found) if isinstance(found, int | float) else 0


def text(value: Any, *names: str) -> str | None:
    """The text at a path of names, or None."""
    found = get(value, *names)
    return found if isinstance(found, str) else None


def of_openai_chat(response: Any) -> Usage | None:
    """Chat completions, completions and embeddings, of OpenAI and all that speak like it."""
    usage = get(response, "usage")
    if usage is None:
        return None
    prompt = number(usage, "prompt_tokens")
    details = get(usage, "prompt_tokens_details")
    # Some that speak like OpenAI leave reasoning out of completion_tokens; the total has it in any case.
    output = max(number(usage, "completion_tokens"), number(usage, "total_tokens") - prompt)
    return Usage(
        text(response, "id"),
        text(response, "model"),
        prompt,
        output,
        number(details, "cached_tokens") or number(usage, "prompt_cache_hit_tokens"),
        number(details, "cache_write_tokens"),
        service_tier=_tier(response),
    )


def of_openai_responses(response: Any) -> Usage | None:
    """The Responses API."""
    usage = get(response, "usage")
    if usage is None:
        return None
    return Usage(
        text(response, "id"),
        text(response, "model"),
        number(usage, "input_tokens"),
        number(usage, "output_tokens"),
        number(usage, "input_tokens_details", "cached_tokens"),
        number(usage, "input_tokens_details", "cache_write_tokens"),
        service_tier=_tier(response),
        web_searches=sum(1 for item in _items(get(response, "output")) if _is_search(item)),
    )


def _is_search(item: Any) -> bool:
    return get(item, "type") == "web_search_call" and get(item, "action", "type") in (None, "search")


def _items(value: Any) -> Iterable[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else ()


def of_anthropic(message: Any) -> Usage | None:
    """Messages, whose three input counts exclude each other."""
    usage = get(message, "usage")
    if usage is None:
        return None
    read, write = number(usage, "cache_read_input_tokens"), number(usage, "cache_creation_input_tokens")
    model = text(message, "model")
    return Usage(
        text(message, "id"),
        f"{model}-fast" if model and get(usage, "speed") == "fast" else model,
        number(usage, "input_tokens") + read + write,
        number(usage, "output_tokens"),
        read,
        write,
        number(usage, "cache_creation", "ephemeral_1h_input_tokens"),
        _tier(usage),
        number(usage, "server_tool_use", "web_search_requests"),
    )


def of_gemini(response: Any) -> Usage | None:
    """`generateContent` as its JSON."""
    usage = get(response, "usageMetadata")
    if usage is None:
        return None
    return Usage(
        text(response, "responseId"),
        text(response, "modelVersion"),
        number(usage, "promptTokenCount") + number(usage, "toolUsePromptTokenCount"),
        number(usage, "candidatesTokenCount") + number(usage, "thoughtsTokenCount"),
        number(usage, "cachedContentTokenCount"),
    )


def _tier(value: Any) -> str | None:
    return _TIERS.get(text(value, "service_tier") or "")


def texts_of(value: Any) -> list[str]:
    """The texts in the messages of a framework, for an estimate."""
    return [str(get(each, "content") or get(each, "parts") or "") for each in cast("list[Any]", value)]


def rough_tokens(value: Any) -> int:
    """About how many tokens the texts in a request are: four characters each."""
    return -(-_characters(value) // 4)


def _characters(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(_characters(each) for each in cast("Mapping[str, Any]", value).values())
    if isinstance(value, list | tuple):
        return sum(_characters(each) for each in cast("list[Any]", value))
    return 0
