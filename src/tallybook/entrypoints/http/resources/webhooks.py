"""Webhook endpoints: create, list, get, update, delete, test; what became of their deliveries, and sending one again."""

import asyncio
import dataclasses
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from tallybook.core import clock, cursors, errors
from tallybook.entrypoints import webhook_sender
from tallybook.entrypoints.http.routing import Call, ListQuery, Operation, Page
from tallybook.webhooks import actions, addresses, model, rules, store, topics
from tallybook.webhooks.sealing import Keeper

_TESTS_MAX = 2
_RESOLVE_S = 3.0
_tests_under_way = asyncio.Semaphore(_TESTS_MAX)
"""Each holds a connection to the database while it waits for somebody else's server."""

Url = Annotated[str, msgspec.Meta(min_length=1, max_length=addresses.URL_CHARACTERS_MAX)]
_TOLD = f"Announced are {', '.join(topics.ANNOUNCED)}. The wire's other topics can be named and are not sent yet."
Events = Annotated[
    list[Annotated[str, msgspec.Meta(min_length=1, max_length=64)]], msgspec.Meta(min_length=1, max_length=200, description=_TOLD)
]
Description = Annotated[str, msgspec.Meta(max_length=rules.DESCRIPTION_CHARACTERS_MAX)]
Version = Annotated[str, msgspec.Meta(max_length=10, description="a date such as 2026-08-27")]


