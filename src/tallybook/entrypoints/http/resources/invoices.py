"""Invoices: get and list. They are issued when a subscription starts and when its periods end."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from tallybook.core import clock, cursors, errors, money
from tallybook.customers import store as customers
from tallybook.entrypoints.http.routing import Call, ListQuery, Operation, Page
from tallybook.invoice import model, store
from tallybook.subscriptions import store as subscriptions

Status = Literal["draft", "outstanding", "paid", "void", "uncollectible"]
Reference = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class InvoicesQuery(ListQuery, kw_only=True):
    """Which invoices to list."""

    customer_id: Reference | None = None
    subscription_id: Reference | None = None
    status: Status | None = None


class LineItem(msgspec.Struct, rename="camel", kw_only=True):
    """One line. `amount` is in cents.

    `unitAmount` of a base price is in cents, of usage in rate scale (10000 = $1.00). Included, used and overage amounts are
    units of the feature; on a balance they are money in rate scale.
    """

    line_type: str
    feature_name: str | None
    description: str
    quantity: int | float
    unit_amount: int | float
    amount: int
    included_amount: int | float | None
    used_amount: int | float | None
    overage_amount: int | float | None
    discount_type: None = None
    discount_value: None = None
    discount_name: None = None
    charge_type: str


class InvoiceListItem(msgspec.Struct, rename="camel", kw_only=True):
    """An invoice without its lines. Amounts in cents; there are no taxes and discounts yet."""

    object: str = "invoice"
    id: str
    customer_id: str
    subscription_id: str | None
    invoice_number: str
    status: str
    invoice_type: str
    currency: str
    subtotal: int
    discount_amount: int = 0
    tax_amount: int = 0
    total: int
    period_start: str
    period_end: str
    issue_date: str
    due_date: str
    memo: str | None = None
    metadata: Mapping[str, Any]
    created_at: str
    updated_at: str


class Invoice(InvoiceListItem, kw_only=True):
    """An invoice with its lines."""

    credit_applied: int = 0
    plan_name: str | None
    po_number: str | None = None
    reference: str | None = None
    line_items: list[LineItem]


async def get(call: Call) -> Invoice:
    """An invoice and its lines."""
    invoice = await store.find(call.connection, call.tenant, call.path["id"])
    if invoice is None:
        raise errors.NotFound("invoice_not_found", f"There is no invoice {call.path['id']}.", param="id")
    lines = await store.lines(call.connection, invoice.id)
    return Invoice(
        **msgspec.structs.asdict(_item(invoice)), plan_name=invoice.plan_name, line_items=[_line(line) for line in lines]
    )


async def list_all(call: Call) -> Page:
    """Invoices, newest first."""
    query: InvoicesQuery = call.query
    before_id = None if query.cursor is None else cursors.decode(query.cursor)
    customer_id = None if query.customer_id is None else await _customer_id(call, query.customer_id)
    subscription_id = None if query.subscription_id is None else await _subscription_id(call, query.subscription_id)
    found = await store.page(call.connection, call.tenant, customer_id, subscription_id, query.status, before_id, query.limit + 1)
    page, next_cursor = cursors.cut(found, query.limit, lambda invoice: invoice.id)
    return Page([_item(invoice) for invoice in page], next_cursor)


async def _customer_id(call: Call, reference: str) -> int:
    customer = await customers.find(call.connection, call.tenant, reference)
    if customer is None:
        raise errors.NotFound("customer_not_found", f"There is no customer {reference}.", param="customerId")
    return customer.id


async def _subscription_id(call: Call, reference: str) -> int:
    subscription = await subscriptions.find(call.connection, call.tenant, reference)
    if subscription is None:
        raise errors.NotFound("subscription_not_found", f"There is no subscription {reference}.", param="subscriptionId")
    return subscription.id


def _item(invoice: model.Invoice) -> InvoiceListItem:
    return InvoiceListItem(
        id=invoice.public_id,
        customer_id=invoice.customer_public_id,
        subscription_id=invoice.subscription_public_id,
        invoice_number=invoice.number_text,
        status=invoice.status,
        invoice_type=invoice.type,
        currency=invoice.currency,
        subtotal=invoice.total_cents,
        total=invoice.total_cents,
        period_start=clock.iso(invoice.period_start),
        period_end=clock.iso(invoice.period_end),
        issue_date=clock.iso(invoice.issued_at),
        due_date=clock.iso(invoice.due_at),
        metadata=invoice.metadata,
        created_at=clock.iso(invoice.created_at),
        updated_at=clock.iso(invoice.updated_at),
    )


def _line(line: model.Line) -> LineItem:
    in_scale = money.rate if line.line_type == "balance_overage" else money.units
    counted = [None if nano is None else in_scale(nano) for nano in (line.included_nano, line.used_nano, line.overage_nano)]
    is_base = line.line_type == "plan_base"
    return LineItem(
        line_type=line.line_type,
        feature_name=line.feature_name,
        description=line.description,
        quantity=money.units(line.quantity_nano),
        unit_amount=money.cents(line.unit_price_nano) if is_base else money.rate(line.unit_price_nano),
        amount=line.amount_cents,
        included_amount=counted[0],
        used_amount=counted[1],
        overage_amount=counted[2],
        charge_type=line.charge_type,
    )


OPERATIONS = (
    Operation(
        method="GET",
        path="/invoices",
        id="list-invoices",
        summary="List invoices without their lines, newest first; of one customer, subscription or status if asked.",
        permission="invoice",
        handler=list_all,
        query=InvoicesQuery,
        returns=InvoiceListItem,
        is_list=True,
    ),
    Operation(
        method="GET",
        path="/invoices/{id}",
        id="get-invoice",
        summary="Get an invoice with its lines.",
        permission="invoice",
        handler=get,
        returns=Invoice,
    ),
)
