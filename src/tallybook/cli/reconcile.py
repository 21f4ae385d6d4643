"""`tallybook reconcile`: print each sum of the books in both ways; exit with 1 when anything differs."""

import argparse
import asyncio
import functools
import json
import os
from collections.abc import Iterator

from tallybook import app, settings
from tallybook.flows import freezing, reconcile
from tallybook.flows.reconcile import Report


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    parser.add_argument("--no-freeze", action="store_true", help="only look: do not freeze customers whose pools differ")


def run(arguments: argparse.Namespace) -> int:
    """Reconcile on the stores of the environment and print what was found."""
    report = asyncio.run(_reconcile(freeze=not arguments.no_freeze))
    print(as_json(report) if arguments.json else "\n".join(lines(report)))
    return 0 if report.is_clean else 1


async def _reconcile(*, freeze: bool) -> Report:
    async with app.services(settings.from_environment(os.environ), name="reconcile") as services:
        partitions = services.settings.partitions
        freezer = functools.partial(freezing.freeze, services)
        window_s = services.till.hot_window_s
        return await reconcile.reconcile(services.database, services.redis, partitions, freezer if freeze else None, window_s)


def lines(report: Report) -> Iterator[str]:
    """One line a sum, with the places where it differs, one a pool that differs, and the verdict."""
    width = max(len(one.what) for one in report.sums)
    for one in report.sums:
        verdict = "ok" if one.is_equal else f"DIFFERENT ({one.differing} places)" if one.differing else "DIFFERENT"
        yield f"{one.what:<{width}}  {one.left:>24,}  {one.right:>24,}  {verdict}"
        yield from (f"  {place}" for place in one.places)
    for pool in report.differences:
        yield f"tenant {pool.tenant_id} customer {pool.customer_id} pool {pool.pool}: {pool.what}: {pool.left} and {pool.right}"
    for customer_id in report.frozen:
        yield f"customer {customer_id} is frozen"
    yield "reconciled: yes" if report.is_clean else "reconciled: NO"


def as_json(report: Report) -> str:
    """The same for programs; amounts are text, because many readers of JSON round large numbers."""
    return json.dumps(
        {
            "reconciled": report.is_clean,
            "sums": [
                {
                    "what": one.what,
                    "left": str(one.left),
                    "right": str(one.right),
                    "differing": one.differing,
                    "places": list(one.places),
                    "ok": one.is_equal,
                }
                for one in report.sums
            ],
            "pools": [
                {
                    "tenantId": pool.tenant_id,
                    "customerId": pool.customer_id,
                    "pool": pool.pool,
                    "what": pool.what,
                    "left": None if pool.left is None else str(pool.left),
                    "right": None if pool.right is None else str(pool.right),
                }
                for pool in report.differences
            ],
            "frozen": list(report.frozen),
        }
    )