class CreateWebhook(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Where to send what."""

    url: Url
    events: Events
    description: Description | None = None
    api_version: Version | None = None


class UpdateWebhook(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """What to change of an endpoint."""

    url: Url | UnsetType = UNSET
    events: Events | UnsetType = UNSET
    description: Description | UnsetType | None = UNSET
    is_active: bool | UnsetType = UNSET
    api_version: Version | UnsetType | None = UNSET


class Webhook(msgspec.Struct, rename="camel", kw_only=True):
    """An endpoint without its secret. `disabledReason` says why it was switched off, if nobody asked for that."""

    object: str = "webhook"
    id: str
    url: str
    events: list[str]
    description: str | None
    is_active: bool
    disabled_reason: str | None
    api_version: str | None
    created_at: str


class CreatedWebhook(Webhook, kw_only=True):
    """An endpoint just made; `secretKey` is the only copy of its secret."""

    secret_key: str


class DeletedWebhook(msgspec.Struct, rename="camel", kw_only=True):
    """An endpoint that is gone."""

    object: str = "webhook"
    id: str
    deleted: bool = True


class WebhookTest(msgspec.Struct, rename="camel", kw_only=True):
    """What became of a test. `responseStatus` is what the endpoint answered; `error` says why it did not."""

    object: str = "webhook_delivery"
    success: bool
    delivery_id: str
    delivered_at: str
    response_status: int | None
    error: str | None


class WebhookDelivery(msgspec.Struct, rename="camel", kw_only=True):
    """One event on its way to an endpoint, or at its end. `payload` is the body as it is sent, in text."""

    object: str = "webhook_delivery"
    id: str
    event_id: str
    event: str
    state: str
    attempts: int
    next_attempt_at: str | None
    attempted_at: str | None
    response_status: int | None
    error: str | None
    payload: str
    created_at: str
    finished_at: str | None


class DeliveriesQuery(ListQuery, kw_only=True):
    """Which deliveries to list."""

    state: Literal["pending", "delivered", "failed"] | None = None


async def create(call: Call) -> CreatedWebhook:
    """Add an endpoint for the caller's organization and mode."""
    body: CreateWebhook = call.body
    await _check_url(call, body.url)
    wanted = model.EndpointSettings(body.url, tuple(body.events), body.description, body.api_version)
    keeper = Keeper(call.services.settings.webhook_key)
    made, secret = await actions.create(call.connection, call.tenant, call.real_now, wanted, keeper)
    return CreatedWebhook(secret_key=secret, **_fields(made))


async def list_all(call: Call) -> Page:
    """The endpoints of the caller's organization and mode, newest first."""
    query: ListQuery = call.query
    before = None if query.cursor is None else cursors.decode(query.cursor)
    found = await store.page(call.connection, call.tenant, before, query.limit + 1)
    page, next_cursor = cursors.cut(found, query.limit, lambda endpoint: endpoint.id)
    return Page([_shown(endpoint) for endpoint in page], next_cursor)


async def get(call: Call) -> Webhook:
    """One endpoint."""
    return _shown(await actions.get(call.connection, call.tenant, call.path["id"]))


async def update(call: Call) -> Webhook:
    """Change what is given; switching it on again begins with a clean record."""
    body: UpdateWebhook = call.body
    endpoint = await actions.hold(call.connection, call.tenant, call.path["id"])
    changes = {name: getattr(body, name) for name in body.__struct_fields__ if getattr(body, name) is not UNSET}
    if body.url is not UNSET:
        await _check_url(call, body.url)
    if "events" in changes:
        changes["events"] = tuple(changes["events"])
    wanted = dataclasses.replace(endpoint.settings, **changes)
    return _shown(await actions.update(call.connection, endpoint, wanted, call.real_now))


async def delete(call: Call) -> DeletedWebhook:
    """Drop an endpoint and its deliveries for good."""
    await actions.delete(call.connection, call.tenant, call.path["id"])
    return DeletedWebhook(id=call.path["id"])


async def test(call: Call) -> WebhookTest:
    """Send a test event now, once, and say what came of it."""
    endpoint = await actions.get(call.connection, call.tenant, call.path["id"])
    if _tests_under_way.locked():
        raise errors.RateLimited(f"{_TESTS_MAX} tests are under way; send this again shortly.")
    settings = call.services.settings
    sent = actions.test_message(call.tenant, endpoint, call.real_now)
    secret = await store.secret(call.connection, endpoint)
    async with (
        _tests_under_way,
        webhook_sender.open_sender(Keeper(settings.webhook_key), allow_private=settings.webhook_allow_private) as sender,
    ):
        attempt = await sender.send(endpoint.settings.url, sent, secret, call.real_now)
    at = call.services.clock()
    delivery_id = await actions.note_test(call.connection, endpoint, sent, attempt, at)
    return WebhookTest(
        success=attempt.is_delivered,
        delivery_id=delivery_id,
        delivered_at=clock.iso(at),
        response_status=attempt.status,
        error=attempt.error,
    )


async def list_deliveries(call: Call) -> Page:
    """What became of an endpoint's messages, newest first; kept for 30 days after their end."""
    query: DeliveriesQuery = call.query
    endpoint = await actions.get(call.connection, call.tenant, call.path["id"])
    before = None if query.cursor is None else cursors.decode(query.cursor)
    found = await store.deliveries(call.connection, endpoint, query.state, before, query.limit + 1)
    page, next_cursor = cursors.cut(found, query.limit, lambda delivery: delivery.id)
    return Page([_delivery(delivery) for delivery in page], next_cursor)


async def resend(call: Call) -> WebhookDelivery:
    """Send a delivery once more, as if it were new but with the event id it had."""
    endpoint = await actions.hold(call.connection, call.tenant, call.path["id"])
    return _delivery(await actions.resend(call.connection, endpoint, call.path["deliveryId"], call.real_now))


async def _check_url(call: Call, url: str) -> None:
    """Raises ValidationError for a URL that no webhook may go to. What its name means is looked at again for each attempt."""
    allow_private = call.services.settings.webhook_allow_private
    addresses.check(url, allow_private=allow_private)
    if allow_private:
        return
    try:
        async with asyncio.timeout(_RESOLVE_S):
            is_private = await webhook_sender.means_private(url)
    except TimeoutError:
        return
    if is_private:
        raise errors.invalid("url", "url can't be the address of an endpoint: its name means an address that is not public.")


def _shown(endpoint: model.Endpoint) -> Webhook:
    return Webhook(**_fields(endpoint))


def _fields(endpoint: model.Endpoint) -> dict[str, Any]:
    settings = endpoint.settings
    return {
        "id": endpoint.public_id,
        "url": settings.url,
        "events": list(settings.events),
        "description": settings.description,
        "is_active": settings.is_active,
        "disabled_reason": endpoint.disabled_reason,
        "api_version": settings.api_version,
        "created_at": clock.iso(endpoint.created_at),
    }


def _delivery(delivery: model.Delivery) -> WebhookDelivery:
    next_at, attempted_at, finished_at = delivery.next_attempt_at, delivery.attempted_at, delivery.finished_at
    return WebhookDelivery(
        id=delivery.public_id,
        event_id=delivery.message.event_id,
        event=delivery.message.topic,
        state=delivery.state,
        attempts=delivery.attempts,
        next_attempt_at=None if next_at is None else clock.iso(next_at),
        attempted_at=None if attempted_at is None else clock.iso(attempted_at),
        response_status=delivery.response_status,
        error=delivery.error,
        payload=delivery.message.body,
        created_at=clock.iso(delivery.created_at),
        finished_at=None if finished_at is None else clock.iso(finished_at),
    )


_EXAMPLE_URL = "https://example.com/webhooks"

OPERATIONS = (
    Operation(
        method="POST",
        path="/webhooks",
        id="create-webhook-endpoint",
        summary="Add an endpoint; its signing secret is shown once.",
        permission="webhook",
        handler=create,
        body=CreateWebhook,
        returns=CreatedWebhook,
        secret=True,
        example={"url": _EXAMPLE_URL, "events": ["invoice.created", "balance.low"]},
    ),
    Operation(
        method="GET",
        path="/webhooks",
        id="list-webhook-endpoints",
        summary="List endpoints without their secrets, newest first.",
        permission="webhook",
        handler=list_all,
        query=ListQuery,
        returns=Webhook,
        is_list=True,
    ),
    Operation(
        method="GET",
        path="/webhooks/{id}",
        id="get-webhook-endpoint",
        summary="Get an endpoint.",
        permission="webhook",
        handler=get,
        returns=Webhook,
    ),
    Operation(
        method="PATCH",
        path="/webhooks/{id}",
        id="update-webhook-endpoint",
        summary="Change what is given of an endpoint, or switch it off and on.",
        permission="webhook",
        handler=update,
        body=UpdateWebhook,
        returns=Webhook,
        example={"isActive": True},
    ),
    Operation(
        method="DELETE",
        path="/webhooks/{id}",
        id="delete-webhook-endpoint",
        summary="Drop an endpoint and its deliveries for good.",
        permission="webhook",
        handler=delete,
        returns=DeletedWebhook,
    ),
    Operation(
        method="POST",
        path="/webhooks/{id}/test",
        id="test-webhook-endpoint",
        summary="Send a test event to an endpoint now, and say what it answered.",
        permission="webhook",
        handler=test,
        returns=WebhookTest,
    ),
    Operation(
        method="GET",
        path="/webhooks/{id}/deliveries",
        id="list-webhook-deliveries",
        summary="List what became of an endpoint's messages, newest first.",
        permission="webhook",
        handler=list_deliveries,
        query=DeliveriesQuery,
        returns=WebhookDelivery,
        is_list=True,
    ),
    Operation(
        method="POST",
        path="/webhooks/{id}/deliveries/{deliveryId}/resend",
        id="resend-webhook-delivery",
        summary="Send a delivery once more, with the event id it had.",
        permission="webhook",
        handler=resend,
        returns=WebhookDelivery,
    ),
)
