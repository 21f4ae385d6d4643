"""`tallybook models` on a database."""

import argparse
import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tallybook.ai_models import actions
from tallybook.cli import models as command
from tallybook.core.errors import NotFound, ValidationError
from tallybook.storage import postgres
from tallybook.storage.postgres import Pool
from tallybook.tenancy import actions as tenancy

Run = Callable[..., Awaitable[tuple[int, str]]]


@pytest.fixture
def run(postgres_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs one command in a thread of its own and gives its exit code and what it printed."""
    monkeypatch.setenv("TALLYBOOK_POSTGRES_URL", postgres_url)

    async def one(*words: str) -> tuple[int, str]:
        parser = argparse.ArgumentParser()
        command.configure(parser)
        code = await asyncio.to_thread(command.run, parser.parse_args(words))
        return code, capsys.readouterr().out

    return one


@pytest.fixture
async def organization(database: Pool) -> str:
    async with postgres.transaction(database) as connection:
        live, _ = await tenancy.create_organization(connection, "Acme")
    return live.organization_id


def write_list(folder: Path, *prices: str) -> str:
    rows = [
        {"id": f"lab/m{at}", "type": "language", "pricing": {"input": each, "output": each}} for at, each in enumerate(prices)
    ]
    path = folder / "list.json"
    path.write_text(json.dumps({"data": rows}))
    return str(path)


async def test_sync_status_changes_list_and_quote_tell_one_story(run: Run, tmp_path: Path) -> None:
    code, told = await run("sync", "--source", write_list(tmp_path, "0.000001", "0.000002", "0.000004"))
    assert (code, "3 models, 3 priced; 3 added" in told) == (0, True)
    code, told = await run("sync", "--source", write_list(tmp_path, "0.000003", "-1", "0.000004"))
    assert code == 0
    assert "repriced lab/m0: 1 / 1 -> 3 / 3" in told
    assert "quarantined lab/m1: input '-1' is negative" in told
    code, told = await run("status")
    assert code == 0
    assert "catalog version 2" in told
    assert "quarantined lab/m1" in told
    code, told = await run("changes", "--since", "2020-01-01")
    assert (code, told.count("added"), "repriced lab/m0 1 / 1 -> 3 / 3" in told) == (0, 3, True)
    code, told = await run("list", "M0")
    assert told.strip() == "lab/m0  3 / 3"
    code, told = await run("quote", "m1", "--input", "1000000", "--margin", "50", "--web-searches", "0")
    assert (code, "$2.00" in told, "$3.00" in told) == (0, True, True)


async def test_a_refused_list_fails_the_command_and_the_status(run: Run, tmp_path: Path) -> None:
    await run("sync", "--source", write_list(tmp_path, *["0.000001"] * 9))
    code, told = await run("sync", "--source", write_list(tmp_path, "0.000001"))
    assert (code, "third" in told) == (1, True)
    code, told = await run("status")
    assert (code, "refused" in told) == (1, True)


async def test_aliases_and_overrides_are_set_listed_and_ended(
    run: Run, tmp_path: Path, organization: str, database: Pool
) -> None:
    await run("sync", "--source", write_list(tmp_path, *["0.000001"] * 9))
    alias, override = ("alias", "--organization", organization), ("override", "--organization", organization)
    assert (await run(*alias, "set", "best", "m3"))[1] == "best means lab/m3\n"
    assert (await run(*alias, "list"))[1] == "best means lab/m3\n"
    await run(*alias, "remove", "best")
    assert (await run(*alias, "list"))[1] == ""
    code, told = await run(
        *override, "set", "lab/*", "--input", "0.5", "--output", "2", "--cache-write-1h", "1", "--web-search", "7"
    )
    assert (code, "lab/*  0.5 / 2" in told) == (0, True)
    override_id = told.split()[0]
    async with database.acquire() as connection:
        book = await actions.load_book(connection)
        tenant_id = await connection.fetchval("SELECT tenant_id FROM ai_price_overrides")
    row = book.resolve(tenant_id, "lab/m1").entry.row_at(10**13)
    assert (str(row.id), row.web_search, row.standard.first.cache_write_1h) == (override_id, 7 * 10**9, 1_000_000)
    assert (await run(*override, "end", override_id))[0] == 0
    with pytest.raises(NotFound):
        await run(*override, "end", override_id)


async def test_an_own_price_with_bands_and_tiers_is_read_from_a_file(
    run: Run, tmp_path: Path, organization: str, database: Pool
) -> None:
    """Mutant: the command can say flat prices only."""
    bands = [{"input": "2", "output": "10"}, {"fromTokens": 200_000, "input": "4", "output": "20"}]
    path = tmp_path / "prices.json"
    path.write_text(json.dumps({"standard": bands, "serviceTiers": {"flex": bands[:1]}, "webSearchPerThousand": "7"}))
    words = ("override", "--organization", organization, "set", "acme/house")
    assert (await run(*words, "--prices", str(path)))[0] == 0
    async with database.acquire() as connection:
        book = await actions.load_book(connection)
        tenant_id = await connection.fetchval("SELECT tenant_id FROM ai_price_overrides WHERE pattern = 'acme/house'")
    row = book.resolve(tenant_id, "acme/house").entry.row_at(10**13)
    assert (row.standard.starts, row.service_tiers.keys(), row.web_search) == ((0, 200_000), {"flex"}, 7 * 10**9)
    with pytest.raises(ValidationError, match="leave out --output"):
        await run(*words, "--prices", str(path), "--output", "1")
    for content in (
        "{",
        '{"standard": []}',
        '{"standard": [{"input": "1", "inputs": "2"}]}',
        '{"standard": [{"input": 1}]}',
        "\udcff",
    ):
        path.write_bytes(content.encode("utf-8", "surrogateescape"))
        with pytest.raises(ValidationError):
            await run(*words, "--prices", str(path))
    for other in (("--prices", str(tmp_path / "none.json")), ()):
        with pytest.raises(ValidationError):
            await run(*words, *other)


async def test_changes_are_told_to_the_last_however_many(
    run: Run, tmp_path: Path, database: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_PAGE", 2)
    await run("sync", "--source", write_list(tmp_path, *["0.000001"] * 5))
    code, told = await run("changes", "--since", "2020-01-01")
    every = await database.fetch("SELECT model_id FROM ai_model_changes WHERE kind <> 'described' ORDER BY id")
    assert (code, [line.split()[2] for line in told.splitlines()]) == (0, [row["model_id"] for row in every])
    assert len(every) >= 5


async def test_wrong_words_are_told(run: Run) -> None:
    with pytest.raises(NotFound, match="organization"):
        await run("alias", "--organization", "org_none", "list")
    with pytest.raises(SystemExit):
        await run("changes", "--since", "yesterday")


async def test_a_price_that_is_no_decimal_is_refused(run: Run, organization: str) -> None:
    for price in ("-1", "free", "1e-9", "0.0000001", "99999999"):
        with pytest.raises(ValidationError):
            await run("override", "--organization", organization, "set", "own/model", f"--input={price}")
