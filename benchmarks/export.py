"""How much memory and time the command line takes to write all events of a month to a file.

It is run as users run it, as a process of its own, once over everything and once over a tenth: its memory must not grow with the rows.
"""

# pyright: reportUnknownMemberType=false
# polars types its arguments only partly.

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import polars as pl

from benchmarks import made_up
from benchmarks.installation import Installation
from tallybook import settings
from tallybook.core.tenant import Tenant

FORMS = ("parquet", "csv")
_KIB = 1024
_EXPORT_S_MAX = 1800.0
_COMMAND = (sys.executable, "-m", "tallybook.cli", "report", "events")


class Exported(msgspec.Struct, frozen=True):
    """One file: its rows, how long it took, the largest resident memory of the process, and the file's size."""

    rows: int
    seconds: float
    peak_rss_mb: float
    file_mb: float


class ExportRun(msgspec.Struct, frozen=True):
    """Files by form; `<form>_tenth` is of the first tenth of the month."""

    events_in_book: int
    files: Mapping[str, Exported]
    complete: bool

    @property
    def growth(self) -> float:
        """How much more memory ten times the rows took; the largest of the forms."""
        return max(self.files[form].peak_rss_mb / self.files[f"{form}_tenth"].peak_rss_mb for form in FORMS)


async def measure(installation: Installation, events: int, folder: Path, say: made_up.Say) -> ExportRun:
    """Fill the book and export it. Leaves the events there: nothing reconciles afterwards."""
    book = await made_up.fill(installation.services.database, installation.account.tenant, events, say, only_events=True)
    variables = settings.to_environment(installation.running.settings)
    files: dict[str, Exported] = {}
    for form in FORMS:
        for name, ends_at in ((f"{form}_tenth", book.starts_at + timedelta(days=made_up.DAYS // 10)), (form, book.ends_at)):
            span = (book.starts_at, ends_at)
            say(f"exporting {name}")
            files[name] = await asyncio.to_thread(_export, folder / f"{name}.{form}", book.tenant, span, variables)
    return ExportRun(events, files, all(files[form].rows == events for form in FORMS))


def _export(path: Path, tenant: Tenant, span: tuple[datetime, datetime], variables: Mapping[str, str]) -> Exported:
    starts_at, ends_at = (moment.isoformat() for moment in span)
    whose = ["--organization", tenant.organization_id, *(["--live"] if tenant.livemode else [])]
    words = [*_COMMAND, *whose, "--from", starts_at, "--to", ends_at, "--output", str(path)]
    started = time.perf_counter()
    child = subprocess.Popen(words, env={**os.environ, **variables}, stderr=subprocess.DEVNULL)  # noqa: S603 - our own command
    watch = threading.Timer(_EXPORT_S_MAX, child.kill)
    watch.start()
    try:
        _, status, used = os.wait4(child.pid, 0)
    finally:
        watch.cancel()
    seconds = time.perf_counter() - started
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise RuntimeError(f"the export ended with {child.returncode}")
    exported = Exported(_rows(path), seconds, used.ru_maxrss / _KIB, path.stat().st_size / _KIB**2)
    path.unlink()
    return exported


def _rows(path: Path) -> int:
    if path.suffix == ".parquet":
        return pl.scan_parquet(path).select(pl.len()).collect().item()
    with path.open("rb") as stream:
        return sum(1 for _ in stream) - 1
