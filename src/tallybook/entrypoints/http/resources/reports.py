"""Reports over what the book holds: usage, AI costs, revenue, margin, the largest customers, and where a period is heading."""

import dataclasses
from typing import Annotated, Any

import msgspec

from tallybook.core import clock, errors
from tallybook.entrypoints.http.resources import reports_wire as wire
from tallybook.entrypoints.http.routing import Call, Operation
from tallybook.reports import forecast as forecasts
from tallybook.reports import rules, store
from tallybook.reports.forecast import RANKINGS
from tallybook.reports.model import Column, RawRow

_UTC = "UTC"


class ForecastQuery(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Whose running periods."""

    customer_id: Annotated[wire.Text, msgspec.Meta(description="`cus_…` or your own id")] | None = None
    plan_code: wire.Text | None = None
    cursor: Annotated[str, msgspec.Meta(max_length=rules.CURSOR_CHARACTERS_MAX)] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=wire.LIMIT_MAX, description="rows of a page")] = 100


class Forecast(msgspec.Struct, rename="camel", kw_only=True):
    """One row a pool of a running billing period: what was used, and what it comes to if it goes on as so far.

    Amounts are exact decimal text: US dollars for a balance, credits, or units of the feature. `projectedCharge` is what the next
    invoice would ask for it, in US dollars.
    """

    object: str = "report"
    report: str = "forecast"
    at: str
    data: list[dict[str, Any]]
    totals: dict[str, Any]
    has_more: bool
    next_cursor: str | None


async def usage(call: Call) -> wire.Report:
    """GET /reports/usage."""
    return await _answer(call, "usage", "featureCode")


async def ai_costs(call: Call) -> wire.Report:
    """GET /reports/ai-costs."""
    return await _answer(call, "ai-costs", "model")


async def margin(call: Call) -> wire.Report:
    """GET /reports/margin."""
    return await _answer(call, "margin", "customerId")


async def revenue(call: Call) -> wire.Report:
    """GET /reports/revenue."""
    return await _answer(call, "revenue", "planCode,featureCode,lineType")


async def _answer(call: Call, report: Any, default_words: str) -> wire.Report:  # noqa: ANN401 - a literal of ReportName
    words = default_words if call.query.group_by is None else call.query.group_by
    asked = await wire.question(call, report, words, call.query)
    return wire.report(asked, await store.answer(call.connection, asked, call.query.cursor, call.query.limit))


async def top_customers(call: Call) -> wire.Report:
    """GET /reports/top-customers."""
    query: wire.TopQuery = call.query
    if query.by not in RANKINGS:
        raise errors.invalid("by", f"by is {query.by!r}; one of {', '.join(RANKINGS)}.")
    asked = await wire.question(call, "top-customers", "customerId", query)
    asked = dataclasses.replace(asked, report="revenue" if query.by == "revenue" else "top-customers", ranked_by=query.by)
    answer = await store.answer(call.connection, asked, query.cursor, query.limit)
    return wire.report(dataclasses.replace(asked, report="top-customers"), answer)


async def forecast(call: Call) -> Forecast:
    """GET /reports/forecast."""
    query: ForecastQuery = call.query
    customer_id = None if query.customer_id is None else await wire.customer_id(call, query.customer_id)
    async with call.connection.transaction(isolation="repeatable_read", readonly=True):
        rows = await forecasts.running(call.connection, call.tenant, call.now, customer_id, query.plan_code)
    page, next_cursor = forecasts.page(rows, query.cursor, query.limit)
    return Forecast(
        at=clock.iso(call.now),
        data=[_shown(forecasts.COLUMNS, row) for row in page],
        totals=_shown(forecasts.SUMMED, forecasts.totals(rows)),
        has_more=next_cursor is not None,
        next_cursor=next_cursor,
    )


def _shown(columns: tuple[Column, ...], row: RawRow) -> dict[str, Any]:
    return {column.name: rules.shown(column, row[column.key], rules.zone(_UTC)) for column in columns}


OPERATIONS = (
    Operation(
        method="GET",
        path="/reports/usage",
        id="report-usage",
        summary="Sum usage by customer, feature, model, provider, plan, property or time.",
        permission="usage",
        handler=usage,
        query=wire.UsageQuery,
        returns=wire.Report,
    ),
    Operation(
        method="GET",
        path="/reports/ai-costs",
        id="report-ai-costs",
        summary="Show what AI models cost: tokens by kind, cost, margin and charge; by unit price with groupBy=model,unitPrice.",
        permission="usage",
        handler=ai_costs,
        query=wire.UsageQuery,
        returns=wire.Report,
    ),
    Operation(
        method="GET",
        path="/reports/revenue",
        id="report-revenue",
        summary="Sum what was invoiced by plan, feature, customer, kind of line or time of billing.",
        permission="invoice",
        handler=revenue,
        query=wire.RevenueQuery,
        returns=wire.Report,
    ),
    Operation(
        method="GET",
        path="/reports/margin",
        id="report-margin",
        summary="Compare what AI usage was charged with what it cost.",
        permission="usage",
        handler=margin,
        query=wire.UsageQuery,
        returns=wire.Report,
    ),
    Operation(
        method="GET",
        path="/reports/top-customers",
        id="report-top-customers",
        summary="Rank customers by what they were charged, used, cost or were invoiced.",
        permission="invoice",
        handler=top_customers,
        query=wire.TopQuery,
        returns=wire.Report,
    ),
    Operation(
        method="GET",
        path="/reports/forecast",
        id="report-forecast",
        summary="Project each running billing period to its end by its run rate; its first day counts as a whole one.",
        permission="usage",
        handler=forecast,
        query=ForecastQuery,
        returns=Forecast,
    ),
)
