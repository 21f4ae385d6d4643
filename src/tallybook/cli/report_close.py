"""`tallybook report close`: a month's books in a folder, with a manifest of digests and the proof that they agree."""

import argparse
import asyncio
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tallybook import app, settings
from tallybook.cli import keys
from tallybook.cli import reconcile as reconcile_command
from tallybook.core import clock, errors
from tallybook.flows import reconcile
from tallybook.flows.services import Services
from tallybook.reports import closing, export, rules
from tallybook.reports.closing import File, Month, Sums
from tallybook.rollup import retention
from tallybook.storage.postgres import Connection

MANIFEST = "manifest.json"
_PROOF = "reconciliation.json"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    keys.add_tenant(parser)
    parser.add_argument("--month", required=True, metavar="YYYY-MM")
    parser.add_argument("--time-zone", default="UTC", help="whose month (default UTC)")
    parser.add_argument("--format", choices=export.FORMATS, default="csv")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="a folder to make (default close-YYYY-MM)")


def run(arguments: argparse.Namespace) -> int:
    """Write the pack. Returns 1 when the sums differ or the month is not billed to its end."""
    rules.first_of_month(arguments.month)
    folder: Path = arguments.output or Path(f"close-{arguments.month}")
    if folder.exists():
        raise errors.Conflict("folder_exists", f"{folder} is there already; a pack is never written over.")
    manifest = asyncio.run(_close(arguments, folder))
    for line in summary(manifest):
        print(line)
    print(f"written: {folder}")
    return 0 if manifest["final"] else 1


async def _close(arguments: argparse.Namespace, folder: Path) -> Mapping[str, Any]:
    async with app.services(settings.from_environment(os.environ), name="report") as services:
        return await write(services, arguments, folder)


async def write(services: Services, arguments: argparse.Namespace, folder: Path) -> Mapping[str, Any]:
    """Write the pack; the folder gets its name when it is whole. Returns the manifest.

    Raises ValidationError before anything is written when single events of the month were dropped.
    """
    async with services.database.acquire() as connection:
        await _month(connection, arguments)
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        proof = await reconcile.reconcile(services.database, services.redis, services.settings.partitions)
        (unfinished / _PROOF).write_text(reconcile_command.as_json(proof) + "\n", encoding="utf-8")
        async with retention.snapshot(services.database) as connection:
            month = await _month(connection, arguments)
            rows: dict[str, int] = {}
            async for file in closing.files(connection, month):
                rows[f"{file.name}.{arguments.format}"] = await _write_file(unfinished, file, arguments.format, month.zone)
            sums = await closing.sums(connection, month)
        listed = [_described(path, rows.get(path.name)) for path in sorted(unfinished.iterdir())]
        manifest = _manifest(month, arguments.month, sums, listed, reconciled=proof.is_clean)
        (unfinished / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return manifest


async def _month(connection: Connection, arguments: argparse.Namespace) -> Month:
    tenant = await keys.tenant_of(connection, arguments)
    month = closing.month(tenant, arguments.month, arguments.time_zone)
    await closing.check_whole(connection, month)
    return month


async def _write_file(folder: Path, file: File, form: export.Format, zone: str) -> int:
    rows = 0
    with export.opened(folder / f"{file.name}.{form}", form, file.columns, zone) as writer:
        async for chunk in file.chunks:
            writer.write(chunk)
            rows += len(chunk)
    return rows


def _described(path: Path, rows: int | None) -> dict[str, object]:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"name": path.name, "rows": rows, "bytes": path.stat().st_size, "sha256": digest}


def _manifest(month: Month, name: str, sums: Sums, files: list[dict[str, object]], *, reconciled: bool) -> dict[str, Any]:
    return {
        "month": name,
        "organization": month.tenant.organization_id,
        "livemode": month.tenant.livemode,
        "from": clock.iso(month.starts_at),
        "to": clock.iso(month.ends_at),
        "timeZone": month.zone,
        "writtenAt": clock.iso(clock.real_clock()),
        "invoices": sums.invoices,
        "sums": {
            "invoices": rules.exact(sums.invoices_cents, 2),
            "revenueReport": rules.exact(sums.revenue_cents, 2),
            "ledger": rules.exact(sums.ledger_cents, 2),
        },
        "sumsAgree": sums.agree,
        "unbilledPeriods": sums.unbilled_periods,
        "reconciled": reconciled,
        "final": sums.agree and reconciled and sums.unbilled_periods == 0,
        "files": files,
    }


def summary(manifest: Mapping[str, Any]) -> list[str]:
    """The manifest's word on the money."""
    sums = manifest["sums"]
    lines = [
        f"{manifest['month']} ({manifest['timeZone']}): {manifest['invoices']} invoices",
        f"Σ invoices = ${sums['invoices']}   Σ revenue report = ${sums['revenueReport']}   Σ ledger = ${sums['ledger']}",
        f"sums agree: {'yes' if manifest['sumsAgree'] else 'NO'}   books reconciled: {'yes' if manifest['reconciled'] else 'NO'}",
    ]
    if manifest["unbilledPeriods"]:
        lines.append(f"NOT FINAL: {manifest['unbilledPeriods']} billing periods ended in it or before and are not billed yet")
    return lines
