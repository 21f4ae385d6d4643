"""Reads and writes subscriptions. Each function runs inside the caller's transaction."""

from collections.abc import Sequence
from datetime import datetime

from tallybook.core.tenant import Tenant
from tallybook.storage import queries
from tallybook.storage.postgres import Connection
from tallybook.subscriptions.model import NewSubscription, Status, Subscription

_QUERIES = queries.load(__package__)


async def insert(connection: Connection, tenant: Tenant, now: datetime, public_id: str, new: NewSubscription) -> Subscription:
    """Create a subscription and read it back with its names."""
    row_id = await connection.fetchval(
        _QUERIES["insert_subscription"],
        tenant.id,
        public_id,
        new.customer_id,
        new.plan_id,
        new.price_id,
        new.name,
        new.status,
        new.started_at,
        new.trial_ends_at,
        new.anchor_at,
        new.cancel_at,
        now,
    )
    return await by_id(connection, row_id)


async def by_id(connection: Connection, subscription_id: int) -> Subscription:
    """The subscription of a row that exists."""
    (subscription,) = await _rows(connection, [subscription_id])
    return subscription


async def find(connection: Connection, tenant: Tenant, public_id: str) -> Subscription | None:
    """The tenant's subscription with this `sub_…` id, whatever its status."""
    if not public_id.isascii() or not public_id.isprintable():
        return None
    return await _one(connection, await connection.fetchval(_QUERIES["id_by_public_id"], tenant.id, public_id))


async def open_of_customer(connection: Connection, customer_id: int) -> Subscription | None:
    """The customer's subscription that is not canceled."""
    return await _one(connection, await connection.fetchval(_QUERIES["open_id_of_customer"], customer_id))


async def lock(connection: Connection, subscription_id: int) -> Subscription:
    """The subscription as it is now, held until the transaction ends."""
    await connection.execute(_QUERIES["lock_subscription"], subscription_id)
    return await by_id(connection, subscription_id)


async def page(
    connection: Connection,
    tenant: Tenant,
    customer_id: int | None,
    status: Status | None,
    before_id: int | None,
    limit: int,
) -> Sequence[Subscription]:
    """Up to `limit` of the tenant's subscriptions with a smaller id, newest first."""
    found = await connection.fetch(_QUERIES["page_of_ids"], tenant.id, customer_id, status, before_id, limit)
    return await _rows(connection, [row["id"] for row in found])


async def schedule_cancellation(
    connection: Connection, subscription_id: int, cancel_at: datetime, reason: str | None, asked_at: datetime
) -> None:
    """Note when a subscription is to end."""
    await connection.execute(_QUERIES["schedule_cancellation"], subscription_id, cancel_at, reason, asked_at)


async def unschedule_cancellation(connection: Connection, subscription_id: int, now: datetime) -> None:
    """Take a scheduled cancellation back."""
    await connection.execute(_QUERIES["unschedule_cancellation"], subscription_id, now)


async def end(connection: Connection, subscription_id: int, ended_at: datetime, now: datetime) -> bool:
    """End a subscription for good. False when it has ended before."""
    return await connection.fetchval(_QUERIES["end_subscription"], subscription_id, ended_at, now) is not None


async def activate(connection: Connection, subscription_id: int, now: datetime) -> bool:
    """End a trial. False when it was not in one."""
    return await connection.fetchval(_QUERIES["activate_subscription"], subscription_id, now) is not None


async def _one(connection: Connection, row_id: int | None) -> Subscription | None:
    return None if row_id is None else await by_id(connection, row_id)


async def _rows(connection: Connection, ids: Sequence[int]) -> Sequence[Subscription]:
    if not ids:
        return []
    return [Subscription(**dict(row.items())) for row in await connection.fetch(_QUERIES["subscription_rows"], ids)]
