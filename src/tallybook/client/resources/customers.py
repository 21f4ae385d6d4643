"""Customers: who is billed. `customer_id` is `cus_…` or your own id, everywhere."""

from collections.abc import Mapping, Sequence
from typing import Any

from tallybook.client.decoding import reader
from tallybook.client.models import Address, Customer, CustomerBatch, ListOf, NewCustomer
from tallybook.client.requests import UNSET, Mode, Request, Resource, Unset, changes, operation, present, query
from tallybook.client.resources.pages import page


def create(
    *,
    email: str,
    id: str | None = None,  # noqa: A002 - the API's word
    full_name: str | None = None,
    tax_document: str | None = None,
    timezone: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    address: Address | None = None,
) -> Request[Customer]:
    """Create a customer; `id` is your own. The same id again gives the customer that is there."""
    body = present(
        email=email, id=id, full_name=full_name, tax_document=tax_document, timezone=timezone, metadata=metadata, address=address
    )
    return Request("POST", "/customers", reader(Customer), body)


def create_batch(*, customers: Sequence[NewCustomer]) -> Request[CustomerBatch]:
    """Create up to 100 customers; a broken one fails alone."""
    return Request("POST", "/customers/batch", reader(CustomerBatch), present(customers=customers))


def get(customer_id: str) -> Request[Customer]:
    """One customer."""
    return Request("GET", f"/customers/{customer_id}", reader(Customer))


def update(
    customer_id: str,
    *,
    email: str | Unset = UNSET,
    external_id: str | Unset | None = UNSET,
    full_name: str | Unset | None = UNSET,
    tax_document: str | Unset | None = UNSET,
    timezone: str | Unset | None = UNSET,
    metadata: Mapping[str, Any] | Unset | None = UNSET,
    address: Address | Unset | None = UNSET,
) -> Request[Customer]:
    """Change what is given; None removes. `metadata` replaces what was there."""
    body = changes(
        email=email,
        external_id=external_id,
        full_name=full_name,
        tax_document=tax_document,
        timezone=timezone,
        metadata=metadata,
        address=address,
    )
    return Request("PATCH", f"/customers/{customer_id}", reader(Customer), body)


def list_(
    *, external_id: str | None = None, search: str | None = None, limit: int | None = None, cursor: str | None = None
) -> Request[ListOf[Customer]]:
    """Customers, newest first."""
    asked = query(external_id=external_id, search=search, limit=limit, cursor=cursor)
    return Request("GET", "/customers", page(Customer), query=asked)


class Customers(Resource[Mode]):
    """`tallybook.customers`."""

    create = operation(create)
    create_batch = operation(create_batch)
    get = operation(get)
    update = operation(update)
    list = operation(list_)
