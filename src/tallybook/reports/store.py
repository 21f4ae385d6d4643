"""Asks the book. Reads only; with composition.py and queries.sql the only SQL of reports."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from datetime import datetime
from typing import Any

from tallybook.core import clock, cursors, errors
from tallybook.core.tenant import Tenant
from tallybook.reports import composition, rules
from tallybook.reports.composition import Composed, Source
from tallybook.reports.model import Answer, BilledLine, Column, Question, RawRow
from tallybook.storage import queries
from tallybook.storage.postgres import Connection

_SQL = queries.load(__package__)
_ROWS_AT_ONCE = 5_000
_OF_EVENTS = frozenset({rules.UNIT_PRICE})
_OF_MODELS = frozenset({"model", "provider"})
_BY_PLAN_MODEL = frozenset({"usage", "top-customers"})


async def feature_ids(connection: Connection, tenant: Tenant, code: str) -> tuple[int, ...]:
    """All features of the tenant that ever had this code."""
    return tuple(row["id"] for row in await connection.fetch(_SQL["features_of_code"], tenant.id, code))


async def has_usage(connection: Connection, tenant: Tenant) -> bool:
    """Whether the tenant has any usage at all."""
    return await connection.fetchval(_SQL["has_usage"], tenant.id)


async def answer(connection: Connection, question: Question, cursor: str | None, limit: int) -> Answer:
    """One page of a report and the totals of all of it. Raises ValidationError for a cursor of another question."""
    where = await source(connection, question)
    composed = composition.compose(question, where, _SQL)
    skipped = 0 if cursor is None or question.ranked_by is None else cursors.decode(cursor)
    after = () if cursor is None or question.ranked_by is not None else rules.decode_cursor(composed.keys, cursor)
    statement = composition.page(composed, _SQL, after, limit + 1, question.ranked_by, skipped)
    found = [dict(row.items()) for row in await connection.fetch(statement, *composed.arguments.values)]
    if where is Source.EVENTS:  # a month may have gone since it was looked
        await check_whole(connection, question.tenant, question.starts_at)
    rows = [rules.as_integers(row) for row in found if not row["is_total"]]
    [totals] = [rules.as_integers(row) for row in found if row["is_total"]]
    next_cursor = None
    if len(rows) > limit:
        rows = rows[:limit]
        by_rank = question.ranked_by is not None
        next_cursor = cursors.encode(skipped + limit) if by_rank else rules.encode_cursor(composed.keys, rows[-1])
    return Answer(composed.keys, composed.measures, rows, totals, next_cursor)


@contextlib.asynccontextmanager
async def stream(
    connection: Connection, question: Question
) -> AsyncGenerator[tuple[tuple[Column, ...], AsyncIterator[list[RawRow]]]]:
    """The columns of a report and all of its rows, some thousand at a time. Wants a snapshot, which it reads from to its end."""
    composed = composition.compose(question, await source(connection, question), _SQL)
    statement = composition.every_row(composed, _SQL, question.ranked_by)
    yield (*composed.keys, *composed.measures), chunks(connection, statement, composed)


async def chunks(connection: Connection, statement: str, composed: Composed) -> AsyncIterator[list[RawRow]]:
    """The rows of a statement, read through a cursor."""
    chunk: list[RawRow] = []
    async for row in connection.cursor(statement, *composed.arguments.values, prefetch=_ROWS_AT_ONCE):
        chunk.append(rules.as_integers(dict(row.items())))
        if len(chunk) == _ROWS_AT_ONCE:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


async def billed_line(connection: Connection, tenant: Tenant, invoice_id: str, position: int) -> BilledLine | None:
    """A line of one of the tenant's invoices, with the pool it bills."""
    row = await connection.fetchrow(_SQL["billed_line"], tenant.id, invoice_id, position)
    if row is None:
        return None
    columns: dict[str, Any] = dict(rules.as_integers(dict(row.items())))
    return BilledLine(**columns)


async def source(connection: Connection, question: Question) -> Source:
    """Where the answer is: in the hourly totals wherever they are exact, else in the raw events.

    Raises ValidationError when the answer is in raw events that were dropped.
    """
    found = await _source(connection, question)
    if found is Source.EVENTS:
        await check_whole(connection, question.tenant, question.starts_at)
    return found


async def check_whole(connection: Connection, tenant: Tenant, starts_at: datetime | None) -> None:
    """Raise ValidationError when raw events that occurred since then (None: ever) were dropped."""
    since = await connection.fetchval(_SQL["raw_usage_start"], tenant.id)
    if since is not None and (starts_at is None or starts_at < since):
        message = f"This is answered from single events, and those that occurred before {clock.iso(since)} were dropped; ask from then on."
        raise errors.invalid("from", message, code="raw_events_dropped")


async def _source(connection: Connection, question: Question) -> Source:
    if question.report == "revenue":
        return Source.INVOICES
    words, filters = set(question.group_by), question.filters
    about_property = filters.property is not None or any(word.startswith(rules.PROPERTY) for word in words)
    if about_property or words & _OF_EVENTS or not rules.fits_hours(question):
        return Source.EVENTS
    about_model = bool(words & _OF_MODELS) or filters.model is not None or filters.provider is not None
    about_plan = (
        question.report in _BY_PLAN_MODEL or "planCode" in words or filters.plan_code is not None or filters.pool is not None
    )
    if about_model and await connection.fetchval(_SQL["has_shared_prices"], question.tenant.id):
        return Source.EVENTS
    return Source.EVENTS if about_plan and await _shares_periods(connection, question.tenant) else Source.HOURS


async def _shares_periods(connection: Connection, tenant: Tenant) -> bool:
    """Whether a subscription that has usage began and ended within one second, so that hours don't say whose it is."""
    found = await connection.fetch(_SQL["instant_subscriptions"], tenant.id)
    if not found:
        return False
    columns = [[row[name] for row in found] for name in ("customer_id", "starts_at")]
    return await connection.fetchval(_SQL["was_used_in"], tenant.id, *columns)
