"""Reads and writes endpoints and deliveries. Each function runs inside the caller's transaction."""

from collections.abc import Sequence
from datetime import datetime

from tallybook.core.tenant import Tenant
from tallybook.storage import queries
from tallybook.storage.postgres import Connection, Row
from tallybook.webhooks.model import Attempt, Delivery, Due, Endpoint, EndpointSettings, Message, State, StoredSecret, Verdict

_SQL = queries.load("tallybook.webhooks")
_MESSAGE = ("event_id", "topic", "emitted_at", "body")
_DELIVERY = (
    *("state", "attempts", "next_attempt_at", "attempted_at", "response_status", "error"),
    *("created_at", "finished_at"),
)

Queued = tuple[int, str, int, int, Message]
"""tenant, public id, endpoint, outbox row, message."""


async def count(connection: Connection, tenant: Tenant) -> int:
    """How many endpoints a tenant has."""
    return await connection.fetchval(_SQL["count_endpoints"], tenant.id)


async def insert(
    connection: Connection, tenant: Tenant, now: datetime, public_id: str, wanted: EndpointSettings, secret: StoredSecret
) -> Endpoint:
    """Add an endpoint."""
    row = await connection.fetchrow(
        _SQL["insert_endpoint"],
        tenant.id,
        public_id,
        wanted.url,
        list(wanted.events),
        wanted.description,
        wanted.api_version,
        secret.content,
        secret.is_sealed,
        wanted.is_active,
        now,
    )
    assert row is not None
    return _endpoint(row)


async def find(connection: Connection, tenant: Tenant, public_id: str) -> Endpoint | None:
    """The tenant's endpoint with this id."""
    return _one(await connection.fetchrow(_SQL["endpoint"], tenant.id, public_id))


async def hold(connection: Connection, tenant: Tenant, public_id: str) -> Endpoint | None:
    """`find`, and nobody else changes it until the transaction ends."""
    return _one(await connection.fetchrow(_SQL["endpoint_for_update"], tenant.id, public_id))


async def page(connection: Connection, tenant: Tenant, before_id: int | None, limit: int) -> list[Endpoint]:
    """Up to `limit` endpoints with a smaller row id, newest first."""
    return [_endpoint(row) for row in await connection.fetch(_SQL["endpoints_page"], tenant.id, before_id, limit)]


async def update(connection: Connection, endpoint: Endpoint, wanted: EndpointSettings, now: datetime) -> Endpoint:
    """Write what may be changed of an endpoint."""
    row = await connection.fetchrow(
        _SQL["update_endpoint"],
        endpoint.id,
        wanted.url,
        list(wanted.events),
        wanted.description,
        wanted.api_version,
        wanted.is_active,
        now,
    )
    assert row is not None
    return _endpoint(row)


async def delete(connection: Connection, tenant: Tenant, public_id: str) -> bool:
    """Drop an endpoint and its deliveries; False when there is none."""
    return await connection.fetchval(_SQL["delete_endpoint"], tenant.id, public_id) is not None


async def secret(connection: Connection, endpoint: Endpoint) -> StoredSecret:
    """What an endpoint's messages are signed with, as stored."""
    row = await connection.fetchrow(_SQL["secret"], endpoint.id)
    assert row is not None
    return StoredSecret(row["secret"], row["secret_sealed"])


async def listening(connection: Connection, tenant_ids: Sequence[int]) -> list[Endpoint]:
    """Endpoints of these tenants that are switched on; none is dropped until the transaction ends."""
    return [_endpoint(row) for row in await connection.fetch(_SQL["listening"], tenant_ids)]


async def queue(connection: Connection, queued: Sequence[Queued], now: datetime) -> None:
    """Queue messages to be sent now."""
    columns = [
        [one[0] for one in queued],
        [one[1] for one in queued],
        [one[2] for one in queued],
        [one[3] for one in queued],
        *[[getattr(one[4], name) for one in queued] for name in _MESSAGE],
    ]
    await connection.execute(_SQL["insert_deliveries"], *columns, now)


