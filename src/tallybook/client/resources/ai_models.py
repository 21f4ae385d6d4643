"""AI models and what they cost."""

from datetime import datetime
from typing import Literal

from tallybook.client.decoding import reader
from tallybook.client.models import ListOf
from tallybook.client.models_usage import AiModel, Quote
from tallybook.client.requests import Mode, Request, Resource, operation, present, query
from tallybook.client.resources.pages import page


def get(model: str) -> Request[AiModel]:
    """One model with all its prices, newest first."""
    return Request("GET", f"/ai-models/{model}", reader(AiModel))


def list_(
    *,
    search: str | None = None,
    provider: str | None = None,
    include_removed: bool | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> Request[ListOf[AiModel]]:
    """Models and their prices now."""
    asked = query(search=search, provider=provider, include_removed=include_removed, limit=limit, cursor=cursor)
    return Request("GET", "/ai-models", page(AiModel), query=asked)


def quote(
    *,
    model: str,
    input_tokens: int,
    output_tokens: int,
    cache_read_tokens: int | None = None,
    cache_write_tokens: int | None = None,
    cache_write_1h_tokens: int | None = None,
    web_search_requests: int | None = None,
    service_tier: Literal["batch", "flex", "priority", "standard", "default"] | None = None,
    input_tokens_include_cache: bool | None = None,
    margin: int | None = None,
    timestamp: datetime | str | None = None,
) -> Request[Quote]:
    """What a request would cost, exactly, with a margin in whole percent."""
    body = present(
        model=model,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cache_read_tokens=cache_read_tokens,
        cache_write_tokens=cache_write_tokens,
        cache_write_1h_tokens=cache_write_1h_tokens,
        web_search_requests=web_search_requests,
        service_tier=service_tier,
        input_tokens_include_cache=input_tokens_include_cache,
        margin=margin,
        timestamp=timestamp,
    )
    return Request("POST", "/ai-models/quote", reader(Quote), body)


class AiModels(Resource[Mode]):
    """`tallybook.ai_models`."""

    get = operation(get)
    list = operation(list_)
    quote = operation(quote)
