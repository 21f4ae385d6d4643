"""`tallybook rebuild`: make the till anew from the book, after Redis was lost, or was replaced by something that is not our till."""

import argparse
import asyncio
import os
from collections.abc import Iterator

from tallybook import app, settings
from tallybook.cli import reconcile as reconciling
from tallybook.flows import rebuild, reconcile
from tallybook.flows.rebuild import Rebuilt
from tallybook.flows.reconcile import Report


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument(
        "--force",
        action="store_true",
        help="even when the till is whole or another installation's; go on over entries its log has lost",
    )


def run(arguments: argparse.Namespace) -> int:
    """Rebuild on the stores of the environment, then reconcile. Running processes go on by themselves within seconds."""
    made, report = asyncio.run(_rebuild(force=arguments.force))
    print("\n".join([*lines(made), *reconciling.lines(report)]))
    return 0 if report.is_clean else 1


async def _rebuild(*, force: bool) -> tuple[Rebuilt, Report]:
    found = settings.from_environment(os.environ)
    settings.require_stores(found)
    async with app.services(found, name="rebuild", till_is_open=False) as services:
        made = await rebuild.rebuild(services, force=force)
        window_s = services.till.hot_window_s
        return made, await reconcile.reconcile(services.database, services.redis, found.partitions, hot_window_s=window_s)


def lines(made: Rebuilt) -> Iterator[str]:
    """What was found and done."""
    yield f"found {made.found}"
    yield f"{made.drained} entries of its log were read first"
    for lost in made.lost:
        yield f"LOST: entries of {lost}; its customers are billed once they are dropped, see `tallybook quarantine list`"
    if made.aside:
        yield f"{made.aside} logs of another installation were set aside in Redis, under {{pNN}}:aside:…"
    yield f"made anew: epoch {made.epoch}, {made.pools} pools, {made.identities} identities, {made.customers} customers with terms"
