"""From a figure to what is behind it: a line of an invoice, its hours, and the single records of the log."""

from datetime import timedelta
from typing import Annotated, Any

import msgspec

from tallybook.core import clock, errors, money, pools
from tallybook.entrypoints.http.resources import reports_wire as wire
from tallybook.entrypoints.http.routing import Call, Operation, Page
from tallybook.reports import event_rows, rules, store
from tallybook.reports.model import BilledLine, EventFilters, Filters, Question

_DAY = timedelta(days=1)
_RETENTION_MAX = 400 * _DAY
"""The oldest that an event can be when it is recorded."""
_PERIOD_MAX = 64 * _DAY
"""Longer than any usage period, and than a void may come after its event's period."""
_POSITION_DIGITS_MAX = 4


class EventsQuery(wire.UsageFilters, kw_only=True):
    """Which records. Without a customer and without `from`: those of the last day."""

    pool: Annotated[str, msgspec.Meta(max_length=200, description="one of the customer's pools; wants customerId")] | None = None
    kind: Annotated[str, msgspec.Meta(max_length=64, description="usage, void, adjustment, set, expiry; separated by commas")] = (
        "usage,void"
    )


class EventRow(msgspec.Struct, rename="camel", kw_only=True):
    """One record of the log. Amounts are exact decimal text: US dollars, credits or units; prices US dollars for a million tokens.

    `taken` is what its pool gave, in the pool's own unit; a void gives back, so it is negative.
    """

    object: str = "usage_event"
    id: str
    event_id: str | None
    kind: str
    occurred_at: str
    accepted_at: str
    period_start: str
    belongs_to: str | None
    customer_id: str
    external_id: str | None
    feature_code: str | None
    plan_code: str | None
    pool: str
    quantity: str
    taken: str
    charge: str
    credits: str
    cost: str
    margin: str
    model: str | None
    matched_by: str | None
    service_tier: str | None
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cache_write_1h_tokens: int = msgspec.field(name="cacheWrite1hTokens")
    web_searches: int
    input_price: str | None
    output_price: str | None
    cache_read_price: str | None
    cache_write_price: str | None
    cache_write_1h_price: str | None = msgspec.field(name="cacheWrite1hPrice")
    web_search_price: str | None
    applied_margin_percent: str | None
    catalog_version: int
    properties: dict[str, str] | None
    reason: str | None
    voids: str | None


class LineUsageQuery(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Which page of a line's hours, by the clocks of which time zone."""

    time_zone: Annotated[str, msgspec.Meta(max_length=64)] = "UTC"
    cursor: Annotated[str, msgspec.Meta(max_length=rules.CURSOR_CHARACTERS_MAX)] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=wire.LIMIT_MAX)] = 100


class LineUsage(msgspec.Struct, rename="camel", kw_only=True):
    """What a line of an invoice is made of. In the pool's unit: `used` = `counted` (the total of all hours) - corrections.

    Each hour can be opened with `GET /usage/events?customerId=…&pool=…&from=…&to=…`.
    """

    object: str = "invoice_line_usage"
    invoice_id: str
    position: int
    customer_id: str
    line_type: str
    description: str
    amount: int
    pool: str | None
    included: str | None
    used: str | None
    overage: str | None
    counted: str | None
    corrections: str | None
    data: list[dict[str, Any]]
    totals: dict[str, Any]
    has_more: bool
    next_cursor: str | None


async def list_events(call: Call) -> Page:
    """GET /usage/events."""
    query: EventsQuery = call.query
    if query.pool is not None and query.customer_id is None:
        raise errors.invalid("pool", "pool wants a customerId: it is one of the customer's pools.")
    starts_at, ends_at = wire.moment("from", query.from_, query.time_zone), wire.moment("to", query.to, query.time_zone)
    if query.customer_id is None and starts_at is None:
        starts_at = (ends_at or call.now) - _DAY
    filters = await wire.read_filters(call, query, query.pool)
    which = EventFilters(call.tenant, _kinds(query.kind), starts_at, ends_at, filters)
    rows, next_cursor = await event_rows.page(call.connection, which, query.cursor, min(query.limit, wire.LIMIT_MAX))
    return Page([_event(dict(row)) for row in rows], next_cursor)


