"""The AI model catalog in a real book: first load, syncs and history."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tallybook.ai_models import actions, catalog_files, fetch, locks, store, sync
from tallybook.ai_models.model import ChangeKind, SyncReport, SyncStatus
from tallybook.core import clock
from tallybook.core.errors import TallybookError
from tallybook.pricing import cost
from tallybook.pricing.cost import TokenUsage
from tallybook.pricing.price_book import PriceBook
from tallybook.pricing.rates import Band, Listed, Price
from tallybook.storage import postgres
from tallybook.storage.postgres import Connection, Pool, PostgresError
from tests.support import model_lists
from tests.support.model_lists import IN_FORCE, LATER, NOW, PRICES, load_book, run_sync, standing, version, write_list


@pytest.fixture(autouse=True)
async def _empty(database: Pool) -> AsyncGenerator[None]:
    yield
    await model_lists.forget(database)


async def load_packaged(database: Pool, now: datetime = NOW) -> SyncReport:
    async with postgres.transaction(database) as connection:
        return await actions.load_packaged(connection, lambda: now)


async def count(database: Pool, table: str) -> int:
    return await database.fetchval(f"SELECT count(*) FROM {table}")


def input_pico(book: PriceBook, model: str, at: datetime) -> int:
    return cost.price(book.resolve(0, model).entry.row_at(clock.to_ms(at)), TokenUsage(1, 0)).input_pico


async def test_the_packaged_catalog_prices_the_documentation_example(database: Pool) -> None:
    report = await load_packaged(database)
    assert report.status is SyncStatus.PUBLISHED
    book = await load_book(database)
    row = book.resolve(1, "anthropic/claude-sonnet-4.6").entry.row_at(clock.to_ms(NOW))
    priced = cost.price(row, TokenUsage(10_000, 2_000, 7_000, 1_000), 2_000)
    assert (priced.cost_nano, priced.charge_nano) == (41_850_000, 50_220_000)
    assert sum(bool(entry.rows) for entry in book.entries()) >= 180


async def test_the_book_of_the_database_prices_like_the_files(database: Pool) -> None:
    await load_packaged(database)
    from_files = catalog_files.book(catalog_files.read(catalog_files.packaged()))
    from_rows = await load_book(database)
    assert [each.model_id for each in from_rows.entries()] == [each.model_id for each in from_files.entries()]
    for one, other in zip(from_rows.entries(), from_files.entries(), strict=True):
        assert [row and row.listed for row in one.rows] == [row and row.listed for row in other.rows]
        assert one.starts_ms == other.starts_ms


async def test_loading_the_packaged_catalog_again_changes_nothing(database: Pool) -> None:
    await load_packaged(database)
    before = (await version(database), await count(database, "ai_model_prices"), await count(database, "ai_model_syncs"))
    again = await load_packaged(database, LATER)
    assert again.status is SyncStatus.UNCHANGED
    assert (await version(database), await count(database, "ai_model_prices"), await count(database, "ai_model_syncs")) == before


async def test_eight_processes_that_start_at_once_load_it_once(database: Pool) -> None:
    reports = await asyncio.gather(*(load_packaged(database) for _ in range(8)))
    assert sorted(report.status for report in reports) == ["published", *["unchanged"] * 7]
    assert await count(database, "ai_model_syncs") == 1


async def test_the_packaged_catalog_never_replaces_a_newer_sync(database: Pool, tmp_path: Path) -> None:
    await run_sync(database, tmp_path, PRICES)
    assert (await load_packaged(database, LATER)).status is SyncStatus.UNCHANGED
    assert await count(database, "ai_models") == 3


async def test_a_sync_publishes_and_the_same_list_again_does_not(database: Pool, tmp_path: Path) -> None:
    before = await version(database)
    first = await run_sync(database, tmp_path, PRICES)
    assert (first.status, first.models, first.priced, first.version) == (SyncStatus.PUBLISHED, 3, 3, before + 1)
    second = await run_sync(database, tmp_path, PRICES, LATER)
    assert (second.status, second.version) == (SyncStatus.UNCHANGED, None)
    assert await version(database) == before + 1
    assert await count(database, "ai_model_prices") == 3


async def test_late_events_keep_the_price_of_their_time(database: Pool, tmp_path: Path) -> None:
    await run_sync(database, tmp_path, PRICES)
    await run_sync(database, tmp_path, {**PRICES, "lab/a": "0.000005"}, LATER)
    book = await load_book(database)
    just_before = IN_FORCE - timedelta(milliseconds=1)
    moments = (NOW - timedelta(days=35), NOW, LATER, just_before, IN_FORCE, IN_FORCE + timedelta(days=9))
    assert [input_pico(book, "lab/a", at) for at in moments] == [1_000_000] * 4 + [5_000_000] * 2


async def test_a_removed_model_still_prices_and_returns(database: Pool, tmp_path: Path) -> None:
    await run_sync(database, tmp_path, PRICES)
    without = {each: usd for each, usd in PRICES.items() if each != "lab/c"}
    await run_sync(database, tmp_path, without, LATER)
    book = await load_book(database)
    assert book.resolve(0, "c").entry.tombstoned
    assert input_pico(book, "lab/c", LATER) == 3_000_000
    await run_sync(database, tmp_path, PRICES, LATER + timedelta(days=1))
    assert not (await load_book(database)).resolve(0, "c").entry.tombstoned
    assert await count(database, "ai_model_prices") == 3


async def test_price_rows_can_be_neither_edited_nor_deleted(database: Pool, tmp_path: Path) -> None:
    await run_sync(database, tmp_path, PRICES)
    for statement in ("UPDATE ai_model_prices SET price = '{}'", "DELETE FROM ai_model_prices"):
        with pytest.raises(PostgresError, match="never edited"):
            await database.execute(statement)


async def test_a_refused_list_changes_nothing_and_is_on_record(database: Pool, tmp_path: Path) -> None:
    await run_sync(database, tmp_path, PRICES)
    before = await version(database)
    report = await run_sync(database, tmp_path, {"lab/a": "0.000001"}, LATER)
    assert report.status is SyncStatus.REFUSED
    assert await version(database) == before
    assert len(await load_book(database)) == 3
    async with database.acquire() as connection:
        [last, _] = await actions.last_syncs(connection)
    assert (last.status, "third" in (last.error or "")) == (SyncStatus.REFUSED, True)


@pytest.mark.parametrize("content", ["<html>", "", '{"data": []}', '{"data": "x"}'])
async def test_a_list_that_cannot_be_read_fails_and_is_on_record(database: Pool, tmp_path: Path, content: str) -> None:
    await run_sync(database, tmp_path, PRICES)
    before = await version(database)
    path = tmp_path / "other.json"
    path.write_text(content)
    report = await sync.sync_once(database, str(path), lambda: LATER)
    assert report.status is SyncStatus.FAILED
    assert await version(database) == before
    async with database.acquire() as connection:
        last, *_ = await actions.last_syncs(connection)
        assert last.error == report.error
        good = await actions.last_good_sync(connection)
    assert good is not None
    assert good.started_at == NOW


async def test_a_list_that_cannot_be_had_fails(database: Pool, tmp_path: Path) -> None:
    report = await sync.sync_once(database, str(tmp_path / "none.json"), lambda: NOW)
    assert report.status is SyncStatus.FAILED
    assert "none.json" in (report.error or "")


async def test_a_quarantined_row_keeps_its_price_and_costs_no_other(database: Pool, tmp_path: Path) -> None:
    await run_sync(database, tmp_path, PRICES)
    report = await run_sync(database, tmp_path, {**PRICES, "lab/a": "-1", "lab/b": "0.000004"}, LATER)
    assert [remark.model_id for remark in report.plan.quarantined] == ["lab/a"]
    book = await load_book(database)
    assert [input_pico(book, each, IN_FORCE) for each in ("lab/a", "lab/b")] == [1_000_000, 4_000_000]
    assert not book.resolve(0, "lab/a").entry.tombstoned
    async with database.acquire() as connection:
        last, *_ = await actions.last_syncs(connection)
    assert [remark.model_id for remark in last.quarantined] == ["lab/a"]


async def test_a_price_jump_waits_until_it_is_accepted(database: Pool, tmp_path: Path) -> None:
    await run_sync(database, tmp_path, PRICES)
    jumped = {**PRICES, "lab/a": "0.0005"}
    await run_sync(database, tmp_path, jumped, LATER)
    assert input_pico(await load_book(database), "lab/a", LATER) == 1_000_000
    await run_sync(database, tmp_path, jumped, LATER + timedelta(hours=1), frozenset({"lab/a"}))
    assert input_pico(await load_book(database), "lab/a", LATER + timedelta(days=1)) == 500_000_000


async def test_a_price_comes_into_force_after_its_publication_however_long_that_took(
    database: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mutants: the time is taken before the fetch, before the lock, or before tenants are told."""
    await run_sync(database, tmp_path, PRICES)
    shows = [LATER]
    real_fetch, real_lock = fetch.fetch, locks.lock_catalog

    async def slow_fetch(source: str, etag: str | None = None) -> fetch.Fetched:
        shows[0] += timedelta(seconds=20)
        return await real_fetch(source, etag)

    async def slow_lock(connection: Connection) -> None:
        shows[0] += timedelta(seconds=20)
        await real_lock(connection)

    async def slow_announce(_connection: Connection, _report: SyncReport) -> None:
        shows[0] += timedelta(seconds=20)

    monkeypatch.setattr(fetch, "fetch", slow_fetch)
    monkeypatch.setattr(locks, "lock_catalog", slow_lock)
    source = write_list(tmp_path, {**PRICES, "lab/a": "0.000005"})
    await sync.sync_once(database, source, lambda: shows[0], announce=slow_announce)
    async with database.acquire() as connection:
        assert await store.latest_price_at(connection) == LATER + timedelta(seconds=60) + actions.LEAD
        [last, _] = await actions.last_syncs(connection)
    assert last.started_at == LATER


