"""`tallybook models`: the AI model catalog by hand. Sync it, look at it, ask what a request costs."""

import argparse
import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from tallybook import settings
from tallybook.ai_models import actions, catalog_files, decimals, fetch, gateway, rules, sync
from tallybook.ai_models.fetch import FetchError
from tallybook.ai_models.gateway import UnreadableListError
from tallybook.ai_models.model import Plan, Remark, SyncReport, SyncStatus
from tallybook.cli import dates, models_own, models_rerate
from tallybook.core import clock, money
from tallybook.flows import price_changes
from tallybook.pricing import cost
from tallybook.pricing.price_book import PriceBook
from tallybook.pricing.rates import SERVICE_TIERS, Price
from tallybook.settings import SettingsError
from tallybook.storage import postgres
from tallybook.storage.postgres import Pool

_Result = TypeVar("_Result")
_PAGE = 1_000


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands."""
    commands = parser.add_subparsers(dest="models_command", required=True, metavar="COMMAND")
    one = commands.add_parser("sync", help="fetch the list and publish what is safe of it")
    one.add_argument("--source", default="", help="an address or a file; default: TALLYBOOK_CATALOG_URL")
    one.add_argument("--catalog", type=Path, help="write catalog files in this folder instead of the database")
    one.add_argument("--origin", default="", help="what to record as the source of a file, such as the address it came from")
    one.add_argument("--fetched-at", type=dates.moment, metavar="DATE", help="when a file was fetched; default: now")
    one.add_argument("--accept", action="append", default=[], metavar="MODEL", help="publish this model's price jump; repeatable")
    commands.add_parser("status", help="show how the last syncs ended and what is in quarantine")
    one = commands.add_parser("changes", help="list changes of models and prices")
    one.add_argument("--since", type=dates.moment, required=True, metavar="DATE", help="2026-11-01, or a full ISO time")
    one.add_argument("--described", action="store_true", help="changes of names and limits too")
    one = commands.add_parser("list", help="list models and their prices in USD per million tokens, input / output")
    one.add_argument("search", nargs="?", default="", help="a part of the id")
    one = commands.add_parser("quote", help="say what one request costs, and how its model was matched")
    _configure_quote(one)
    models_rerate.configure(commands.add_parser("rerate", help="price past usage again, and adjust what it took"))
    models_own.configure_alias(commands.add_parser("alias", help="an organization's own words for models"))
    models_own.configure_override(commands.add_parser("override", help="an organization's own prices, by id or glob"))


def _configure_quote(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model")
    for name in ("input", "output", "cache-read", "cache-write", "cache-write-1h"):
        parser.add_argument(f"--{name}", type=int, default=0, metavar="TOKENS")
    parser.add_argument("--web-searches", type=int, default=0, metavar="CALLS")
    parser.add_argument("--service-tier", choices=("standard", *SERVICE_TIERS))
    parser.add_argument("--margin", type=int, default=0, metavar="PERCENT")
    parser.add_argument("--at", type=dates.moment, metavar="DATE", help="price it as of this time; default: now")


def run(arguments: argparse.Namespace) -> int:
    """Do one of them. Returns the exit code."""
    command: str = arguments.models_command
    if command == "rerate":
        return models_rerate.run(arguments)
    if command in models_own.COMMANDS:
        return _on_database(lambda database: models_own.run(arguments, database))
    return _COMMANDS[command](arguments)


def _sync(arguments: argparse.Namespace) -> int:
    source = arguments.source or settings.from_environment(os.environ).catalog_url
    if not source:
        raise SettingsError("name the list with --source, or set TALLYBOOK_CATALOG_URL")
    if arguments.catalog is not None:
        return _sync_files(source, arguments)
    report = _on_database(
        lambda database: sync.sync_once(
            database, source, clock.real_clock, accepted=frozenset(arguments.accept), announce=price_changes.announce
        )
    )
    _say(_summary(report))
    _say_plan(report.plan)
    return 0 if report.status in (SyncStatus.PUBLISHED, SyncStatus.UNCHANGED) else 1


def _sync_files(source: str, arguments: argparse.Namespace) -> int:
    """Bring catalog files up to date. The origin of a file is its bare name unless it is stated: paths are nobody's business."""
    folder: Path = arguments.catalog
    try:
        body = fetch.fetch_now(source).body or b""
        listed = gateway.parse(body)
    except (FetchError, UnreadableListError) as error:
        _say(f"failed: {error}")
        return 1
    known = catalog_files.read(folder) if (folder / catalog_files.MANIFEST).is_file() else None
    plan = rules.plan(known.known() if known else {}, listed, frozenset(arguments.accept))
    _say_plan(plan)
    if plan.refused is not None:
        _say(f"refused: {plan.refused}")
        return 1
    name = arguments.origin or (source if fetch.is_address(source) else Path(source).name)
    digest = hashlib.sha256(body).hexdigest()
    if known is not None and not plan.changes and known.digest == digest:
        _say("unchanged: nothing written")
        return 0
    catalog = catalog_files.apply(known, plan, name, arguments.fetched_at or clock.real_clock(), digest)
    catalog_files.write(folder, catalog)
    _say(f"written: {len(catalog.entries)} models, {catalog.priced()} priced; {_counts(plan)}")
    return 0


