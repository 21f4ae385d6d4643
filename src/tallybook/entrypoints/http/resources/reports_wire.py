"""How reports are asked for and shown over HTTP."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Annotated, Any

import msgspec

from tallybook.core import clock, errors
from tallybook.customers import store as customers
from tallybook.entrypoints.http import moments
from tallybook.entrypoints.http.routing import Call
from tallybook.reports import rules, store
from tallybook.reports.model import Answer, Column, Filters, Question, RawRow, ReportName

LIMIT_MAX = 1000

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
Words = Annotated[str, msgspec.Meta(max_length=512, description="words separated by commas")]
Moment = Annotated[str, msgspec.Meta(max_length=moments.CHARACTERS_MAX)]


class TimeQuery(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """A stretch of time, and which page of its rows."""

    from_: (
        Annotated[
            Moment, msgspec.Meta(description="inclusive; a bare date is midnight in timeZone; first of this month when absent")
        ]
        | None
    ) = msgspec.field(name="from", default=None)
    to: Annotated[Moment, msgspec.Meta(description="exclusive; what was recorded so far when absent")] | None = None
    time_zone: Annotated[str, msgspec.Meta(max_length=64, description="an IANA name, such as Europe/Berlin")] = "UTC"
    cursor: Annotated[str, msgspec.Meta(max_length=rules.CURSOR_CHARACTERS_MAX)] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=LIMIT_MAX, description="rows of a page")] = 100
    customer_id: Annotated[Text, msgspec.Meta(description="`cus_…` or your own id")] | None = None
    feature_code: Text | None = None
    plan_code: Text | None = None


class RevenueQuery(TimeQuery, kw_only=True):
    """Which lines of invoices, and what they are summed by."""

    group_by: Words | None = None


class UsageFilters(TimeQuery, kw_only=True):
    """Which usage."""

    model: Annotated[Text, msgspec.Meta(description="the catalog's id of the model")] | None = None
    provider: Annotated[Text, msgspec.Meta(description="what stands before the slash of the model's id")] | None = None
    property: Annotated[str, msgspec.Meta(max_length=600, description="name:value")] | None = None
    period_start: Annotated[Moment, msgspec.Meta(description="only what this billing period pays")] | None = None


class UsageQuery(UsageFilters, kw_only=True):
    """Which usage, and what it is summed by."""

    group_by: Words | None = None


class TopQuery(UsageFilters, kw_only=True):
    """What customers are ranked by."""

    by: Annotated[str, msgspec.Meta(max_length=32)] = "charge"


class Report(msgspec.Struct, rename="camel", kw_only=True):
    """Rows of a report, and the totals of all of its rows on all pages.

    Money is US dollars, quantities are units, prices US dollars for a million tokens: exact decimal text. Counts are integers.
    """

    object: str = "report"
    report: str
    from_: str = msgspec.field(name="from")
    to: str
    time_zone: str
    group_by: list[str]
    data: list[dict[str, Any]]
    totals: dict[str, Any]
    has_more: bool
    next_cursor: str | None


async def question(call: Call, report: ReportName, words: str, query: TimeQuery) -> Question:
    """The question that a query asks. Raises NotFound for a customer or feature that is not there, and ValidationError."""
    in_zone = rules.zone(query.time_zone)
    ends_at = moment("to", query.to, query.time_zone) or rules.end_of_hour(call.now)
    first = datetime.date(ends_at.astimezone(in_zone) - timedelta(microseconds=1)).replace(day=1)
    starts_at = moment("from", query.from_, query.time_zone) or rules.local_midnight(first, in_zone)
    if starts_at >= ends_at:
        raise errors.invalid("from", f"from is {clock.iso(starts_at)}, not before to, {clock.iso(ends_at)}.")
    group_by = rules.group_words(report, words)
    filters = await read_filters(call, query)
    return Question(call.tenant, report, starts_at, ends_at, query.time_zone, group_by, filters)


def moment(field: str, text: str | None, time_zone: str) -> datetime | None:
    """A time of the query; a bare date is midnight in the time zone asked for."""
    if text is None:
        return None
    found = moments.parse(field, text)
    return rules.local_midnight(date.fromisoformat(text), rules.zone(time_zone)) if rules.is_date(text) else found


async def read_filters(call: Call, query: TimeQuery, pool: str | None = None) -> Filters:
    """The filters of a query, with the rows that its names stand for."""
    usage = query if isinstance(query, UsageFilters) else None
    has_property = usage is not None and usage.property is not None
    return Filters(
        customer_id=None if query.customer_id is None else await customer_id(call, query.customer_id),
        feature_ids=None if query.feature_code is None else await _feature_ids(call, query.feature_code),
        model=usage.model if usage else None,
        provider=usage.provider if usage else None,
        plan_code=query.plan_code,
        property=rules.property_filter(usage.property or "") if usage and has_property else None,
        period_start=moment("periodStart", usage.period_start, "UTC") if usage else None,
        pool=pool,
    )


async def customer_id(call: Call, reference: str) -> int:
    """The row of a customer. Raises NotFound."""
    customer = await customers.find(call.connection, call.tenant, reference)
    if customer is None:
        raise errors.NotFound("customer_not_found", f"There is no customer {reference}.", param="customerId")
    return customer.id


async def _feature_ids(call: Call, code: str) -> tuple[int, ...]:
    found = await store.feature_ids(call.connection, call.tenant, code)
    if not found:
        raise errors.NotFound("feature_not_found", f"There is no feature {code}.", param="featureCode")
    return found


def report(asked: Question, answer: Answer) -> Report:
    """An answer as the wire shows it."""
    return Report(
        report=asked.report,
        from_=clock.iso(asked.starts_at),
        to=clock.iso(asked.ends_at),
        time_zone=asked.zone,
        group_by=list(asked.group_by),
        data=[shown_row((*answer.keys, *answer.measures), row, asked) for row in answer.rows],
        totals=shown_row(answer.measures, answer.totals, asked),
        has_more=answer.next_cursor is not None,
        next_cursor=answer.next_cursor,
    )


def shown_row(columns: Sequence[Column], row: RawRow, asked: Question) -> dict[str, Any]:
    """A row by the names of the wire, with the shares that follow from it."""
    in_zone = rules.zone(asked.zone)
    every, whole = (*columns, *rules.share_columns(asked.report)), {**row, **rules.shares(asked.report, row)}
    return {column.name: rules.shown(column, whole[column.key], in_zone) for column in every}
