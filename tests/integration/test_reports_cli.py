"""`tallybook report` on a real book: tables, files, statements, and what it says when something is not there."""

# pyright: reportUnknownMemberType=false

import asyncio
import csv
import io
import os
import random
from decimal import Decimal
from pathlib import Path

import msgspec
import polars as pl
import pytest

from tallybook import cli
from tallybook.storage import postgres
from tests.support import api, report_book
from tests.support.api import Account

MONTHS = ("--from", "2026-02-01", "--to", "2026-12-01")
NANO = Decimal(10**9)


@pytest.fixture(scope="module")
async def account(database: postgres.Pool) -> Account:
    made, rng = await api.make_account(database), random.Random(3)
    async with postgres.transaction(database) as connection:
        catalog = await report_book.catalog(connection, made.tenant)
    await report_book.write(database, report_book.records(catalog, 800, rng, report_book.anywhen), rng)
    return made


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, postgres_url: str, account: Account) -> None:
    assert account
    monkeypatch.setenv("TALLYBOOK_POSTGRES_URL", postgres_url)


async def report(*words: str) -> int:
    """Run the command as a shell would, outside the loop of the test."""
    return await asyncio.to_thread(cli.main, ["report", *words])


async def charged(database: postgres.Pool) -> Decimal:
    found = await database.fetchval(
        "SELECT sum(amount) FROM usage_events WHERE kind IN (0, 5) AND split_part(pool, '.', 2) = 'b'"
    )
    return Decimal(found) / NANO


async def test_a_table_shows_the_rows_and_their_totals(database: postgres.Pool, capsys: pytest.CaptureFixture[str]) -> None:
    assert await report("usage", "--group-by", "month", *MONTHS) == 0
    shown = capsys.readouterr().out
    assert "2026-03" in shown
    assert f"{(await charged(database)).normalize():f}" in shown


@pytest.mark.parametrize(
    "words", [("usage", "--group-by", "customerId,property:region"), ("events",), ("ai-costs",), ("margin",)]
)
async def test_every_format_has_the_same_rows(database: postgres.Pool, tmp_path: Path, words: tuple[str, ...]) -> None:
    """Mutants: the last portion of rows is lost; a void is written without its sign."""
    for suffix in ("csv", "parquet", "jsonl"):
        assert await report(*words, *MONTHS, "--output", str(tmp_path / f"a.{suffix}")) == 0
    table = pl.read_parquet(tmp_path / "a.parquet")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text(), newline="")))
    lines = [msgspec.json.decode(line) for line in (tmp_path / "a.jsonl").read_bytes().splitlines()]
    sums = {
        sum(table["charge"].to_list()),
        sum(Decimal(row["charge"]) for row in rows),
        sum(Decimal(line["charge"]) for line in lines),
    }
    assert len(sums) == 1
    assert len(table) == len(rows) == len(lines) > 0
    if words[0] in ("usage", "events"):
        assert sums == {await charged(database)}
        properties = (tmp_path / "a.csv").read_text()
        assert "'=cmd" in properties or words[0] == "events"
        assert ",=cmd" not in properties


async def test_csv_and_json_lines_go_to_a_pipe(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert await report("top-customers", "--by", "cost", *MONTHS, "--format", "jsonl") == 0
    rows = [msgspec.json.decode(line) for line in capfdbinary.readouterr().out.splitlines()]
    costs = [Decimal(row["cost"]) for row in rows]
    assert costs == sorted(costs, reverse=True)
    assert len(rows) == 7


async def test_revenue_and_forecast_of_an_unbilled_book_are_empty_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert await report("revenue", *MONTHS) == 0
    assert await report("forecast") == 0
    assert "revenue" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("usage", "--customer", "nobody"), "There is no customer nobody"),
        (("usage", "--feature", "nothing"), "There is no feature nothing"),
        (("usage", "--group-by", "colour"), "groupBy has 'colour'"),
        (("usage", "--from", "soon"), "no ISO date"),
        (("usage", "--time-zone", "Mars/Olympus"), "Mars/Olympus"),
        (("usage", "--format", "parquet"), "needs --output"),
        (("usage", "--output", "a.xlsx"), "does not say its format"),
        (("statement", "inv_none", "--output", "a.pdf"), "There is no invoice inv_none"),
        (("statement", "inv_none", "--output", "a.doc"), "neither in .html nor in .pdf"),
        (("close", "--month", "2026-13"), "write it as 2026-10"),
    ],
)
async def test_what_cannot_be_done_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert await report(*words) == 1
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - pathlib would block the loop


async def test_a_pack_is_never_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert await report("close", "--month", "2026-10", "--output", str(tmp_path)) == 1
    assert "is there already" in capsys.readouterr().err
