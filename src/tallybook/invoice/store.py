"""Reads and writes invoices, and reads the pools they are computed from. Each function runs inside the caller's transaction."""

from collections.abc import Sequence
from datetime import datetime

from tallybook.core.tenant import Tenant
from tallybook.invoice import rules
from tallybook.invoice.model import Decision, Draft, Invoice, InvoiceStatus, LateUsage, Line, PoolTotals
from tallybook.storage import queries
from tallybook.storage.postgres import Connection, Row
from tallybook.subscriptions.rules import Period

_QUERIES = queries.load(__package__)


async def insert(connection: Connection, tenant: Tenant, now: datetime, public_id: str, draft: Draft) -> Invoice:
    """Issue a draft under the next number. Raises UniqueViolationError when the boundary has an invoice."""
    taken = await connection.fetchval(_QUERIES["take_number"], tenant.organization_id, tenant.livemode)
    invoice_id = await connection.fetchval(
        _QUERIES["insert_invoice"],
        tenant.id,
        public_id,
        taken,
        draft.customer_id,
        draft.subscription_id,
        draft.billed_at,
        draft.type,
        rules.total_cents(draft.lines),
        draft.period.starts_at,
        draft.period.ends_at,
        now,
        draft.plan_name,
        rules.metadata(draft.late),
    )
    lines = [_line_columns(invoice_id, position, line) for position, line in enumerate(draft.lines, 1)]
    await connection.executemany(_QUERIES["insert_lines"], lines)
    return await by_id(connection, invoice_id)


async def by_id(connection: Connection, invoice_id: int) -> Invoice:
    """The invoice of a row that exists."""
    (invoice,) = await _rows(connection, [invoice_id])
    return invoice


async def find(connection: Connection, tenant: Tenant, public_id: str) -> Invoice | None:
    """The tenant's invoice with this `inv_…` id."""
    if not public_id.isascii() or not public_id.isprintable():
        return None
    return await _one(connection, await connection.fetchval(_QUERIES["id_by_public_id"], tenant.id, public_id))


async def at_boundary(connection: Connection, subscription_id: int, billed_at: datetime) -> Invoice | None:
    """The invoice of a subscription at one period boundary, if there was anything to bill."""
    return await _one(connection, await connection.fetchval(_QUERIES["id_of_boundary"], subscription_id, billed_at))


async def page(
    connection: Connection,
    tenant: Tenant,
    customer_id: int | None,
    subscription_id: int | None,
    status: InvoiceStatus | None,
    before_id: int | None,
    limit: int,
) -> Sequence[Invoice]:
    """Up to `limit` of the tenant's invoices with a smaller row id, newest first."""
    found = await connection.fetch(_QUERIES["page_of_ids"], tenant.id, customer_id, subscription_id, status, before_id, limit)
    return await _rows(connection, [row["id"] for row in found])


async def lines(connection: Connection, invoice_id: int) -> Sequence[Line]:
    """The lines of an invoice, in order."""
    return [_line(row) for row in await connection.fetch(_QUERIES["lines_of_invoice"], invoice_id)]


async def pools_of_period(
    connection: Connection, customer_id: int, subscription_id: int, period_start_s: int
) -> Sequence[PoolTotals]:
    """The book's pools of a subscription that are named by this period start. Ask once the book has read far enough."""
    pattern = f"{subscription_id}.%.{period_start_s}"
    rows = await connection.fetch(_QUERIES["pools_of_period"], customer_id, pattern)
    return [PoolTotals(row["pool"], *(int(row[name]) for name in ("opening", "charged", "adjusted", "balance"))) for row in rows]


async def insert_decisions(connection: Connection, tenant: Tenant, customer_id: int, decisions: Sequence[Decision]) -> None:
    """Keep what became of the overage of a customer's pools. What was decided before stays."""
    rows = [(customer_id, one.pool, tenant.id, one.verdict, one.overage_nano) for one in decisions]
    await connection.executemany(_QUERIES["insert_decisions"], rows)


async def late_usage(
    connection: Connection, customer_id: int, subscription_id: int, period_start: datetime
) -> Sequence[LateUsage]:
    """What a subscription's period pays of usage that happened in closed ones. Ask once the book has read far enough."""
    rows = await connection.fetch(_QUERIES["late_usage"], customer_id, period_start, f"{subscription_id}.%")
    return [
        LateUsage(
            row["feature_code"],
            None if row["starts_at"] is None else Period(row["starts_at"], row["ends_at"]),
            row["events"],
            int(row["quantity_nano"]),
        )
        for row in rows
    ]


async def rolled_up_to(connection: Connection, partition: int) -> int:
    """The last log sequence of a partition that the book has read."""
    return await connection.fetchval(_QUERIES["rolled_up_to"], partition) or 0


def _line_columns(invoice_id: int, position: int, line: Line) -> Sequence[object]:
    return (
        invoice_id,
        position,
        line.line_type,
        line.feature_id,
        line.feature_name,
        line.description,
        line.pool,
        line.quantity_nano,
        line.unit_price_nano,
        line.amount_cents,
        line.exact_nano,
        line.included_nano,
        line.used_nano,
        line.overage_nano,
        line.charge_type,
    )


def _line(row: Row) -> Line:
    whole = ("quantity_nano", "exact_nano", "included_nano", "used_nano", "overage_nano")
    fields = dict(row.items())
    fields |= {name: int(fields[name]) for name in whole if fields[name] is not None}
    return Line(**fields)


async def _one(connection: Connection, row_id: int | None) -> Invoice | None:
    return None if row_id is None else await by_id(connection, row_id)


async def _rows(connection: Connection, ids: Sequence[int]) -> Sequence[Invoice]:
    if not ids:
        return []
    return [Invoice(**dict(row.items())) for row in await connection.fetch(_QUERIES["invoice_rows"], ids)]
