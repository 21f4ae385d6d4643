"""What happens to customers. Each is called inside a transaction."""

from collections.abc import Sequence
from datetime import datetime

from tallybook.core import errors, ids
from tallybook.core.errors import TallybookError
from tallybook.core.tenant import Tenant
from tallybook.customers import announcements, rules, store
from tallybook.customers.model import Customer, CustomerChange, NewCustomer
from tallybook.storage.postgres import Connection
from tallybook.tenancy import actions as tenancy


async def create(connection: Connection, tenant: Tenant, now: datetime, new: NewCustomer) -> Customer:
    """Add a customer, or answer with the one that already has the id: unchanged, whatever else is given.

    Raises ValidationError.
    """
    rules.check(new)
    if new.external_id is not None:
        existing = await store.find(connection, tenant, new.external_id)
        if existing is not None:
            return existing
    created = await store.insert(connection, tenant, ids.new("cus"), now, new)
    if created is None:
        return await _given_meanwhile(connection, tenant, new)
    await announcements.created(connection, tenant, created)
    return created


async def create_each(
    connection: Connection, tenant: Tenant, now: datetime, news: Sequence[NewCustomer | TallybookError]
) -> list[Customer | TallybookError]:
    """`create` for each; in the order given the customers, or the errors that stand in their places."""
    results: dict[int, Customer | TallybookError] = {}
    # In the order of the ids: two batches with the same ids then wait for each other instead of blocking each other.
    for index in sorted(range(len(news)), key=lambda index: _external_id(news[index])):
        new = news[index]
        results[index] = new if isinstance(new, TallybookError) else await _attempt(connection, tenant, now, new)
    return [results[index] for index in range(len(news))]


async def update(connection: Connection, tenant: Tenant, now: datetime, reference: str, change: CustomerChange) -> Customer:
    """Change what is given and leave the rest.

    Raises NotFound (`customer_not_found`), ValidationError, Conflict (`duplicate`) for an external id that another customer has.
    """
    rules.check(change)
    customer = await store.hold(connection, tenant, reference)
    if customer is None:
        raise not_found(reference)
    changed = rules.changed(customer, change)
    if changed == customer:
        return customer
    if changed.external_id != customer.external_id:
        await _rename(connection, tenant, customer, changed.external_id)
    updated = await store.update(connection, changed, now)
    if updated is None:
        raise _taken(changed.external_id)
    await announcements.updated(connection, tenant, updated)
    return updated


async def set_ai_margin(
    connection: Connection, tenant: Tenant, now: datetime, reference: str, margin_bps: int | None
) -> Customer:
    """Let the customer's AI usage carry this margin (basis points) instead of its plan's, from the next event on; None: its plan's.

    Raises NotFound (`customer_not_found`).
    """
    customer = await store.hold(connection, tenant, reference)
    if customer is None:
        raise not_found(reference)
    if customer.ai_margin_bps == margin_bps:
        return customer
    await tenancy.bump_customer_terms(connection, tenant, customer.id)
    return await store.set_ai_margin(connection, customer, margin_bps, now)


def not_found(reference: str) -> errors.NotFound:
    """The error of a reference that names no customer."""
    return errors.NotFound("customer_not_found", f"There is no customer {reference[:128]!r} here.", param="customerId")


async def _attempt(connection: Connection, tenant: Tenant, now: datetime, new: NewCustomer) -> Customer | TallybookError:
    try:
        return await create(connection, tenant, now, new)
    except TallybookError as error:
        return error


def _external_id(new: NewCustomer | TallybookError) -> str:
    return "" if isinstance(new, TallybookError) else new.external_id or ""


async def _given_meanwhile(connection: Connection, tenant: Tenant, new: NewCustomer) -> Customer:
    existing = await store.find(connection, tenant, new.external_id or "")
    if existing is None:
        message = f"the external id {new.external_id!r} is neither free nor taken"
        raise RuntimeError(message)
    return existing


async def _rename(connection: Connection, tenant: Tenant, customer: Customer, external_id: str | None) -> None:
    """Usage names customers by external id too, so whatever was looked up by the old one must be looked up again."""
    other = None if external_id is None else await store.find(connection, tenant, external_id)
    if other is not None and other.id != customer.id:
        raise _taken(external_id)
    await tenancy.bump_customer_terms(connection, tenant, customer.id)


def _taken(external_id: str | None) -> errors.Conflict:
    return errors.Conflict("duplicate", f"{external_id!r} already names another customer.", param="externalId")
