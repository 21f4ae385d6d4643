"""An organization's own words for models (aliases) and own prices (overrides). A catalog sync touches neither."""

from datetime import datetime
from typing import Annotated

import msgspec

from tallybook.ai_models import actions, price_codec, store
from tallybook.ai_models.decimals import UnreadablePriceError
from tallybook.ai_models.price_codec import PriceUsd
from tallybook.core import clock, cursors, errors
from tallybook.entrypoints.http import moments
from tallybook.entrypoints.http.routing import Call, ListQuery, Operation, Page
from tallybook.pricing import overrides
from tallybook.pricing.model_ids import TEXT_MAX
from tallybook.tenancy import actions as tenancy

_PATTERN_MAX = 128
_Moment = Annotated[str, msgspec.Meta(max_length=moments.CHARACTERS_MAX)]


class SetAlias(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """A word, and the model it means, written in any way that a usage event may."""

    alias: Annotated[str, msgspec.Meta(min_length=1, max_length=TEXT_MAX)]
    model: Annotated[str, msgspec.Meta(min_length=1, max_length=TEXT_MAX)]


class Alias(msgspec.Struct, rename="camel", kw_only=True):
    """A word of the organization for a model."""

    object: str = "ai_model_alias"
    alias: str
    model: str
    created_at: str


class SetOverride(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """A price for a model, for the models of a glob (`anthropic/*`), or for a model that only the organization has.

    `effectiveFrom` is now unless it is given; in the past it prices late events too, and `tallybook models rerate` applies it. The first
    price of a model that has no other prices late events of any time before it, unless it has an `effectiveFrom`. A service tier without
    bands beside a `standard` that has some prices short requests only.
    """

    model: Annotated[str, msgspec.Meta(min_length=1, max_length=_PATTERN_MAX)]
    price: PriceUsd
    effective_from: _Moment | None = None


class EndOverride(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """When a price ends: now unless it is given."""

    effective_to: _Moment | None = None


class OwnPrice(msgspec.Struct, rename="camel", kw_only=True):
    """A price of the organization. `effectiveTo` is null while it goes on."""

    object: str = "ai_model_override"
    id: str
    model: str
    price: PriceUsd
    effective_from: str
    effective_to: str | None


async def set_alias(call: Call) -> Alias:
    """Let a word mean a model; a word that means one already changes."""
    body: SetAlias = call.body
    await actions.set_alias(call.connection, call.tenant, body.alias, body.model, call.real_now)
    await tenancy.bump_tenant_terms(call.connection, call.tenant)
    made = await actions.find_alias(call.connection, call.tenant, body.alias)
    assert made is not None
    return _alias(made)


async def list_aliases(call: Call) -> Page:
    """The organization's words, newest first."""
    query: ListQuery = call.query
    found = await actions.list_aliases(call.connection, call.tenant, before=_before(query), limit=query.limit + 1)
    page, next_cursor = cursors.cut(found, query.limit, lambda each: each.id)
    return Page([_alias(each) for each in page], next_cursor)


async def remove_alias(call: Call) -> None:
    """Forget a word."""
    await actions.remove_alias(call.connection, call.tenant, call.path["alias"], call.real_now)
    await tenancy.bump_tenant_terms(call.connection, call.tenant)


async def set_override(call: Call) -> OwnPrice:
    """Set a price; one under the same pattern ends where this one begins."""
    body: SetOverride = call.body
    try:
        price = price_codec.read(body.price)
    except UnreadablePriceError as error:
        raise errors.invalid("price", str(error)) from error
    begins = _moment("effectiveFrom", body.effective_from)
    made = await actions.set_override(call.connection, call.tenant, body.model, price, call.real_now, begins, tenant_now=call.now)
    await tenancy.bump_tenant_terms(call.connection, call.tenant)
    return _own_price(made)


async def list_overrides(call: Call) -> Page:
    """The organization's prices, newest first, ended ones too."""
    query: ListQuery = call.query
    found = await actions.list_overrides(call.connection, call.tenant, before=_before(query), limit=query.limit + 1)
    page, next_cursor = cursors.cut(found, query.limit, lambda each: each.id)
    return Page([_own_price(each) for each in page], next_cursor)


async def end_override(call: Call) -> OwnPrice:
    """End a price; it can be ended once."""
    body: EndOverride = call.body
    at = _moment("effectiveTo", body.effective_to)
    ended = await actions.end_override(call.connection, call.tenant, _id(call.path["id"]), call.real_now, at, tenant_now=call.now)
    await tenancy.bump_tenant_terms(call.connection, call.tenant)
    return _own_price(ended)


def _before(query: ListQuery) -> int:
    return store.NUMBER_MAX if query.cursor is None else cursors.decode(query.cursor)


def _moment(field: str, text: str | None) -> datetime | None:
    return None if text is None else moments.parse(field, text)


def _id(text: str) -> int:
    """The number in a path; a text that is none is no price's id."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < len(str(store.NUMBER_MAX)) else 0


def _alias(each: store.StoredAlias) -> Alias:
    return Alias(alias=each.alias, model=each.model_id, created_at=clock.iso(each.created_at))


def _own_price(each: overrides.Override) -> OwnPrice:
    ends = each.effective_to_ms
    return OwnPrice(
        id=str(each.id),
        model=each.pattern,
        price=price_codec.write(each.price),
        effective_from=clock.iso(clock.from_ms(each.effective_from_ms)),
        effective_to=None if ends is None else clock.iso(clock.from_ms(ends)),
    )


_EXAMPLE_PRICE = {"standard": [{"input": "2.4", "output": "12", "cacheRead": "0.24", "cacheWrite": "3"}]}

OPERATIONS = (
    Operation(
        method="POST",
        path="/ai-models/aliases",
        id="set-ai-model-alias",
        summary="Let a word of your own mean an AI model in usage events, at once.",
        permission="ai_model",
        handler=set_alias,
        body=SetAlias,
        returns=Alias,
        example={"alias": "our-best", "model": "anthropic/claude-opus-4.8"},
    ),
    Operation(
        method="GET",
        path="/ai-models/aliases",
        id="list-ai-model-aliases",
        summary="List your own words for AI models, newest first.",
        permission="ai_model",
        handler=list_aliases,
        query=ListQuery,
        returns=Alias,
        is_list=True,
    ),
    Operation(
        method="DELETE",
        path="/ai-models/aliases/{alias:.+}",
        id="remove-ai-model-alias",
        summary="Forget a word of your own for an AI model.",
        permission="ai_model",
        handler=remove_alias,
    ),
    Operation(
        method="POST",
        path="/ai-models/overrides",
        id="set-ai-model-override",
        summary="Set your own price for an AI model, for those of a glob, or for a model that only you have.",
        permission="ai_model",
        handler=set_override,
        body=SetOverride,
        returns=OwnPrice,
        example={"model": "anthropic/claude-sonnet-*", "price": _EXAMPLE_PRICE},
    ),
    Operation(
        method="GET",
        path="/ai-models/overrides",
        id="list-ai-model-overrides",
        summary="List your own prices for AI models, newest first, ended ones too.",
        permission="ai_model",
        handler=list_overrides,
        query=ListQuery,
        returns=OwnPrice,
        is_list=True,
    ),
    Operation(
        method="POST",
        path="/ai-models/overrides/{id}/end",
        id="end-ai-model-override",
        summary="End a price of your own; later usage is priced by the catalog again.",
        permission="ai_model",
        handler=end_override,
        body=EndOverride,
        returns=OwnPrice,
        example={},
    ),
)