def _status(arguments: argparse.Namespace) -> int:
    del arguments

    async def show(database: Pool) -> int:
        async with postgres.snapshot(database) as connection:
            status = await actions.catalog_status(connection)
            syncs = await actions.last_syncs(connection)
        _say(f"catalog version {status.version} since {clock.iso(status.changed_at)}")
        good = status.good
        _say(f"last good sync {'none' if good is None else clock.iso(good.started_at) + ' from ' + good.source}")
        for each in syncs:
            counted = " ".join(f"{kind}={number}" for kind, number in each.changes.items())
            error = f" {each.error}" if each.error else ""
            taken = f"models={each.models} priced={each.priced} {counted}".rstrip()
            _say(f"{clock.iso(each.started_at)} {each.status} {each.source} {taken}{error}")
        for remark in syncs[0].quarantined if syncs else ():
            _say(_remark("quarantined", remark))
        return 0 if syncs and syncs[0].status in (SyncStatus.PUBLISHED, SyncStatus.UNCHANGED) else 1

    return _on_database(show)


def _changes(arguments: argparse.Namespace) -> int:
    async def show(database: Pool) -> int:
        after: int | None = 0
        while after is not None:
            async with database.acquire() as connection:
                changes = await actions.changes_since(
                    connection, arguments.since, described=arguments.described, after=after, limit=_PAGE
                )
            for each in changes:
                _say(f"{clock.iso(each.changed_at)} {each.kind} {each.model_id} {_shown(each.before)} -> {_shown(each.after)}")
            after = changes[-1].id if len(changes) == _PAGE else None
        return 0

    return _on_database(show)


def _list(arguments: argparse.Namespace) -> int:
    listed = _book().entries()
    for entry in listed:
        if arguments.search.lower() in entry.model_id.lower():
            row = entry.rows[-1] if entry.rows else None
            _say(f"{entry.model_id}  {_shown(row.listed if row else None)}{'  removed' if entry.tombstoned else ''}")
    return 0


def _quote(arguments: argparse.Namespace) -> int:
    """Price a request with the database's catalog, or with the packaged one where no database is named."""
    at_ms = clock.to_ms(arguments.at or clock.real_clock())
    resolved = _book().resolve(0, arguments.model, at_ms)
    row = resolved.entry.row_at(at_ms)
    usage = cost.TokenUsage(
        arguments.input,
        arguments.output,
        arguments.cache_read,
        arguments.cache_write,
        arguments.cache_write_1h,
        arguments.web_searches,
        arguments.service_tier,
    )
    priced = cost.price(row, usage, arguments.margin * (money.BPS // 100))
    _say(f"model   {resolved.model_id} (matched by {resolved.matched_by})")
    _say(f"cost    {money.usd(priced.cost_nano)}")
    _say(f"charge  {money.usd(priced.charge_nano)} with {arguments.margin} % margin")
    return 0


def _book() -> PriceBook:
    if settings.from_environment(os.environ).postgres_url:
        return _on_database(_load_book)
    return catalog_files.book(catalog_files.read(catalog_files.packaged()))


async def _load_book(database: Pool) -> PriceBook:
    async with database.acquire() as connection:
        return await actions.load_book(connection)


def _on_database(work: Callable[[Pool], Awaitable[_Result]]) -> _Result:
    url = settings.from_environment(os.environ).postgres_url
    if not url:
        raise SettingsError("TALLYBOOK_POSTGRES_URL is not set (for example postgresql://user@host/tallybook)")

    async def connected() -> _Result:
        database = await postgres.connect(url, connections_max=3, application_name="tallybook-models")
        try:
            return await work(database)
        finally:
            await database.close()

    return asyncio.run(connected())


def _summary(report: SyncReport) -> str:
    what = report.error or f"{report.models} models, {report.priced} priced; {_counts(report.plan)}"
    version = "" if report.version is None else f"; catalog version {report.version}"
    return f"{report.status}: {what}{version}"


def _counts(plan: Plan) -> str:
    return ", ".join(f"{number} {kind}" for kind, number in plan.counts.items() if number) or "no changes"


def _say_plan(plan: Plan) -> None:
    for change in plan.changes:
        if change.before is not None and change.before != change.model.price:
            _say(f"{change.kind} {change.model.id}: {_shown(change.before)} -> {_shown(change.model.price)}")
    for remark in plan.quarantined:
        _say(_remark("quarantined", remark))
    for remark in plan.repaired:
        _say(_remark("repaired", remark))


def _remark(what: str, remark: Remark) -> str:
    return f"{what} {remark.model_id}: {remark.text}"


def _shown(price: Price | None) -> str:
    return "unpriced" if price is None else decimals.input_and_output(price)


def _say(line: str) -> None:
    print(line)


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "sync": _sync,
    "status": _status,
    "changes": _changes,
    "list": _list,
    "quote": _quote,
}