async def test_a_clock_that_went_back_still_appends(database: Pool, tmp_path: Path) -> None:
    await run_sync(database, tmp_path, PRICES, LATER)
    report = await run_sync(database, tmp_path, {**PRICES, "lab/a": "0.000005"}, NOW)
    assert report.status is SyncStatus.PUBLISHED
    assert input_pico(await load_book(database), "lab/a", IN_FORCE + timedelta(seconds=1)) == 5_000_000


async def test_changes_are_listed_with_both_prices(database: Pool, tmp_path: Path) -> None:
    await run_sync(database, tmp_path, PRICES)
    await run_sync(database, tmp_path, {"lab/a": "0.000005", "lab/b": "0.000002"}, LATER)
    async with database.acquire() as connection:
        changes = await actions.changes_since(connection, LATER)
        every = await actions.changes_since(connection, NOW)
    assert {change.model_id: change.kind for change in changes} == {"lab/a": ChangeKind.REPRICED, "lab/c": ChangeKind.REMOVED}
    [repriced] = [change for change in changes if change.kind is ChangeKind.REPRICED]
    assert repriced.before == Price((Band(0, Listed(1_000_000, 1_000_000)),))
    assert repriced.after == Price((Band(0, Listed(5_000_000, 5_000_000)),))
    assert len(every) == 5


