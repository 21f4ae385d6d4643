"""How long the product's own reports take over a book of many events, and whether they say what the raw events say."""

import time
from collections.abc import Mapping, Sequence
from statistics import median
from typing import cast

import msgspec

from benchmarks import made_up
from benchmarks.installation import Installation
from benchmarks.made_up import Book
from tallybook.reports import store
from tallybook.reports.model import Answer, Filters, Question
from tallybook.storage.postgres import Connection

_REPEATS = 25
_ROWS_MAX = 10_000
_ALIKE_SHARE = 5
"""Of the events: how many are written once more for customers who are all alike, which makes the most hourly totals."""
_RAW_S_MAX = 600.0
_FROM_EVENTS = """
SELECT e.model AS model, {day} count(*) AS events, sum(e.cost_nano) AS cost, sum(e.amount) AS charge,
    sum(e.input_tokens) AS "inputTokens", sum(e.output_tokens) AS "outputTokens"
FROM usage_events AS e
WHERE e.tenant_id = $1 AND e.occurred_at >= $2 AND e.occurred_at < $3 AND ($4::bigint IS NULL OR e.customer_id = $4)
GROUP BY 1 {by_day}
"""
_MEASURES = ("events", "cost", "charge", "inputTokens", "outputTokens")
Rows = dict[tuple[object, ...], tuple[int, ...]]


class Timed(msgspec.Struct, frozen=True):
    """How long a report takes, median, quickest and slowest; and whether it agrees with the raw events."""

    rows: int
    ms: float
    min_ms: float
    max_ms: float
    agrees: bool


class ReportRun(msgspec.Struct, frozen=True):
    """What was in the book, and the reports over it by name."""

    events_in_book: int
    hourly_totals: int
    hourly_totals_alike: int
    reports: Mapping[str, Timed]

    @property
    def agrees(self) -> bool:
        """Whether every report says what the raw events say."""
        return all(report.agrees for report in self.reports.values())


async def measure(installation: Installation, events: int, say: made_up.Say) -> ReportRun:
    """Fill the book and ask. Leaves the events there: nothing reconciles afterwards."""
    database, tenant = installation.services.database, installation.account.tenant
    book = await made_up.fill(database, tenant, events, say)
    found: dict[str, Timed] = {}
    async with database.acquire() as connection:
        for name, question in _questions(book).items():
            say(f"{name}, and the same from the raw events")
            found[name] = await _timed(connection, question)
    alike = await made_up.fill(database, tenant, events // _ALIKE_SHARE, say, alike=True)
    async with database.acquire() as connection:
        found["all_by_model_alike"] = await _timed(connection, _questions(alike)["all_by_model"])
    return ReportRun(events, book.hours, alike.hours, found)


def _questions(book: Book) -> dict[str, Question]:
    span = (book.starts_at, book.ends_at)
    largest = Filters(customer_id=book.largest)
    return {
        "customer_month_by_model_and_day": Question(book.tenant, "ai-costs", *span, "UTC", ("model", "day"), largest),
        "all_by_model": Question(book.tenant, "ai-costs", *span, "UTC", ("model",)),
        "all_by_model_and_day": Question(book.tenant, "ai-costs", *span, "UTC", ("model", "day")),
    }


async def _timed(connection: Connection, question: Question) -> Timed:
    runs = [await _ask(connection, question) for _ in range(_REPEATS)]
    times, answer = [ms for ms, _ in runs], runs[-1][1]
    expected = await _from_events(connection, question)
    return Timed(len(answer.rows), median(times), min(times), max(times), _as_rows(answer, question.group_by) == expected)


async def _ask(connection: Connection, question: Question) -> tuple[float, Answer]:
    started = time.perf_counter()
    answer = await store.answer(connection, question, None, _ROWS_MAX)
    return (time.perf_counter() - started) * 1000, answer


def _as_rows(answer: Answer, words: Sequence[str]) -> Rows:
    return {tuple(row[word] for word in words): tuple(cast("int", row[name]) for name in _MEASURES) for row in answer.rows}


async def _from_events(connection: Connection, question: Question) -> Rows:
    """The same by a statement of its own, from the raw events."""
    by_day = "day" in question.group_by
    day = "date_trunc('day', e.occurred_at, 'UTC') AS day," if by_day else ""
    statement = _FROM_EVENTS.format(day=day, by_day=", 2" if by_day else "")
    asked = (question.tenant.id, question.starts_at, question.ends_at, question.filters.customer_id)
    rows = await connection.fetch(statement, *asked, timeout=_RAW_S_MAX)
    return {tuple(row[word] for word in question.group_by): tuple(int(row[name]) for name in _MEASURES) for row in rows}
