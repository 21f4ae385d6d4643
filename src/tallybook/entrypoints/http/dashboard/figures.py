"""What the dashboard shows, asked of the very functions that answer the reports of the API, all in one snapshot of the book."""

import asyncio
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from tallybook.core import clock, errors
from tallybook.entrypoints.http.resources import invoices as invoice_resource
from tallybook.entrypoints.http.resources import reports as report_resource
from tallybook.entrypoints.http.resources import reports_wire as wire
from tallybook.flows.services import Services
from tallybook.invoice import store as invoices
from tallybook.invoice.model import Invoice
from tallybook.reports import forecast, rules, store
from tallybook.reports.model import Grain, Question, ReportName
from tallybook.rollup import store as rollup
from tallybook.storage import redis
from tallybook.storage.postgres import Connection
from tallybook.tenancy import actions as tenancy
from tallybook.tenancy import rules as permissions
from tallybook.tenancy import store as organizations
from tallybook.tenancy.model import AuthenticatedKey

RANGES = {"24h": "24 hours", "7d": "7 days", "30d": "30 days", "month": "This month"}
RANKINGS = {"charge": "charge", "cost": "AI cost", "credits": "credits", "events": "events"}
TOP = 10
LOW_PERCENT = 20
_DAYS = {"7d": 7, "30d": 30}
_ROWS_AT_ONCE = 5_000
_LATEST_INVOICES = 8
_TILL_S_MAX = 2.0
_PERMISSIONS = {one.id: one.permission for one in (*report_resource.OPERATIONS, *invoice_resource.OPERATIONS)}


@dataclass(frozen=True, slots=True)
class Choice:
    """What was picked. `zone` is an IANA name."""

    range: str = "7d"
    zone: str = "UTC"
    by: str = "charge"


@dataclass(frozen=True, slots=True)
class Span:
    """[starts_at, ends_at), in stretches of a grain."""

    starts_at: datetime
    ends_at: datetime
    grain: Grain


@dataclass(frozen=True, slots=True)
class Figures:
    """Reports are those of the API. None: the key may not read them.

    `buckets` are all stretches of the span by their names in the reports; `costs` has all pages of AI costs by stretch and model.
    """

    organization: str
    livemode: bool
    now: datetime
    choice: Choice
    span: Span
    buckets: Sequence[tuple[str, datetime]]
    usage: wire.Report
    costs: wire.Report
    models: wire.Report
    customers: wire.Report | None
    low: Sequence[dict[str, Any]]
    latest: Sequence[Invoice] | None
    has_usage: bool
    waiting: int | None
    lag_s: float


def may(key: AuthenticatedKey, operation: str) -> bool:
    """Whether a key may call an operation of the API that reads."""
    return permissions.may(key.permissions, _PERMISSIONS[operation], write=False)


def choice(query: dict[str, str]) -> Choice:
    """What a query picks. Raises ValidationError for what there is not to pick."""
    picked = Choice(**{name: query[name] for name in ("range", "zone", "by") if query.get(name)})
    for name, known in (("range", RANGES), ("by", RANKINGS)):
        if getattr(picked, name) not in known:
            raise errors.invalid(name, f"{name} is {getattr(picked, name)[:32]!r}; one of {', '.join(known)}.")
    return dataclasses.replace(picked, zone=rules.zone(picked.zone).key)


def span(picked: Choice, now: datetime) -> Span:
    """The stretch of time: whole hours, or whole days by the clocks of the zone up to the coming midnight."""
    in_zone = rules.zone(picked.zone)
    if picked.range == "24h":
        ends_at = rules.end_of_hour(now)
        return Span(ends_at - timedelta(hours=24), ends_at, Grain.HOUR)
    today = now.astimezone(in_zone).date()
    first = today - timedelta(days=_DAYS[picked.range] - 1) if picked.range in _DAYS else today.replace(day=1)
    ends_at = rules.local_midnight(today + timedelta(days=1), in_zone)
    return Span(rules.local_midnight(first, in_zone), ends_at, Grain.DAY)


async def read(services: Services, connection: Connection, key: AuthenticatedKey, picked: Choice) -> Figures:
    """All figures. Wants a snapshot."""
    tenant = key.tenant
    now = await tenancy.clock_now(connection, tenant, services.clock())
    over = span(picked, now)
    in_zone = rules.zone(picked.zone)
    starts = rules.buckets(over.starts_at, over.ends_at, over.grain, in_zone)

    def asked(report: ReportName, *words: str, by: str | None = None) -> Question:
        return Question(tenant, report, over.starts_at, over.ends_at, picked.zone, words, ranked_by=by)

    usage = await _whole(connection, asked("usage", over.grain))
    return Figures(
        organization=await organizations.organization_name(connection, tenant),
        livemode=tenant.livemode,
        now=now,
        choice=picked,
        span=over,
        buckets=[(rules.bucket_name(start, over.grain, in_zone), start) for start in starts],
        usage=usage,
        costs=await _whole(connection, asked("ai-costs", over.grain, "model")),
        models=await _largest(connection, asked("ai-costs", "model", by="cost")),
        customers=await _largest(connection, asked("top-customers", "customerId", by=picked.by))
        if may(key, "report-top-customers")
        else None,
        low=await _low(connection, key, now),
        latest=await invoices.page(connection, tenant, None, None, None, None, _LATEST_INVOICES)
        if may(key, "list-invoices")
        else None,
        has_usage=usage.totals["events"] != 0 or await store.has_usage(connection, tenant),
        waiting=await _waiting(services, connection),
        lag_s=services.pressure.lag_s,
    )


async def _whole(connection: Connection, asked: Question) -> wire.Report:
    """A report with all of its rows."""
    answer = await store.answer(connection, asked, None, _ROWS_AT_ONCE)
    rows = list(answer.rows)
    while answer.next_cursor is not None:
        answer = await store.answer(connection, asked, answer.next_cursor, _ROWS_AT_ONCE)
        rows += answer.rows
    return wire.report(asked, dataclasses.replace(answer, rows=rows))


async def _largest(connection: Connection, asked: Question) -> wire.Report:
    """The first rows of a ranking."""
    return wire.report(asked, await store.answer(connection, asked, None, TOP))


async def _low(connection: Connection, key: AuthenticatedKey, now: datetime) -> Sequence[dict[str, Any]]:
    in_zone = rules.zone("UTC")
    rows = await forecast.running_low(connection, key.tenant, now, LOW_PERCENT, TOP)
    return [{column.name: rules.shown(column, row[column.key], in_zone) for column in forecast.LOW_COLUMNS} for row in rows]


async def _waiting(services: Services, connection: Connection) -> int | None:
    """Entries of the log that the book has not read, of the whole installation; None while the till does not say."""
    booked = await rollup.offsets(connection, range(services.settings.partitions))
    try:
        async with asyncio.timeout(_TILL_S_MAX):
            written = await services.till.sequences()
    except (TimeoutError, OSError, redis.RedisError, errors.Unavailable):
        return None
    return sum(max(0, seq - booked.get(partition, 0)) for partition, seq in enumerate(written))


def invoice_total(invoice: Invoice) -> str:
    """Exact US dollars."""
    return rules.exact(invoice.total_cents, 2)


def iso(moment: datetime) -> str:
    """The wire's form of a time."""
    return clock.iso(moment)
