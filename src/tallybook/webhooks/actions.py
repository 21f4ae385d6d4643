"""What can be done with endpoints and deliveries: a verb a function, inside the caller's transaction. Times are real ones."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from tallybook.core import clock, errors, ids
from tallybook.core.tenant import Tenant
from tallybook.storage.postgres import Connection
from tallybook.tenancy import actions as tenancy
from tallybook.tenancy.model import Announcement
from tallybook.webhooks import rules, signing, store, topics
from tallybook.webhooks.model import Attempt, Delivery, Due, Endpoint, EndpointSettings, Message
from tallybook.webhooks.sealing import Keeper

DELIVERIES_KEPT = timedelta(days=30)
"""How long a finished delivery can be seen, and sent again."""
_FAN_OUT_MAX = 500


async def create(
    connection: Connection, tenant: Tenant, now: datetime, wanted: EndpointSettings, keeper: Keeper
) -> tuple[Endpoint, str]:
    """Add an endpoint. Returns it and its secret, which is not shown again. The URL was checked by the caller.

    Raises ValidationError for other settings that break a rule, and where the tenant has as many endpoints as it may.
    """
    wanted = rules.check(wanted)
    if await store.count(connection, tenant) >= rules.ENDPOINTS_MAX:
        raise errors.invalid("url", f"There are {rules.ENDPOINTS_MAX} endpoints already; delete one first.")
    secret = signing.new_secret()
    return await store.insert(connection, tenant, now, ids.new("whe"), wanted, keeper.seal(secret)), secret


async def get(connection: Connection, tenant: Tenant, public_id: str) -> Endpoint:
    """The endpoint. Raises NotFound."""
    return _found(await store.find(connection, tenant, public_id), public_id)


async def hold(connection: Connection, tenant: Tenant, public_id: str) -> Endpoint:
    """`get`, and nobody else changes it until the transaction ends."""
    return _found(await store.hold(connection, tenant, public_id), public_id)


async def update(connection: Connection, endpoint: Endpoint, wanted: EndpointSettings, now: datetime) -> Endpoint:
    """Change an endpoint that is held. What waits for one that is switched off is given up. Raises ValidationError."""
    changed = await store.update(connection, endpoint, rules.check(wanted), now)
    if not wanted.is_active:
        await store.give_up_pending(connection, endpoint.id, now, rules.DISABLED)
    return changed


async def delete(connection: Connection, tenant: Tenant, public_id: str) -> None:
    """Drop an endpoint for good. Raises NotFound."""
    if not await store.delete(connection, tenant, public_id):
        raise _not_found(public_id)


async def fan_out(connection: Connection, now: datetime, *, limit: int = _FAN_OUT_MAX) -> int:
    """Turn announcements that wait into deliveries to whoever asked for them, oldest first. Returns how many there were.

    Both happen in one transaction, so an announcement becomes deliveries once. Nobody asked: it is done all the same.
    """
    waiting = await tenancy.waiting_announcements(connection, limit=limit)
    if not waiting:
        return 0
    endpoints = await store.listening(connection, sorted({one.tenant.id for one in waiting}))
    queued = [queued for one in waiting for queued in _addressed(one, endpoints)]
    if queued:
        await store.queue(connection, queued, now)
    await tenancy.mark_announced(connection, [one.id for one in waiting], now)
    return len(waiting)


def _addressed(announcement: Announcement, endpoints: Sequence[Endpoint]) -> list[store.Queued]:
    tenant, topic, event_id = announcement.tenant, announcement.topic, ids.new("whev")
    return [
        (
            tenant.id,
            ids.new("whd"),
            endpoint.id,
            announcement.id,
            message(tenant, endpoint, topic, announcement.payload, event_id, announcement.created_at),
        )
        for endpoint in endpoints
        if endpoint.tenant_id == tenant.id and topic in endpoint.settings.events
    ]


def message(tenant: Tenant, endpoint: Endpoint, topic: str, data: object, event_id: str, emitted_at: datetime) -> Message:
    """An event in its envelope, as an endpoint gets it."""
    envelope = {
        "id": event_id,
        "event": topic,
        "timestamp": clock.iso(emitted_at),
        "organizationId": tenant.organization_id,
        "mode": "live" if tenant.livemode else "sandbox",
        "apiVersion": endpoint.settings.api_version or rules.VERSION,
        "data": data,
    }
    return Message(event_id, topic, emitted_at, msgspec.json.encode(envelope).decode())


def test_message(tenant: Tenant, endpoint: Endpoint, now: datetime) -> Message:
    """What is sent to see whether an endpoint is reached. Its topic is nobody's to subscribe to."""
    data = {"webhookId": endpoint.public_id, "message": "A test: this endpoint is reached."}
    return message(tenant, endpoint, topics.TEST, data, ids.new("whev"), now)


async def note_test(connection: Connection, endpoint: Endpoint, sent: Message, attempt: Attempt, now: datetime) -> str:
    """Keep what became of a test. Returns the delivery's id."""
    public_id = ids.new("whd")
    await store.insert_attempted(connection, endpoint, public_id, sent, attempt, now)
    return public_id


async def due(connection: Connection, now: datetime, *, of_each: int, but_not_of: Sequence[int]) -> list[Due]:
    """What is to be attempted now, by endpoint and in order."""
    return await store.due(connection, now, of_each, but_not_of)


async def settle(connection: Connection, delivery: Delivery, attempt: Attempt, now: datetime, jitter: float) -> str | None:
    """Note an attempt and what follows: done, tried again later, given up. Returns the endpoint's id if it was switched off by it."""
    verdict = rules.judge(delivery.attempts + 1, attempt, now, jitter)
    if not await store.settle(connection, delivery, attempt, verdict, now):
        return None
    if verdict.state == "delivered":
        await store.note_success(connection, delivery.endpoint_id)
    if verdict.state != "failed":
        return None
    disabled = await store.note_failure(connection, delivery.endpoint_id, rules.FAILURES_MAX, rules.DISABLED_REASON, now)
    if disabled is not None:
        await store.give_up_pending(connection, delivery.endpoint_id, now, rules.DISABLED)
    return disabled


async def resend(connection: Connection, endpoint: Endpoint, delivery_id: str, now: datetime) -> Delivery:
    """Send a delivery once more, with its old event id. Raises NotFound, and Conflict for an endpoint that is switched off."""
    if not endpoint.settings.is_active:
        raise errors.Conflict("webhook_inactive", f"Endpoint {endpoint.public_id} is switched off; set isActive first.")
    queued = await store.resend(connection, endpoint, delivery_id, now)
    if queued is None:
        raise errors.NotFound("webhook_delivery_not_found", f"Endpoint {endpoint.public_id} has no delivery {delivery_id[:64]}.")
    return queued


async def backlog(connection: Connection) -> int:
    """How many deliveries wait for their first or next attempt."""
    return await store.backlog(connection)


async def forget_deliveries(connection: Connection, now: datetime, *, limit: int = 10_000) -> int:
    """Drop deliveries that were finished a month ago, a bounded number at once. Returns how many."""
    return await store.forget(connection, now - DELIVERIES_KEPT, limit)


def _found(endpoint: Endpoint | None, public_id: str) -> Endpoint:
    if endpoint is None:
        raise _not_found(public_id)
    return endpoint


def _not_found(public_id: str) -> errors.NotFound:
    return errors.NotFound("webhook_not_found", f"There is no webhook endpoint {public_id[:64]}.", param="id")
