"""`tallybook report`: the figures of one organization and mode, as a table or a file; the month's close; a customer's statement."""

import argparse
import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TypeVar, cast

from tallybook import settings
from tallybook.cli import dates, keys, report_close, report_statement, report_table
from tallybook.core import clock, errors
from tallybook.core.tenant import Tenant
from tallybook.customers import store as customers
from tallybook.reports import event_rows, export, forecast, rules, store
from tallybook.reports.export import Format, Writer
from tallybook.reports.model import Column, EventFilters, Filters, Question, RawRow, ReportName
from tallybook.rollup import retention
from tallybook.settings import SettingsError
from tallybook.storage import postgres
from tallybook.storage.postgres import Connection
from tallybook.tenancy import actions as tenancy

_WORDS = {
    "usage": "featureCode",
    "ai-costs": "model",
    "margin": "customerId",
    "revenue": "planCode,featureCode,lineType",
    "top-customers": "customerId",
}
"""What each report is grouped by unless told otherwise."""
_ABOUT = {
    "usage": "usage by feature, customer, model, plan, property or time",
    "ai-costs": "tokens, cost, margin and charge by AI model",
    "margin": "what AI usage was charged, and what it cost",
    "revenue": "what was invoiced",
    "top-customers": "the largest customers",
    "forecast": "where running periods are heading",
    "events": "single events, with every price",
}
_SUFFIXES: dict[str, Format] = {".csv": "csv", ".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl"}
Chunks = AsyncIterator[Sequence[RawRow]]
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Output:
    """Where rows go: a table on the terminal, or a format, to a file or to stdout."""

    form: Format | None
    path: Path | None


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands."""
    reports = parser.add_subparsers(dest="report", required=True, metavar="REPORT")
    for name, about in _ABOUT.items():
        one = reports.add_parser(name, help=about)
        keys.add_tenant(one)
        _add_filters(one, name)
        one.add_argument("--format", choices=("table", *export.FORMATS), help="default: by the file's name, or a table")
        one.add_argument("--output", type=Path, metavar="FILE", help="write a file")
    report_close.configure(reports.add_parser("close", help="write a month's books into a folder"))
    report_statement.configure(reports.add_parser("statement", help="write an invoice as HTML or PDF"))


def _add_filters(parser: argparse.ArgumentParser, report: str) -> None:
    parser.add_argument("--customer", help="cus_… or the caller's own id")
    parser.add_argument("--plan", help="a plan's code")
    if report == "forecast":
        return
    parser.add_argument("--from", dest="from_", metavar="DATE", help="inclusive; default: the first of this month")
    parser.add_argument("--to", metavar="DATE", help="exclusive; default: now")
    parser.add_argument("--time-zone", default="UTC", help="whose days, weeks and months (default UTC)")
    parser.add_argument("--feature", help="a feature's code")
    if report != "events":
        parser.add_argument("--group-by", help=f"words separated by commas (default {_WORDS[report]})")
    if report == "top-customers":
        parser.add_argument("--by", choices=forecast.RANKINGS, default="charge", help="what they are ranked by")
    if report != "revenue":
        parser.add_argument("--model", help="a model's id")
        parser.add_argument("--provider", help="what stands before the slash of a model's id")
        parser.add_argument("--property", metavar="NAME:VALUE")


def run(arguments: argparse.Namespace) -> int:
    """Write what was asked for. Raises TallybookError for what is not there."""
    if arguments.report == "close":
        return report_close.run(arguments)
    output = _output(arguments)
    url = settings.from_environment(os.environ).postgres_url
    if not url:
        raise SettingsError("TALLYBOOK_POSTGRES_URL is not set (for example postgresql://user@host/tallybook)")
    if arguments.report == "statement":
        path, content = asyncio.run(_connected(url, lambda connection: _statement(connection, arguments)))
        path.write_bytes(content)
        print(f"written: {path}", file=sys.stderr)
        return 0
    return asyncio.run(_connected(url, lambda connection: _report(connection, arguments, output)))


def _output(arguments: argparse.Namespace) -> Output:
    path: Path | None = getattr(arguments, "output", None)
    form: str | None = getattr(arguments, "format", None)
    if path is not None and form is None and arguments.report != "statement":
        if path.suffix not in _SUFFIXES:
            raise errors.invalid("--output", f"{path.name} does not say its format; add --format {', '.join(export.FORMATS)}.")
        form = _SUFFIXES[path.suffix]
    if form == "parquet" and path is None:
        raise errors.invalid("--output", "A Parquet file needs --output.")
    if form == "table" and path is not None:
        raise errors.invalid("--format", "A table is for the terminal; a file is csv, parquet or jsonl.")
    return Output(None if form in (None, "table") else cast("Format", form), path)


async def _connected(url: str, work: Callable[[Connection], Awaitable[_Result]]) -> _Result:
    """Do something in one snapshot of the book."""
    connection = await postgres.connect_one(url, application_name="tallybook-report")
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            await retention.hold_months(connection)
            return await work(connection)
    finally:
        await connection.close()


async def _statement(connection: Connection, arguments: argparse.Namespace) -> tuple[Path, bytes]:
    return await report_statement.page(connection, await keys.tenant_of(connection, arguments), arguments)


async def _report(connection: Connection, arguments: argparse.Namespace, output: Output) -> int:
    tenant = await keys.tenant_of(connection, arguments)
    now = await tenancy.clock_now(connection, tenant, clock.real_clock())
    if arguments.report == "forecast":
        customer_id = await _customer_id(connection, tenant, arguments.customer)
        rows = await forecast.running(connection, tenant, now, customer_id, arguments.plan)
        return await _write(output, "forecast", forecast.COLUMNS, _at_once(rows), "UTC")
    question = await _question(connection, tenant, now, arguments)
    if arguments.report == "events":
        kinds = tuple(int(event_rows.KINDS[name]) for name in ("usage", "void"))
        which = EventFilters(tenant, kinds, question.starts_at, question.ends_at, question.filters)
        return await _write(output, "events", event_rows.COLUMNS, event_rows.stream(connection, which), question.zone)
    async with store.stream(connection, question) as (columns, chunks):
        every = (*columns, *rules.share_columns(question.report))
        return await _write(output, arguments.report, every, _with_shares(question.report, chunks), question.zone)


async def _at_once(rows: Sequence[RawRow]) -> Chunks:
    yield rows


async def _with_shares(report: str, chunks: AsyncIterator[list[RawRow]]) -> Chunks:
    async for chunk in chunks:
        yield [{**row, **rules.shares(report, row)} for row in chunk]


async def _question(connection: Connection, tenant: Tenant, now: datetime, arguments: argparse.Namespace) -> Question:
    in_zone = rules.zone(arguments.time_zone)
    ends_at = now if arguments.to is None else _moment(arguments.to, arguments.time_zone)
    first = ends_at.astimezone(in_zone).date().replace(day=1)
    starts_at = rules.local_midnight(first, in_zone) if arguments.from_ is None else _moment(arguments.from_, arguments.time_zone)
    name = "usage" if arguments.report == "events" else arguments.report
    words = getattr(arguments, "group_by", None) or _WORDS[name]
    by: str | None = getattr(arguments, "by", None)
    report = cast("ReportName", "revenue" if by == "revenue" else name)
    filters = await _filters(connection, tenant, arguments)
    return Question(tenant, report, starts_at, ends_at, arguments.time_zone, rules.group_words(name, words), filters, by)


def _moment(text: str, zone: str) -> datetime:
    if rules.is_date(text):
        return rules.local_midnight(date.fromisoformat(text), rules.zone(zone))
    try:
        return dates.moment(text)
    except argparse.ArgumentTypeError as error:
        raise errors.invalid("--from", f"{error}.") from error


async def _filters(connection: Connection, tenant: Tenant, arguments: argparse.Namespace) -> Filters:
    found = None if arguments.feature is None else await store.feature_ids(connection, tenant, arguments.feature)
    if found == ():
        raise errors.NotFound("feature_not_found", f"There is no feature {arguments.feature}.")
    wanted: str | None = getattr(arguments, "property", None)
    return Filters(
        customer_id=await _customer_id(connection, tenant, arguments.customer),
        feature_ids=found,
        model=getattr(arguments, "model", None),
        provider=getattr(arguments, "provider", None),
        plan_code=arguments.plan,
        property=None if wanted is None else rules.property_filter(wanted),
    )


async def _customer_id(connection: Connection, tenant: Tenant, reference: str | None) -> int | None:
    if reference is None:
        return None
    customer = await customers.find(connection, tenant, reference)
    if customer is None:
        raise errors.NotFound("customer_not_found", f"There is no customer {reference}.")
    return customer.id


async def _write(output: Output, title: str, columns: Sequence[Column], chunks: Chunks, zone: str) -> int:
    if output.form is None:
        await report_table.show(title, columns, chunks, zone)
    elif output.path is not None:
        with report_table.progress(output.path.name) as advance, export.opened(output.path, output.form, columns, zone) as writer:
            written = await _pour(chunks, writer, advance)
        print(f"{written:,} rows in {output.path}", file=sys.stderr)
    elif output.form != "parquet":
        await _pour(chunks, export.to_stream(sys.stdout.buffer, output.form, columns, zone), lambda _rows: None)
    return 0


async def _pour(chunks: Chunks, writer: Writer, advance: report_table.Advance) -> int:
    written = 0
    async for chunk in chunks:
        writer.write(chunk)
        written += len(chunk)
        advance(len(chunk))
    return written