async def insert_attempted(
    connection: Connection, endpoint: Endpoint, public_id: str, message: Message, attempt: Attempt, now: datetime
) -> None:
    """Note a message that was sent once, whatever came of it."""
    state: State = "delivered" if attempt.is_delivered else "failed"
    await connection.execute(
        _SQL["insert_attempted"],
        endpoint.id,
        public_id,
        message.event_id,
        message.topic,
        message.emitted_at,
        message.body,
        state,
        now,
        attempt.status,
        attempt.error,
    )


async def due(connection: Connection, now: datetime, of_each: int, but_not_of: Sequence[int]) -> list[Due]:
    """What is to be attempted now: the oldest `of_each` of every endpoint but these, in order."""
    rows = await connection.fetch(_SQL["due"], now, of_each, but_not_of)
    return [Due(_delivery(row), row["url"], StoredSecret(row["secret"], row["secret_sealed"])) for row in rows]


async def settle(connection: Connection, delivery: Delivery, attempt: Attempt, verdict: Verdict, now: datetime) -> bool:
    """Note what became of an attempt; False when somebody else did, or the delivery is gone."""
    noted = await connection.fetchval(
        _SQL["settle"],
        delivery.id,
        delivery.attempts,
        verdict.state,
        verdict.next_attempt_at,
        now,
        attempt.status,
        attempt.error,
    )
    return noted is not None


async def note_success(connection: Connection, endpoint_id: int) -> None:
    """An event was delivered."""
    await connection.execute(_SQL["note_success"], endpoint_id)


async def note_failure(connection: Connection, endpoint_id: int, failures_max: int, reason: str, now: datetime) -> str | None:
    """An event could not be delivered. Returns the endpoint's public id if that switched it off."""
    row = await connection.fetchrow(_SQL["note_failure"], endpoint_id, failures_max, reason, now)
    return None if row is None or row["is_active"] else row["public_id"]


async def give_up_pending(connection: Connection, endpoint_id: int, now: datetime, error: str) -> None:
    """Fail everything that waits for an endpoint."""
    await connection.execute(_SQL["give_up_pending"], endpoint_id, now, error)


async def deliveries(
    connection: Connection, endpoint: Endpoint, state: State | None, before_id: int | None, limit: int
) -> list[Delivery]:
    """Up to `limit` deliveries of an endpoint with a smaller row id, newest first."""
    return [_delivery(row) for row in await connection.fetch(_SQL["deliveries_page"], endpoint.id, state, before_id, limit)]


async def resend(connection: Connection, endpoint: Endpoint, public_id: str, now: datetime) -> Delivery | None:
    """Queue a delivery once more; None when the endpoint has none such."""
    row = await connection.fetchrow(_SQL["resend"], endpoint.id, public_id, now)
    return None if row is None else _delivery(row)


async def forget(connection: Connection, before: datetime, limit: int) -> int:
    """Drop up to `limit` deliveries that were finished before a moment. Returns how many."""
    return len(await connection.fetch(_SQL["forget_deliveries"], before, limit))


async def backlog(connection: Connection) -> int:
    """How many deliveries wait."""
    return await connection.fetchval(_SQL["backlog"])


def _one(row: Row | None) -> Endpoint | None:
    return None if row is None else _endpoint(row)


def _endpoint(row: Row) -> Endpoint:
    wanted = EndpointSettings(row["url"], tuple(row["events"]), row["description"], row["api_version"], row["is_active"])
    return Endpoint(
        row["id"],
        row["tenant_id"],
        row["public_id"],
        wanted,
        row["disabled_reason"],
        row["failures"],
        row["created_at"],
        row["updated_at"],
    )


def _delivery(row: Row) -> Delivery:
    message = Message(*(row[name] for name in _MESSAGE))
    return Delivery(row["id"], row["public_id"], row["endpoint_id"], message, *(row[name] for name in _DELIVERY))
