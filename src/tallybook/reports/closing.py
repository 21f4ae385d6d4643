"""What a month's close consists of: its files, and three ways to the same sum of money. Reads one snapshot."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from tallybook.core import money
from tallybook.core.tenant import Tenant
from tallybook.core.usage_log import Kind
from tallybook.reports import event_rows, rules, store
from tallybook.reports.model import Column, EventFilters, Question, RawRow, ReportName, Unit
from tallybook.storage import queries
from tallybook.storage.postgres import Connection

_SQL = queries.load(__package__)
_ROWS_AT_ONCE = 5_000
_LINE_COLUMNS = {
    "invoiceNumber": ("number", Unit.COUNT),
    "invoiceId": ("invoice", Unit.TEXT),
    "customerId": ("customer", Unit.TEXT),
    "externalId": ("external", Unit.TEXT),
    "plan": ("plan", Unit.TEXT),
    "status": ("status", Unit.TEXT),
    "type": ("type", Unit.TEXT),
    "billedAt": ("billed_at", Unit.INSTANT),
    "periodStart": ("period_start", Unit.INSTANT),
    "periodEnd": ("period_end", Unit.INSTANT),
    "issuedAt": ("issued_at", Unit.INSTANT),
    "invoiceTotal": ("total_cents", Unit.NANO),
    "line": ("position", Unit.COUNT),
    "lineType": ("line_type", Unit.TEXT),
    "featureCode": ("feature", Unit.TEXT),
    "description": ("description", Unit.TEXT),
    "quantity": ("quantity_nano", Unit.NANO),
    "unitPrice": ("unit_price_nano", Unit.NANO),
    "amount": ("amount_cents", Unit.NANO),
    "exactAmount": ("exact_nano", Unit.NANO),
    "pool": ("pool", Unit.TEXT),
}
_CENTS = frozenset({"invoiceTotal", "amount"})
Chunks = AsyncIterator[Sequence[RawRow]]


@dataclass(frozen=True, slots=True)
class Month:
    """A tenant's month, [starts_at, ends_at) by the clocks of a zone."""

    tenant: Tenant
    starts_at: datetime
    ends_at: datetime
    zone: str


@dataclass(frozen=True, slots=True)
class Sums:
    """One sum of money by three ways, in cents: by the totals of invoices, by the revenue report, and by the ledger of the pools."""

    invoices: int
    invoices_cents: int
    revenue_cents: int
    ledger_cents: int
    unbilled_periods: int

    @property
    def agree(self) -> bool:
        """Whether all three are the same."""
        return self.invoices_cents == self.revenue_cents == self.ledger_cents


@dataclass(frozen=True, slots=True)
class File:
    """One file of the pack."""

    name: str
    columns: Sequence[Column]
    chunks: Chunks


async def check_whole(connection: Connection, month: Month) -> None:
    """Raise ValidationError when single events of the month were dropped: corrections and voids are listed one by one."""
    await store.check_whole(connection, month.tenant, month.starts_at)


async def files(connection: Connection, month: Month) -> AsyncIterator[File]:
    """The files, one after the other; each must be read before the next is asked for."""
    yield File("invoices", _columns(), _invoice_lines(connection, month))
    reports: tuple[tuple[str, ReportName, tuple[str, ...]], ...] = (
        ("revenue_by_plan_and_feature", "revenue", ("planCode", "featureCode", "lineType")),
        ("ai_costs_by_model", "ai-costs", ("model",)),
        ("margin_by_customer", "margin", ("customerId",)),
        ("usage_by_plan_and_feature", "usage", ("planCode", "featureCode")),
    )
    for name, report, words in reports:
        question = Question(month.tenant, report, month.starts_at, month.ends_at, month.zone, words)
        async with store.stream(connection, question) as (columns, chunks):
            yield File(name, (*columns, *rules.share_columns(report)), _with_shares(report, chunks))
    kinds = tuple(int(kind) for kind in (Kind.ADJUSTMENT, Kind.SET, Kind.VOID))
    changes = EventFilters(month.tenant, kinds, month.starts_at, month.ends_at)
    yield File("adjustments", event_rows.COLUMNS, event_rows.stream(connection, changes))


async def sums(connection: Connection, month: Month) -> Sums:
    """The month's money by three ways."""
    span = (month.tenant.id, month.starts_at, month.ends_at)
    total = await connection.fetchrow(_SQL["total_of_invoices"], *span)
    assert total is not None
    report = Question(month.tenant, "revenue", month.starts_at, month.ends_at, month.zone)
    revenue = cast("int", (await store.answer(connection, report, None, 1)).totals["revenue"])
    lines = [rules.as_integers(dict(row.items())) for row in await connection.fetch(_SQL["ledger_of_lines"], *span)]
    return Sums(
        invoices=total["invoices"],
        invoices_cents=total["cents"],
        revenue_cents=money.cents(revenue),
        ledger_cents=sum(map(_cents_by_ledger, lines)),
        # A period that ends with the month is billed in the next one.
        unbilled_periods=await connection.fetchval(_SQL["unbilled_periods"], month.tenant.id, month.ends_at),
    )


def _cents_by_ledger(line: RawRow) -> int:
    """What a line has to ask for by the ledger alone; a base price has no pool."""
    left, charged, price, exact = (cast("int", line[name]) for name in ("left_over", "charged", "unit_price_nano", "exact_nano"))
    if line["line_type"] == "feature_overage":
        return money.divide_half_even(max(0, -left) * price, money.NANO * money.NANO_PER_CENT)
    if line["line_type"] == "balance_overage":
        return money.cents(max(0, min(-left, charged)))
    return money.cents(exact)


def _columns() -> tuple[Column, ...]:
    return tuple(Column(name, unit) for name, (_, unit) in _LINE_COLUMNS.items())


async def _invoice_lines(connection: Connection, month: Month) -> Chunks:
    chunk: list[RawRow] = []
    span = (month.tenant.id, month.starts_at, month.ends_at)
    async for row in connection.cursor(_SQL["invoices_of_month"], *span, prefetch=_ROWS_AT_ONCE):
        found = rules.as_integers(dict(row.items()))
        named = {name: found[column] for name, (column, _) in _LINE_COLUMNS.items()}
        chunk.append({**named, **{name: cast("int", named[name]) * money.NANO_PER_CENT for name in _CENTS}})
        if len(chunk) == _ROWS_AT_ONCE:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


async def _with_shares(report: str, chunks: AsyncIterator[list[RawRow]]) -> Chunks:
    async for chunk in chunks:
        yield [{**row, **rules.shares(report, row)} for row in chunk]


def month(tenant: Tenant, text: str, zone: str) -> Month:
    """`2026-10`. Raises ValidationError for anything else."""
    first = rules.first_of_month(text)
    starts_at, ends_at = rules.month_bounds(first.year, first.month, rules.zone(zone))
    return Month(tenant, starts_at, ends_at, zone)
