"""AI models: the catalog with its prices and their history, and what a request would cost."""

from typing import Annotated, Literal

import msgspec

from tallybook.ai_models import actions, decimals, price_codec
from tallybook.ai_models.price_codec import PriceUsd
from tallybook.ai_models.store import NUMBER_MAX, StoredModel, StoredPrice
from tallybook.core import clock, cursors, errors, money
from tallybook.entrypoints.http import moments
from tallybook.entrypoints.http.routing import Call, ListQuery, Operation, Page
from tallybook.flows import current_book
from tallybook.pricing import cost
from tallybook.pricing.cost import Priced
from tallybook.pricing.model_ids import TEXT_MAX

TOKENS_MAX = 10**9
WEB_SEARCHES_MAX = 10**6
MARGIN_MAX = 100_000

_Tokens = Annotated[int, msgspec.Meta(ge=0, le=TOKENS_MAX)]


class ModelQuery(ListQuery, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Which models: `search` looks into ids and names, `includeRemoved` shows tombstones too."""

    search: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None
    provider: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] | None = None
    include_removed: bool = False


class AiModel(msgspec.Struct, rename="camel", kw_only=True):
    """A model. `price` is in USD, exact, tokens by the million; null means that it is known and has no token price."""

    object: str = "ai_model"
    id: str
    provider: str
    name: str
    type: str
    context_window: int | None
    output_max: int | None
    other_units: list[str]
    price: PriceUsd | None
    deprecated_at: str | None
    removed_at: str | None
    created_at: str


class DatedPrice(msgspec.Struct, rename="camel", kw_only=True):
    """A price and when it came into force. The first of a model also prices what happened before."""

    price_id: int
    effective_from: str
    price: PriceUsd


class AiModelHistory(AiModel, rename="camel", kw_only=True):
    """A model with all its prices, newest first."""

    prices: list[DatedPrice]


class CreateQuote(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """One request to price, in the words of a usage event. `margin` is in whole percent."""

    model: Annotated[str, msgspec.Meta(min_length=1, max_length=TEXT_MAX)]
    input_tokens: _Tokens
    output_tokens: _Tokens
    cache_read_tokens: _Tokens = 0
    cache_write_tokens: _Tokens = 0
    cache_write_1h_tokens: _Tokens = msgspec.field(default=0, name="cacheWrite1hTokens")
    web_search_requests: Annotated[int, msgspec.Meta(ge=0, le=WEB_SEARCHES_MAX)] = 0
    service_tier: Literal["batch", "flex", "priority", "standard", "default"] | None = None
    input_tokens_include_cache: bool = True
    margin: Annotated[int, msgspec.Meta(ge=0, le=MARGIN_MAX)] = 0
    timestamp: Annotated[str, msgspec.Meta(max_length=moments.CHARACTERS_MAX, description="as of when")] | None = None


class UnitPrices(msgspec.Struct, rename="camel", kw_only=True):
    """What each kind of token was charged at, USD per million, and a web search, USD per 1,000 calls; exact."""

    input: str
    output: str
    cache_read: str
    cache_write: str
    cache_write_1h: str = msgspec.field(name="cacheWrite1h")
    web_search_per_thousand: str


class Quote(msgspec.Struct, rename="camel", kw_only=True):
    """What a request costs. `cost`, `marginAmount` and `charge` are in rate scale (10000 = $1.00); the `…Usd` texts are exact."""

    object: str = "ai_model_quote"
    model: str
    matched_by: str
    price_id: int
    catalog_version: int
    input_tokens: int
    unit_prices: UnitPrices
    margin: int
    cost: float
    margin_amount: float
    charge: float
    cost_usd: str
    charge_usd: str


async def list_all(call: Call) -> Page:
    """The catalog's models, the latest additions first."""
    query: ModelQuery = call.query
    before = NUMBER_MAX if query.cursor is None else cursors.decode(query.cursor)
    models = await actions.list_models(
        call.connection,
        before=before,
        limit=query.limit + 1,
        search=query.search,
        provider=query.provider,
        removed=query.include_removed,
    )
    page, next_cursor = cursors.cut(models, query.limit, lambda each: each.number)
    return Page([_shown(each) for each in page], next_cursor)


async def get(call: Call) -> AiModelHistory:
    """One model with its price history, by any spelling that a usage event may use."""
    await current_book.refresh(call.services)
    model_id = call.services.book.resolve(call.tenant.id, call.path["id"], clock.to_ms(call.now)).model_id
    found = await actions.find_model(call.connection, model_id)
    if found is None:
        message = f"{model_id} is a model of your own; the catalog has no history of it."
        raise errors.NotFound("model_not_found", message, param="id", details={"nearest": []})
    model, prices = found
    return AiModelHistory(**msgspec.structs.asdict(_shown(model)), prices=[_dated(each) for each in prices])


async def quote(call: Call) -> Quote:
    """Price a request as a usage event of this organization would be priced."""
    body: CreateQuote = call.body
    at_ms = clock.to_ms(call.now if body.timestamp is None else moments.parse("timestamp", body.timestamp))
    await current_book.refresh(call.services)
    book = call.services.book
    resolved = book.resolve(call.tenant.id, body.model, at_ms)
    row = resolved.entry.row_at(at_ms)
    usage = cost.TokenUsage(
        body.input_tokens,
        body.output_tokens,
        body.cache_read_tokens,
        body.cache_write_tokens,
        body.cache_write_1h_tokens,
        body.web_search_requests,
        body.service_tier,
        body.input_tokens_include_cache,
    )
    priced = cost.price(row, usage, body.margin * (money.BPS // 100))
    return Quote(
        model=resolved.model_id,
        matched_by=resolved.matched_by.value,
        price_id=row.id,
        catalog_version=book.version,
        input_tokens=priced.input_tokens,
        unit_prices=_unit_prices(priced),
        margin=body.margin,
        cost=money.rate(priced.cost_nano),
        margin_amount=money.rate(priced.charge_nano - priced.cost_nano),
        charge=money.rate(priced.charge_nano),
        cost_usd=decimals.usd(priced.cost_nano),
        charge_usd=decimals.usd(priced.charge_nano),
    )


def _shown(stored: StoredModel) -> AiModel:
    model = stored.model
    return AiModel(
        id=model.id,
        provider=model.provider,
        name=model.name,
        type=model.type,
        context_window=model.context_window,
        output_max=model.output_max,
        other_units=list(model.other_units),
        price=None if model.price is None else price_codec.write(model.price),
        deprecated_at=None if model.deprecated_at is None else clock.iso(model.deprecated_at),
        removed_at=None if stored.removed_at is None else clock.iso(stored.removed_at),
        created_at=clock.iso(stored.added_at),
    )


def _dated(stored: StoredPrice) -> DatedPrice:
    return DatedPrice(price_id=stored.id, effective_from=clock.iso(stored.effective_from), price=price_codec.write(stored.price))


def _unit_prices(priced: Priced) -> UnitPrices:
    return UnitPrices(
        input=decimals.usd_per_million(priced.input_pico),
        output=decimals.usd_per_million(priced.output_pico),
        cache_read=decimals.usd_per_million(priced.cache_read_pico),
        cache_write=decimals.usd_per_million(priced.cache_write_pico),
        cache_write_1h=decimals.usd_per_million(priced.cache_write_1h_pico),
        web_search_per_thousand=decimals.usd_per_thousand(priced.web_search_pico),
    )


OPERATIONS = (
    Operation(
        method="GET",
        path="/ai-models",
        id="list-ai-models",
        summary="List the AI models of the catalog with their prices, the latest additions first.",
        permission="ai_model",
        handler=list_all,
        query=ModelQuery,
        returns=AiModel,
        is_list=True,
    ),
    Operation(
        method="GET",
        path="/ai-models/{id:.+}",
        id="get-ai-model",
        summary="Show one AI model with the history of its prices, by any spelling that events may use.",
        permission="ai_model",
        handler=get,
        returns=AiModelHistory,
    ),
    Operation(
        method="POST",
        path="/ai-models/quote",
        id="quote-ai-model",
        summary="Say what a request to an AI model costs, and how its model was matched; nothing is recorded.",
        permission="ai_model",
        handler=quote,
        body=CreateQuote,
        returns=Quote,
        reads=True,
        example={
            "model": "anthropic/claude-sonnet-4.6",
            "inputTokens": 10_000,
            "outputTokens": 2_000,
            "cacheReadTokens": 7_000,
            "cacheWriteTokens": 1_000,
            "margin": 20,
        },
    ),
)
