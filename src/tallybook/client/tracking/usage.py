"""What a provider says it used, from any of its spellings to one: the input is the whole prompt, cache included.

Values may be objects of an SDK or the dicts of its JSON; `get` and `held` read both.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple, cast

_TIERS = {"batch": "batch", "flex": "flex", "priority": "priority"}
_NOTHING: Final[Mapping[str, Any]] = {}


class Usage(NamedTuple):
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


def held(value: Any) -> Mapping[str, Any]:
    """What an object of an SDK, or a dict, holds by name: much quicker than asking it for names that it may not have."""
    if isinstance(value, dict):
        return cast("dict[str, Any]", value)
    own: Mapping[str, Any] = getattr(value, "__dict__", _NOTHING)
    extra: Mapping[str, Any] | None = getattr(value, "__pydantic_extra__", None)
    return {**own, **extra} if extra else own


def number(value: Any, *names: str) -> int:
    """The count at a path of names; 0 where there is none."""
    found = get(value, *names)
    return int(found) if isinstance(found, (int, float)) else 0


def text(value: Any, *names: str) -> str | None:
    """The text at a path of names, or None."""
    found = get(value, *names)
    return found if isinstance(found, str) else None


def _count(fields: Mapping[str, Any], name: str) -> int:
    found = fields.get(name)
    return found if type(found) is int else int(found) if isinstance(found, float) else 0


def _word(fields: Mapping[str, Any], name: str) -> str | None:
    found = fields.get(name)
    return found if isinstance(found, str) else None


def of_openai_chat(response: Any) -> Usage | None:
    """Chat completions, completions and embeddings, of OpenAI and all that speak like it."""
    answer = held(response)
    told = answer.get("usage") or get(response, "usage")
    if told is None:
        return None
    usage = held(told)
    prompt = _count(usage, "prompt_tokens")
    details = held(usage.get("prompt_tokens_details"))
    return Usage(
        _word(answer, "id"),
        _word(answer, "model"),
        prompt,
        # Some that speak like OpenAI leave reasoning out of completion_tokens; the total has it in any case.
        max(_count(usage, "completion_tokens"), _count(usage, "total_tokens") - prompt),
        _count(details, "cached_tokens") or _count(usage, "prompt_cache_hit_tokens"),
        _count(details, "cache_write_tokens"),
        service_tier=_TIERS.get(_word(answer, "service_tier") or ""),
    )


def of_openai_responses(response: Any) -> Usage | None:
    """The Responses API."""
    answer = held(response)
    told = answer.get("usage") or get(response, "usage")
    if told is None:
        return None
    usage = held(told)
    details = held(usage.get("input_tokens_details"))
    return Usage(
        _word(answer, "id"),
        _word(answer, "model"),
        _count(usage, "input_tokens"),
        _count(usage, "output_tokens"),
        _count(details, "cached_tokens"),
        _count(details, "cache_write_tokens"),
        service_tier=_TIERS.get(_word(answer, "service_tier") or ""),
        web_searches=sum(1 for item in _items(answer.get("output")) if _is_search(item)),
    )


def _is_search(item: Any) -> bool:
    return get(item, "type") == "web_search_call" and get(item, "action", "type") in (None, "search")


def _items(value: Any) -> Iterable[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else ()


def of_anthropic(message: Any) -> Usage | None:
    """Messages, whose three input counts exclude each other."""
    answer = held(message)
    told = answer.get("usage") or get(message, "usage")
    if told is None:
        return None
    usage = held(told)
    read, write = _count(usage, "cache_read_input_tokens"), _count(usage, "cache_creation_input_tokens")
    model = _word(answer, "model")
    return Usage(
        _word(answer, "id"),
        f"{model}-fast" if model and usage.get("speed") == "fast" else model,
        _count(usage, "input_tokens") + read + write,
        _count(usage, "output_tokens"),
        read,
        write,
        _count(held(usage.get("cache_creation")), "ephemeral_1h_input_tokens"),
        _TIERS.get(_word(usage, "service_tier") or ""),
        _count(held(usage.get("server_tool_use")), "web_search_requests"),
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
