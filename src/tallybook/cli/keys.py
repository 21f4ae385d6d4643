"""`tallybook keys`: make, list and revoke API keys. The text of a new key is printed once; afterwards only its hash is known."""

import argparse
import asyncio
import os
from collections.abc import Sequence
from datetime import datetime

from tallybook import settings
from tallybook.core import clock, errors
from tallybook.core.tenant import Tenant
from tallybook.settings import SettingsError
from tallybook.storage import postgres
from tallybook.storage.postgres import Connection
from tallybook.tenancy import actions, rules, store
from tallybook.tenancy.model import ApiKey

_LISTED_MAX = 1000


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    create = verbs.add_parser("create", help="make a key and print it, once")
    add_tenant(create)
    create.add_argument("--name", default="command line", help="what the key is for")
    create.add_argument(
        "--expires-in-days", type=int, help=f"1 to {rules.EXPIRES_IN_DAYS_MAX}; without it the key does not expire"
    )
    create.add_argument("--new-organization", metavar="NAME", help="make an organization of this name and a key for it")
    add_tenant(verbs.add_parser("list", help="list keys that were not revoked"))
    revoke = verbs.add_parser("revoke", help="make a key useless, everywhere within five seconds")
    revoke.add_argument("key", help="the key's id (key_…), as `list` shows it")


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked. Raises TallybookError for an unknown organization or key."""
    url = settings.from_environment(os.environ).postgres_url
    if not url:
        raise SettingsError("TALLYBOOK_POSTGRES_URL is not set (for example postgresql://user@host/tallybook)")
    for line in asyncio.run(_run(url, arguments, clock.real_clock())):
        print(line)
    return 0


async def _run(url: str, arguments: argparse.Namespace, now: datetime) -> Sequence[str]:
    connection = await postgres.connect_one(url)
    try:
        async with connection.transaction():
            return await _VERBS[arguments.verb](connection, arguments, now)
    finally:
        await connection.close()


async def _create(connection: Connection, arguments: argparse.Namespace, now: datetime) -> Sequence[str]:
    tenant = await tenant_of(connection, arguments)
    made = await actions.create_api_key(
        connection, tenant, now, arguments.name, expires_in_days=arguments.expires_in_days, creator=None
    )
    return [_described(made.key, tenant), f"api key: {made.text}", "It is not shown again."]


async def _list(connection: Connection, arguments: argparse.Namespace, now: datetime) -> Sequence[str]:
    tenant = await tenant_of(connection, arguments)
    keys = await actions.list_api_keys(connection, tenant, limit=_LISTED_MAX)
    return [
        _described(key, tenant) + ("  EXPIRED" if key.expires_at is not None and key.expires_at <= now else "") for key in keys
    ]


async def _revoke(connection: Connection, arguments: argparse.Namespace, now: datetime) -> Sequence[str]:
    tenant = await store.find_tenant_of_key(connection, arguments.key)
    if tenant is None:
        raise errors.NotFound("api_key_not_found", f"There is no API key {arguments.key}.")
    await actions.revoke_api_key(connection, tenant, now, arguments.key)
    return [f"{arguments.key} is revoked"]


_VERBS = {"create": _create, "list": _list, "revoke": _revoke}


async def tenant_of(connection: Connection, arguments: argparse.Namespace) -> Tenant:
    """The organization and mode asked for; the only organization needs no naming."""
    if getattr(arguments, "new_organization", None) is not None:
        live, sandbox = await actions.create_organization(connection, arguments.new_organization)
        return live if arguments.live else sandbox
    organization = arguments.organization or await _only_organization(connection)
    tenant = await store.find_tenant(connection, organization, livemode=arguments.live)
    if tenant is None:
        raise errors.NotFound("organization_not_found", f"There is no organization {organization}.")
    return tenant


async def _only_organization(connection: Connection) -> str:
    found = await store.organizations(connection, limit=_LISTED_MAX)
    if len(found) == 1:
        return found[0]
    listed = ", ".join(found) or "none yet; `tallybook keys create --new-organization NAME` makes one"
    raise errors.NotFound("organization_not_found", f"Say which with --organization: {listed}.")


def add_tenant(parser: argparse.ArgumentParser) -> None:
    """Arguments that say which organization and mode."""
    parser.add_argument("--organization", help="org_…; not needed when there is only one")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--live", action="store_true", default=False, help="the live mode")
    mode.add_argument("--sandbox", action="store_false", dest="live", default=False, help="the sandbox (default)")


def _described(key: ApiKey, tenant: Tenant) -> str:
    mode = "live" if tenant.livemode else "sandbox"
    expires = "never" if key.expires_at is None else clock.iso(key.expires_at)
    used = "never" if key.last_used_at is None else clock.iso(key.last_used_at)
    return (
        f"{key.id}  {rules.prefix(key.public_part)}  {tenant.organization_id}  {mode}  expires {expires}  used {used}  {key.name}"
    )
