"""`tallybook quarantine`: what the log held and the book could not take. Each item is kept whole until it is applied or dropped."""

import argparse
import asyncio
import os
from collections.abc import Sequence

import msgspec

from tallybook import settings
from tallybook.core import clock, usage_log
from tallybook.core.clock import real_clock
from tallybook.rollup import quarantine
from tallybook.rollup.quarantine import Item
from tallybook.settings import SettingsError
from tallybook.storage import postgres
from tallybook.storage.postgres import Pool

_decode_applied = msgspec.msgpack.Decoder(usage_log.Applied).decode


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    shown = verbs.add_parser("list", help="what is in quarantine, and why")
    shown.add_argument("--dropped", action="store_true", help="also what was dropped")
    retry = verbs.add_parser("retry", help="apply an item again, after its cause is gone")
    retry.add_argument("item", type=int, help="its number, as `list` shows it")
    drop = verbs.add_parser("drop", help="give an item up; its row is kept for the record")
    drop.add_argument("item", type=int, help="its number, as `list` shows it")
    drop.add_argument("--because", required=True, help="why, for whoever looks at it later")


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked. Raises TallybookError for an item that is not there or still can't be applied."""
    url = settings.from_environment(os.environ).postgres_url
    if not url:
        raise SettingsError("TALLYBOOK_POSTGRES_URL is not set (for example postgresql://user@host/tallybook)")
    for line in asyncio.run(_run(url, arguments)):
        print(line)
    return 0


async def _run(url: str, arguments: argparse.Namespace) -> Sequence[str]:
    database = await postgres.connect(url, connections_max=2, application_name="tallybook quarantine")
    try:
        return await _VERBS[arguments.verb](database, arguments)
    finally:
        await database.close()


async def _list(database: Pool, arguments: argparse.Namespace) -> list[str]:
    items = await quarantine.every(database, with_dropped=arguments.dropped)
    return [described(item) for item in items] or ["nothing is in quarantine"]


async def _retry(database: Pool, arguments: argparse.Namespace) -> list[str]:
    effects = await quarantine.retry(database, arguments.item, real_clock())
    left = f"; {len(effects.quarantined)} items of it stay" if effects.quarantined else ""
    return [f"item {arguments.item} is applied: {effects.events} events, {len(effects.pools)} pools changed{left}"]


async def _drop(database: Pool, arguments: argparse.Namespace) -> list[str]:
    await quarantine.drop(database, arguments.item, arguments.because, real_clock())
    return [f"item {arguments.item} is dropped"]


_VERBS = {"list": _list, "retry": _retry, "drop": _drop}


def described(item: Item) -> str:
    """One line: where it stood in the log, whose it is as far as it can be read, and why it is here."""
    what = item.what
    place = (
        "whole entry"
        if what.position is None
        else f"opening {-1 - what.position}"
        if what.position < 0
        else f"record {what.position}"
    )
    booked = "pools have it" if what.booked else "pools lack it"
    dropped = "" if item.dropped_at is None else f"  DROPPED {clock.iso(item.dropped_at)}: {item.dropped_because}"
    return f"{item.id}  partition {what.partition} entry {what.seq} {place}  {booked}  {_whose(item)}{what.reason}{dropped}"


def _whose(item: Item) -> str:
    if item.what.position is None or item.what.position < 0:
        return ""
    try:
        record = _decode_applied(item.what.payload).record
    except msgspec.MsgspecError:
        return ""
    return f"tenant {record.tenant_id} customer {record.customer_id} pool {record.pool!r} amount {record.amount}  "
