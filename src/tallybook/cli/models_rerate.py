"""`tallybook models rerate`: show what past usage would cost by the prices known now, and adjust balances by the difference."""

import argparse
import asyncio
import contextlib
import os

from tallybook import settings
from tallybook.cli import dates
from tallybook.core import clock, errors, money
from tallybook.customers import actions as customers
from tallybook.customers import store as customer_store
from tallybook.flows import rerate
from tallybook.flows.rerate import Difference, Window
from tallybook.flows.services import Services
from tallybook.tenancy import store as tenancy_store


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument(
        "--from", dest="starts_at", type=dates.moment, required=True, metavar="DATE", help="a whole hour, inclusive"
    )
    parser.add_argument("--to", dest="ends_at", type=dates.moment, required=True, metavar="DATE", help="a whole hour, exclusive")
    parser.add_argument("--organization", default="", metavar="ORG_ID", help="default: all, in both modes")
    parser.add_argument("--live", action="store_true", help="live mode of the organization; default: its sandbox")
    parser.add_argument("--customer", default="", metavar="ID", help="one customer of the organization, by our id or its own")
    parser.add_argument("--dry-run", action="store_true", help="only show the differences")


def run(arguments: argparse.Namespace) -> int:
    """Do it on the stores of the environment. Returns the exit code: 1 when something that is owed could not be written."""
    from tallybook import app

    found = settings.from_environment(os.environ)
    settings.require_stores(found)

    async def work() -> int:
        async with app.services(found, name="rerate") as services:
            return await perform(services, arguments)

    return asyncio.run(work())


async def perform(services: Services, arguments: argparse.Namespace) -> int:
    """Survey, say, and unless it is a dry run write; customer by customer."""
    window = await _window(services, arguments)
    owed, failed, seen = 0, 0, 0
    async with contextlib.nullcontext() if arguments.dry_run else rerate.alone(services):
        async for difference in rerate.survey(services, window):
            seen += 1
            owed += difference.total.owed
            _say(_summary(difference))
            if not arguments.dry_run and difference.open_hours:
                failed += not await _write(services, difference)
    verb = "would be" if arguments.dry_run else "was"
    _say(
        f"{seen} customers; {_signed(owed)} {verb} owed"
        + (f"; {failed} customers could not be adjusted in full" if failed else "")
    )
    return 1 if failed else 0


async def _window(services: Services, arguments: argparse.Namespace) -> Window:
    if not arguments.organization:
        if arguments.customer:
            raise errors.invalid("customer", "--customer needs --organization")
        return Window(arguments.starts_at, arguments.ends_at)
    async with services.database.acquire() as connection:
        tenant = await tenancy_store.find_tenant(connection, arguments.organization, livemode=arguments.live)
        if tenant is None:
            raise errors.NotFound("organization_not_found", f"there is no organization {arguments.organization}")
        if not arguments.customer:
            return Window(arguments.starts_at, arguments.ends_at, tenant.id)
        customer = await customer_store.find(connection, tenant, arguments.customer)
    if customer is None:
        raise customers.not_found(arguments.customer)
    return Window(arguments.starts_at, arguments.ends_at, tenant.id, customer.id)


async def _write(services: Services, difference: Difference) -> bool:
    written = await rerate.write(services, difference)
    for one in written.adjusted:
        _say(f"  {clock.iso(one.hour)}  {one.id}  {_signed(one.nano)}")
    if written.refused is not None:
        _say(f"  not adjusted: {written.refused}")
    return written.refused is None


def _summary(difference: Difference) -> str:
    total = difference.total
    unpriced = f", {difference.unpriced} without a price now" if difference.unpriced else ""
    return (
        f"{difference.customer.public_id}  {difference.events} events, {difference.changed} priced otherwise{unpriced}: "
        f"took {money.usd(total.took)}, should take {money.usd(total.should)}, adjusted before {_signed(total.rerated)}, "
        f"difference {_signed(total.owed)}"
    )


def _signed(nano: int) -> str:
    return f"+{money.usd(nano)}" if nano > 0 else money.usd(nano)


def _say(line: str) -> None:
    print(line)
