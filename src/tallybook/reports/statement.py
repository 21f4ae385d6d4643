"""A customer's statement: an invoice as its reader wants it, every number already text."""

from dataclasses import dataclass
from datetime import datetime

from tallybook.core import money
from tallybook.core.tenant import Tenant
from tallybook.reports import rules
from tallybook.storage import queries
from tallybook.storage.postgres import Connection, Row

_SQL = queries.load(__package__)
_DIGITS = 9
_DAY = "%d %b %Y"


@dataclass(frozen=True, slots=True)
class Line:
    """One line: what, how much, at what price, and the amount."""

    description: str
    quantity: str
    unit_price: str
    amount: str


@dataclass(frozen=True, slots=True)
class Statement:
    """All that stands on the page."""

    number: str
    status: str
    customer: str
    customer_reference: str
    plan: str
    period: str
    issued: str
    due: str
    base: tuple[Line, ...]
    usage: tuple[Line, ...]
    subtotal: str
    discount: str
    total: str
    is_test: bool


async def find(connection: Connection, tenant: Tenant, invoice_id: str) -> Statement | None:
    """The statement of one of the tenant's invoices."""
    head = await connection.fetchrow(_SQL["statement_head"], tenant.id, invoice_id)
    if head is None:
        return None
    lines = await connection.fetch(_SQL["statement_lines"], head["id"])
    total = _dollars(head["total_cents"])
    return Statement(
        number=f"INV-{head['number']:06d}",
        status=head["status"],
        customer=head["full_name"] or head["email"],
        customer_reference=head["external_id"] or head["customer"],
        plan=head["plan_name"] or "",
        period=f"{_day(head['period_start'])} to {_day(head['period_end'])}",
        issued=_day(head["issued_at"]),
        due=_day(head["due_at"]),
        base=tuple(_line(row) for row in lines if row["line_type"] == "plan_base"),
        usage=tuple(_line(row) for row in lines if row["line_type"] != "plan_base"),
        subtotal=total,
        discount=_dollars(0),
        total=total,
        is_test=not tenant.livemode,
    )


def _day(moment: datetime) -> str:
    return moment.strftime(_DAY)


def _line(row: Row) -> Line:
    return Line(
        description=row["description"],
        quantity=_grouped(rules.exact(int(row["quantity_nano"]), _DIGITS)),
        unit_price=money.usd(row["unit_price_nano"]),
        amount=_dollars(row["amount_cents"]),
    )


def _grouped(text: str) -> str:
    """`1,250.5`."""
    whole, point, fraction = text.partition(".")
    return f"{int(whole):,}{point}{fraction}"


def _dollars(cents: int) -> str:
    sign, magnitude = ("-" if cents < 0 else ""), abs(cents)
    return f"{sign}${magnitude // 100:,}.{magnitude % 100:02d}"