async def test_what_is_published_is_announced_in_its_transaction(database: Pool, tmp_path: Path) -> None:
    async def announce(connection: Connection, report: SyncReport) -> None:
        assert await store.current_version(connection) == report.version
        raise TallybookError("test", "not today")

    before = await version(database)
    with pytest.raises(TallybookError, match="not today"):
        await sync.sync_once(database, write_list(tmp_path, PRICES), lambda: NOW, announce=announce)
    assert (await version(database), await count(database, "ai_models")) == (before, 0)


async def test_one_process_syncs_at_a_time(database: Pool, tmp_path: Path) -> None:
    async with database.acquire() as holder:
        assert await locks.try_sync_lock(holder)
        assert (await run_sync(database, tmp_path, PRICES)).status is SyncStatus.BUSY
        await locks.release_sync_lock(holder)
    assert (await run_sync(database, tmp_path, PRICES)).status is SyncStatus.PUBLISHED


async def test_a_sync_is_due_once_a_day_and_a_failed_one_half_an_hour_later(database: Pool, tmp_path: Path) -> None:
    missing, listed = str(tmp_path / "none.json"), write_list(tmp_path, PRICES)
    moments = [timedelta(), timedelta(minutes=29), timedelta(minutes=30), timedelta(hours=24), timedelta(hours=24, minutes=30)]
    sources = [missing, listed, listed, listed, listed]
    reports = [
        await sync.sync_if_due(database, source, standing(NOW + after)) for source, after in zip(sources, moments, strict=True)
    ]
    expected = [SyncStatus.FAILED, None, SyncStatus.PUBLISHED, None, SyncStatus.UNCHANGED]
    assert [report and report.status for report in reports] == expected


async def test_a_sync_is_due_after_a_first_start(database: Pool, tmp_path: Path) -> None:
    await load_packaged(database)
    assert await sync.sync_if_due(database, write_list(tmp_path, PRICES), lambda: NOW) is not None


async def test_of_workers_that_find_a_sync_due_at_once_one_syncs(database: Pool, tmp_path: Path) -> None:
    source = write_list(tmp_path, PRICES)
    reports = await asyncio.gather(*(sync.sync_if_due(database, source, lambda: NOW) for _ in range(4)))
    assert [report.status for report in reports if report is not None] == [SyncStatus.PUBLISHED]
    assert await count(database, "ai_model_syncs") == 1
