"""`tallybook pools`: which customers are frozen because their pools did not reconcile, and how they are charged again."""

import argparse
import asyncio
import os
from collections.abc import Sequence

from tallybook import app, settings
from tallybook.cli import reconcile as reconciling
from tallybook.core import clock, errors
from tallybook.customers import store as customers
from tallybook.flows import freezing, reconcile
from tallybook.flows.services import Services
from tallybook.rollup import freezes


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("frozen", help="list frozen customers, and why")
    thaw = verbs.add_parser("thaw", help="charge a customer again, if all there is of it reconciles now")
    thaw.add_argument("--customer", required=True, help="the customer's cus_… id, as `frozen` shows it")
    thaw.add_argument("--force", action="store_true", help="also if it does not; the next reconciliation freezes it again")


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked; 1 when a customer stays frozen. Raises TallybookError for an unknown customer."""
    found = settings.from_environment(os.environ)
    settings.require_stores(found)
    code, lines = asyncio.run(_run(arguments, found))
    for line in lines:
        print(line)
    return code


async def _run(arguments: argparse.Namespace, found: settings.Settings) -> tuple[int, Sequence[str]]:
    async with app.services(found, name="pools", till_is_open=arguments.verb == "thaw") as services:
        if arguments.verb == "frozen":
            return 0, await frozen(services)
        return await thaw(services, arguments.customer, force=arguments.force)


async def frozen(services: Services) -> list[str]:
    """A line for each frozen customer, the longest frozen first."""
    async with services.database.acquire() as connection:
        found = await freezes.every(connection)
        names = await customers.public_ids(connection, [one.customer_id for one in found])
    named = [(names.get(one.customer_id, f"customer {one.customer_id}"), one) for one in found]
    return [f"{name}  tenant {one.tenant_id}  since {clock.iso(one.frozen_at)}  {one.reason}" for name, one in named]


async def thaw(services: Services, reference: str, *, force: bool) -> tuple[int, list[str]]:
    """Look at the customer once more, and thaw it when nothing differs, or by force. Raises NotFound."""
    async with services.database.acquire() as connection:
        found = await customers.anywhere(connection, reference)
    if found is None:
        raise errors.NotFound("customer_not_found", f"There is no customer {reference}; take the cus_… id that `frozen` shows.")
    tenant_id, customer_id = found
    report = await reconcile.customer(services.database, services.redis, services.settings.partitions, tenant_id, customer_id)
    lines = [] if report.is_clean else [*reconciling.lines(report)]
    if not report.is_clean and not force:
        return 1, [*lines, f"{reference} stays frozen: it does not reconcile"]
    await freezing.thaw(services, tenant_id, customer_id)
    return 0, [*lines, f"{reference} is charged again"]
