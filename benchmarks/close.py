"""A generated month and its close: the pack is written by the product's own command, and its manifest must say one sum three times."""

import argparse
import time
from pathlib import Path

import aiohttp
import msgspec

from benchmarks import book
from benchmarks.installation import Installation
from benchmarks.month import Month, Say, Sent, Size
from tallybook.cli import report_close
from tallybook.core import clock
from tallybook.storage import postgres
from tallybook.storage.postgres import Pool
from tallybook.tenancy import actions as tenancy

_EVENTS = """
SELECT count(*) FROM usage_events AS e INNER JOIN tenants AS t ON t.id = e.tenant_id
WHERE t.organization_id = $1 AND NOT t.livemode AND e.kind = 0
"""
_S_MAX = 600.0
_REQUEST_S_MAX = 120.0


class CloseRun(msgspec.Struct, frozen=True):
    """What was sent, what the manifest says, and everything about it that is not as it must be."""

    events_in_book: int
    customers: int
    duplicates: int
    rejected: int
    voids: int
    sets: int
    invoices: int
    month_s: float
    close_s: float
    manifest: list[str]
    problems: list[str]


async def measure(installation: Installation, events: int, customers: int, folder: Path, say: Say) -> CloseRun:
    """Play the month on a sandbox of its own, and close it."""
    async with postgres.transaction(installation.services.database) as connection:
        _live, sandbox = await tenancy.create_organization(connection, "Generated")
        key = (await tenancy.create_api_key(connection, sandbox, clock.real_clock(), "month", expires_in_days=None)).text
    headers = {"x-api-key": key, "commet-version": "2026-08-27"}
    started = time.perf_counter()
    timeout = aiohttp.ClientTimeout(total=_REQUEST_S_MAX)
    async with aiohttp.ClientSession(installation.running.ports[0].url, headers=headers, timeout=timeout) as http:
        month = Month(http, Size(events, customers), say)
        sent = await month.play()
    await book.until_level(installation.services)
    month_s, started = time.perf_counter() - started, time.perf_counter()
    wanted = argparse.Namespace(
        month=month.month, time_zone="UTC", format="parquet", organization=sandbox.organization_id, live=False
    )
    manifest = await report_close.write(installation.services, wanted, folder / "pack")
    close_s = time.perf_counter() - started
    rows = await events_of(installation.services.database, sandbox.organization_id)
    return CloseRun(
        events_in_book=rows,
        customers=customers,
        duplicates=sent.duplicates,
        rejected=sent.rejected,
        voids=sent.voids,
        sets=sent.sets,
        invoices=manifest["invoices"],
        month_s=month_s,
        close_s=close_s,
        manifest=report_close.summary(manifest),
        problems=problems(sent, rows, final=manifest["final"], summary=report_close.summary(manifest)),
    )


async def events_of(database: Pool, organization_id: str) -> int:
    """Events in the book of an organization's sandbox."""
    return await database.fetchval(_EVENTS, organization_id, timeout=_S_MAX)


def problems(sent: Sent, rows: int, *, final: bool, summary: list[str]) -> list[str]:
    """What must not be."""
    found = [f"an answer was not what it must be: {one}" for one in sent.strange[:3]]
    if rows != sent.accepted:
        found.append(f"{sent.accepted} events were acknowledged, {rows} are in the book")
    if not final:
        found.append(f"the close is not final: {' '.join(summary)}")
    return found
