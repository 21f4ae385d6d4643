"""Invoices."""

from tallybook.client.decoding import reader
from tallybook.client.models import Invoice, ListOf
from tallybook.client.requests import Mode, Request, Resource, operation, query
from tallybook.client.resources.pages import page


def get(invoice_id: str) -> Request[Invoice]:
    """One invoice with its lines."""
    return Request("GET", f"/invoices/{invoice_id}", reader(Invoice))


def list_(
    *, customer_id: str | None = None, subscription_id: str | None = None, limit: int | None = None, cursor: str | None = None
) -> Request[ListOf[Invoice]]:
    """Invoices without their lines, newest first."""
    asked = query(customer_id=customer_id, subscription_id=subscription_id, limit=limit, cursor=cursor)
    return Request("GET", "/invoices", page(Invoice), query=asked)


class Invoices(Resource[Mode]):
    """`tallybook.invoices`."""

    get = operation(get)
    list = operation(list_)
