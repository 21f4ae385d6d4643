"""Reads and writes usage periods. Each function runs inside the caller's transaction and may be repeated."""

from collections.abc import Sequence
from datetime import datetime

from tallybook.catalog.model import Edition
from tallybook.core.tenant import Tenant
from tallybook.storage import queries
from tallybook.storage.postgres import Connection, Row
from tallybook.subscriptions.model import Period, UsagePeriod

_QUERIES = queries.load(__package__)


async def insert(connection: Connection, subscription_id: int, tenant_id: int, period: Period, edition: Edition) -> None:
    """Open a usage period, unless it is there already."""
    dates = (period.starts_at, period.ends_at)
    await connection.execute(_QUERIES["insert_period"], subscription_id, tenant_id, *dates, edition.features, edition.price)


async def unclosed(connection: Connection, subscription_id: int) -> UsagePeriod | None:
    """The one period of a subscription that is not closed; None after its end."""
    row = await connection.fetchrow(_QUERIES["unclosed_period"], subscription_id)
    return None if row is None else _period(row)


async def lock(connection: Connection, period: UsagePeriod) -> UsagePeriod:
    """The period as it is now, held until the transaction ends."""
    row = await connection.fetchrow(_QUERIES["lock_period"], period.subscription_id, period.starts_at)
    if row is None:
        message = f"Subscription {period.subscription_id} has no period that starts at {period.starts_at.isoformat()}."
        raise LookupError(message)
    return _period(row)


async def due(connection: Connection, real_until: datetime, limit: int, tenant_id: int | None = None) -> Sequence[UsagePeriod]:
    """Periods to close: ended at `real_until` (or by the tenant's simulated clock), or left half closed.

    Earliest end first, and last those that could not be billed before, the longest untried of them first.
    """
    return [_period(row) for row in await connection.fetch(_QUERIES["due_periods"], real_until, limit, tenant_id)]


async def unexpired(connection: Connection, limit: int) -> Sequence[UsagePeriod]:
    """Closed periods whose pools the till may still hold."""
    return [_period(row) for row in await connection.fetch(_QUERIES["unexpired_periods"], limit)]


async def next_deadline(connection: Connection, tenant_id: int, until: datetime) -> datetime | None:
    """When the tenant's next period ends, if that is not after `until`."""
    return await connection.fetchval(_QUERIES["next_deadline"], tenant_id, until)


async def count_deadlines(connection: Connection, tenant_id: int, until: datetime) -> int:
    """How many of the tenant's open periods end until then."""
    return await connection.fetchval(_QUERIES["count_deadlines"], tenant_id, until)


async def begin_closing(connection: Connection, period: UsagePeriod, ends_at: datetime) -> bool:
    """Stop a period from taking usage. False when that has happened before."""
    row = await connection.fetchval(_QUERIES["begin_closing"], period.subscription_id, period.starts_at, ends_at)
    return row is not None


async def forget_closing_seqs(connection: Connection) -> None:
    """The till was made anew: periods that are being closed have to be marked in its log again."""
    await connection.execute(_QUERIES["forget_closing_seqs"])


async def save_closing_seq(connection: Connection, period: UsagePeriod, sequence: int) -> None:
    """Note the log sequence the book must pass; the first one noted stays."""
    await connection.execute(_QUERIES["save_closing_seq"], period.subscription_id, period.starts_at, sequence)


async def defer(connection: Connection, period: UsagePeriod, tried_at: datetime) -> None:
    """Note that a period could not be billed; the next attempt takes others first."""
    await connection.execute(_QUERIES["defer_period"], period.subscription_id, period.starts_at, tried_at)


async def close(connection: Connection, period: UsagePeriod, closed_at: datetime) -> None:
    """Close a period for good."""
    await connection.execute(_QUERIES["close_period"], period.subscription_id, period.starts_at, closed_at)


async def save_expired(connection: Connection, period: UsagePeriod, expired_at: datetime) -> None:
    """Note that the till has dropped the period's pools."""
    await connection.execute(_QUERIES["save_expired"], period.subscription_id, period.starts_at, expired_at)


def _period(row: Row) -> UsagePeriod:
    return UsagePeriod(
        tenant=Tenant(row["tenant_id"], row["organization_id"], row["livemode"]),
        subscription_id=row["subscription_id"],
        customer_id=row["customer_id"],
        starts_at=row["starts_at"],
        ends_at=row["ends_at"],
        state=row["state"],
        closing_seq=row["closing_seq"],
        edition=Edition(row["feature_revision"], row["price_revision"]),
    )
