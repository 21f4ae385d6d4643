"""Customers in the book."""

from collections.abc import Sequence
from datetime import datetime

from tallybook.core.tenant import Tenant
from tallybook.customers.model import Customer, Filter, NewCustomer
from tallybook.storage import queries
from tallybook.storage.postgres import Connection, Row, UniqueViolationError

_SQL = queries.load("tallybook.customers")


async def find(connection: Connection, tenant: Tenant, reference: str) -> Customer | None:
    """The customer that `cus_…` or an external id names. Our own ids win over external ones."""
    return _customer(await connection.fetchrow(_SQL["customer_by_reference"], tenant.id, reference))


async def by_id(connection: Connection, tenant: Tenant, customer_id: int) -> Customer | None:
    """The customer with this row id."""
    return _customer(await connection.fetchrow(_SQL["customer_by_id"], tenant.id, customer_id))


async def anywhere(connection: Connection, public_id: str) -> tuple[int, int] | None:
    """The tenant and the row id of a customer of any tenant. For operators; requests find customers of their own tenant."""
    row = await connection.fetchrow(_SQL["customer_anywhere"], public_id)
    return None if row is None else (row["tenant_id"], row["id"])


async def public_ids(connection: Connection, customer_ids: Sequence[int]) -> dict[int, str]:
    """By row id, for operators."""
    return {row["id"]: row["public_id"] for row in await connection.fetch(_SQL["public_ids"], customer_ids)}


async def hold(connection: Connection, tenant: Tenant, reference: str) -> Customer | None:
    """`find`, and nobody else changes the customer until the transaction ends."""
    customer = await find(connection, tenant, reference)
    if customer is None:
        return None
    return _customer(await connection.fetchrow(_SQL["customer_for_update"], customer.id))


async def page(connection: Connection, tenant: Tenant, which: Filter, limit: int) -> list[Customer]:
    """Up to `limit` customers, newest first."""
    rows = await connection.fetch(
        _SQL["customers_page"], tenant.id, which.before_id, which.external_id, _pattern(which.search), which.search, limit
    )
    return [Customer(**dict(row)) for row in rows]


async def insert(connection: Connection, tenant: Tenant, public_id: str, now: datetime, new: NewCustomer) -> Customer | None:
    """Add a customer; None when its external id is taken."""
    row = await connection.fetchrow(
        _SQL["insert_customer"],
        tenant.id,
        public_id,
        new.external_id,
        new.email,
        new.full_name,
        new.tax_document,
        new.timezone,
        new.metadata,
        new.address,
        now,
    )
    return _customer(row)


async def update(connection: Connection, customer: Customer, now: datetime) -> Customer | None:
    """Write the customer as it is given; None, and nothing written, when its external id is taken."""
    try:
        async with connection.transaction():
            return _customer(await connection.fetchrow(_SQL["update_customer"], *_columns(customer), now))
    except UniqueViolationError:
        return None


async def set_ai_margin(connection: Connection, customer: Customer, margin_bps: int | None, now: datetime) -> Customer:
    """Write the customer's own margin on AI usage, or that it has none."""
    row = await connection.fetchrow(_SQL["set_ai_margin"], customer.id, margin_bps, now)
    assert row is not None
    return Customer(**dict(row))


def _customer(row: Row | None) -> Customer | None:
    return None if row is None else Customer(**dict(row))


def _columns(customer: Customer) -> tuple[object, ...]:
    return (
        customer.id,
        customer.external_id,
        customer.email,
        customer.full_name,
        customer.tax_document,
        customer.timezone,
        customer.metadata,
        customer.address,
    )


def _pattern(search: str | None) -> str | None:
    if search is None:
        return None
    literal = search.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{literal}%"