def _kinds(text: str) -> tuple[int, ...]:
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if word not in event_rows.KINDS:
            raise errors.invalid("kind", f"kind has {word[:32]!r}; it knows {', '.join(event_rows.KINDS)}.")
    return tuple(int(event_rows.KINDS[word]) for word in words)


def _event(row: dict[str, Any]) -> EventRow:
    in_zone = rules.zone("UTC")
    shown: dict[str, Any] = {column.name: rules.shown(column, row[column.key], in_zone) for column in event_rows.COLUMNS}
    properties = shown["properties"]
    shown["properties"] = None if properties is None else msgspec.json.decode(properties)
    return msgspec.convert({"object": "usage_event", **shown}, EventRow)


async def line_usage(call: Call) -> LineUsage:
    """GET /invoices/{id}/lines/{position}/usage."""
    query: LineUsageQuery = call.query
    line = await _line(call)
    in_zone = rules.zone(query.time_zone)
    if line.pool is None:
        return LineUsage(**_head(line), data=[], totals={}, has_more=False, next_cursor=None)
    start = clock.from_ms(pools.parse(line.pool).period_start_s * 1000).replace(minute=0, second=0)
    asked = Question(
        call.tenant,
        "usage",
        start - _RETENTION_MAX,
        start + _PERIOD_MAX,
        in_zone.key,
        ("hour", "featureCode", "model"),
        Filters(customer_id=line.customer_id, pool=line.pool),
    )
    answer = await store.answer(call.connection, asked, query.cursor, query.limit)
    shown = wire.report(asked, answer)
    return LineUsage(**_head(line), data=shown.data, totals=shown.totals, has_more=shown.has_more, next_cursor=shown.next_cursor)


async def _line(call: Call) -> BilledLine:
    text = call.path["position"]
    position = int(text) if text.isascii() and text.isdigit() and len(text) <= _POSITION_DIGITS_MAX else 0
    line = await store.billed_line(call.connection, call.tenant, call.path["id"], position)
    if line is None:
        raise errors.NotFound("invoice_not_found", f"There is no line {text[:32]} of an invoice {call.path['id']}.", param="id")
    return line


def _head(line: BilledLine) -> dict[str, Any]:
    amounts = {
        "included": line.included_nano,
        "used": line.used_nano,
        "overage": line.overage_nano,
        "counted": line.charged,
        "corrections": None if line.charged is None or line.used_nano is None else line.charged - line.used_nano,
    }
    return {
        "invoice_id": line.invoice_id,
        "position": line.position,
        "customer_id": line.customer_public_id,
        "line_type": line.line_type,
        "description": line.description,
        "amount": line.amount_cents,
        "pool": line.pool,
        **{name: None if nano is None else rules.exact(nano, _NANO_DIGITS) for name, nano in amounts.items()},
    }


_NANO_DIGITS = len(str(money.NANO)) - 1

OPERATIONS = (
    Operation(
        method="GET",
        path="/usage/events",
        id="list-usage-events",
        summary="List single records of the log, newest first: usage, what took it back, and corrections, with all prices.",
        permission="usage",
        handler=list_events,
        query=EventsQuery,
        returns=EventRow,
        is_list=True,
    ),
    Operation(
        method="GET",
        path="/invoices/{id}/lines/{position}/usage",
        id="get-invoice-line-usage",
        summary="Open a line of an invoice: the usage behind it, hour by hour.",
        permission="invoice",
        handler=line_usage,
        query=LineUsageQuery,
        returns=LineUsage,
    ),
)
