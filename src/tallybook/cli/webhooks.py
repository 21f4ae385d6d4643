"""`tallybook webhooks`: which endpoints there are and how they do, and whether one is reached from here."""

import argparse
import asyncio
import os
from collections.abc import Sequence

from tallybook import settings
from tallybook.cli import keys
from tallybook.core import clock
from tallybook.core.tenant import Tenant
from tallybook.settings import Settings, SettingsError
from tallybook.storage import postgres
from tallybook.storage.postgres import Connection
from tallybook.webhooks import actions, store
from tallybook.webhooks.model import Attempt, Delivery, Endpoint
from tallybook.webhooks.sealing import Keeper

_LISTED_MAX = 1000
_DELIVERIES = 20


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    keys.add_tenant(verbs.add_parser("list", help="list endpoints, and whether they are switched on"))
    for verb, about in (
        ("test", "send a test event to an endpoint, and say what it answered"),
        ("deliveries", f"the last {_DELIVERIES} deliveries to an endpoint"),
    ):
        asked = verbs.add_parser(verb, help=about)
        asked.add_argument("endpoint", help="the endpoint's id (whe_…), as `list` shows it")
        keys.add_tenant(asked)


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked; 1 when a test was not taken. Raises TallybookError for an unknown organization or endpoint."""
    found = settings.from_environment(os.environ)
    if not found.postgres_url:
        raise SettingsError("TALLYBOOK_POSTGRES_URL is not set (for example postgresql://user@host/tallybook)")
    code, lines = asyncio.run(_run(arguments, found))
    for line in lines:
        print(line)
    return code


async def _run(arguments: argparse.Namespace, found: Settings) -> tuple[int, Sequence[str]]:
    connection = await postgres.connect_one(found.postgres_url)
    try:
        tenant = await keys.tenant_of(connection, arguments)
        if arguments.verb == "list":
            listed = await store.page(connection, tenant, None, _LISTED_MAX)
            return 0, [_described(endpoint) for endpoint in listed]
        endpoint = await actions.get(connection, tenant, arguments.endpoint)
        if arguments.verb == "deliveries":
            return 0, [_delivery(one) for one in await store.deliveries(connection, endpoint, None, None, _DELIVERIES)]
        attempt = await _test(connection, tenant, endpoint, found)
    finally:
        await connection.close()
    return (0 if attempt.is_delivered else 1), [f"{endpoint.settings.url}  {_answered(attempt.status, attempt.error)}"]


async def _test(connection: Connection, tenant: Tenant, endpoint: Endpoint, found: Settings) -> Attempt:
    from tallybook.entrypoints import webhook_sender

    sent = actions.test_message(tenant, endpoint, clock.real_clock())
    secret = await store.secret(connection, endpoint)
    keeper = Keeper(found.webhook_key)
    async with webhook_sender.open_sender(keeper, allow_private=found.webhook_allow_private) as sender:
        attempt = await sender.send(endpoint.settings.url, sent, secret, clock.real_clock())
    await actions.note_test(connection, endpoint, sent, attempt, clock.real_clock())
    return attempt


def _described(endpoint: Endpoint) -> str:
    state = "on" if endpoint.settings.is_active else f"OFF ({endpoint.disabled_reason or 'asked for'})"
    return f"{endpoint.public_id}  {state}  {endpoint.settings.url}  {', '.join(endpoint.settings.events)}"


def _delivery(one: Delivery) -> str:
    following = "" if one.next_attempt_at is None else f"  next {clock.iso(one.next_attempt_at)}"
    answered = "not tried yet" if one.attempts == 0 else _answered(one.response_status, one.error)
    return f"{one.public_id}  {one.message.topic}  {one.state}  {one.attempts} attempts  {answered}{following}"


def _answered(status: int | None, error: str | None) -> str:
    return f"answered {status}" if status is not None else f"no answer: {error}"
