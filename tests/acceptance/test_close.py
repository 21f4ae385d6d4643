"""The close of a generated month on a running service: three plans, late usage, voids, corrections, and one sum three times."""

import argparse
import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from benchmarks import close
from benchmarks.month import Month, Sent, Size
from tallybook import app
from tallybook.cli import report_close
from tallybook.settings import Settings
from tests.support import waiting
from tests.support.service import PLAIN_VERSION, Account

FIVE = {"a", "b", "c", "d", "e"}
SIZE = Size(events=1_500, customers=12, step_days=16, seed=3)


async def close_month(account: Account, folder: Path) -> tuple[Sent, int, dict[str, Any]]:
    """Play, wait for the book, and write the pack. Returns what was sent, the rows of the book, and the manifest."""
    headers = {"x-api-key": account.key, "commet-version": PLAIN_VERSION}
    async with aiohttp.ClientSession(account.service.url, headers=headers) as http:
        month = Month(http, SIZE, lambda _line: None)
        sent = await month.play()
    settings = Settings(postgres_url=account.service.postgres_url, redis_url=account.service.redis_url, catalog_url="")
    async with app.services(settings, name="test") as services:

        async def is_booked() -> bool:
            return await close.events_of(services.database, account.organization_id) >= sent.accepted

        await waiting.until(is_booked)
        rows = await close.events_of(services.database, account.organization_id)
        wanted = argparse.Namespace(
            month=month.month, time_zone="UTC", format="csv", organization=account.organization_id, live=False
        )
        return sent, rows, dict(await report_close.write(services, wanted, folder))


def test_the_close_of_a_generated_month_reconciles(account: Account, tmp_path: Path) -> None:
    """Mutants: a void that the ledger forgets; overage of a customer who has no invoice; a repeat that is counted."""
    sent, rows, manifest = asyncio.run(close_month(account, tmp_path / "pack"))
    assert close.problems(sent, rows, final=manifest["final"], summary=report_close.summary(manifest)) == []
    assert sent.accepted + sent.rejected + sent.duplicates >= SIZE.events
    assert min(sent.accepted, sent.duplicates, sent.voids, sent.sets) > 0
    assert manifest["invoices"] == SIZE.customers
    [total] = set(manifest["sums"].values())
    assert float(total) > 12 * 29
    assert json.loads((tmp_path / "pack" / "manifest.json").read_text())["sums"] == manifest["sums"]


@pytest.mark.parametrize(
    ("sent", "rows", "final", "told"),
    [
        (Sent(ids=FIVE), 4, True, "5 events were acknowledged, 4 are in the book"),
        (Sent(ids=FIVE), 5, False, "the close is not final"),
        (Sent(ids=FIVE, strange=["{}"]), 5, True, "an answer was not what it must be: {}"),
    ],
)
def test_a_month_that_does_not_reconcile_says_why(sent: Sent, rows: int, final: bool, told: str) -> None:  # noqa: FBT001 - a case
    assert told in close.problems(sent, rows, final=final, summary=["a", "b"])[0]
