"""The daily sync in the worker: one leader, visible in the metrics, told to the tenants whose bills can move."""

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tallybook.ai_models import actions, sync
from tallybook.ai_models.model import SyncReport, SyncStatus
from tallybook.core.tenant import Tenant
from tallybook.entrypoints import metrics
from tallybook.entrypoints.workers import books, catalog
from tallybook.flows import current_book, price_changes
from tallybook.flows.services import Services
from tallybook.storage import postgres
from tallybook.storage.postgres import Connection, Pool
from tallybook.storage.redis import Redis
from tests.support import api
from tests.support.api import Api
from tests.support.billing import HandClock

NOW = datetime(2026, 11, 20, 9, tzinfo=UTC)
PRICES = {f"lab/m{number}": "0.000001" for number in range(9)}
_TABLES = "ai_model_changes, ai_model_syncs, ai_model_prices, ai_models, outbox"


def write_list(path: Path, prices: dict[str, str]) -> None:
    rows = [{"id": each, "type": "language", "pricing": {"input": usd, "output": usd}} for each, usd in prices.items()]
    path.write_text(json.dumps({"data": rows}))


def write_page(path: Path) -> None:
    path.write_text("<html>")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "list.json"
    write_list(path, PRICES)
    return path


@pytest.fixture
async def services(database: Pool, redis_client: Redis, source: Path) -> AsyncGenerator[Services]:
    made = await api.make_services(database, redis_client)
    yield replace(made, clock=HandClock(NOW), settings=replace(made.settings, catalog_url=str(source)))
    await database.execute(f"TRUNCATE {_TABLES}; UPDATE ai_catalog_version SET version = 0")


def later(services: Services, **by: int) -> Services:
    return replace(services, clock=HandClock(services.clock() + timedelta(**by)))


async def status_of(services: Services) -> SyncStatus | None:
    report = await catalog.step(services)
    return None if report is None else report.status


async def scrape(services: Services) -> dict[str, float]:
    await books.show(services)
    lines = metrics.exposition({}).decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line.startswith("tallybook_catalog"))}


async def tenant_with_model_prices(services: Services) -> Tenant:
    account = await api.make_account(services.database)
    async with api.serving(services) as client:
        caller = Api(client, account.key)
        for path, body in (
            ("features", {"code": "chat", "name": "Chat", "type": "usage"}),
            ("plans", {"code": "ai", "name": "AI", "consumptionModel": "balance"}),
            ("plans/ai/features", {"featureId": "chat", "pricingMode": "ai_model"}),
        ):
            assert (await caller.send("POST", f"/api/v1/{path}", body)).status < 300
    return account.tenant


async def test_the_worker_syncs_when_it_is_due_and_shows_it(services: Services) -> None:
    found = await scrape(services)
    assert (found["tallybook_catalog_sync_age_seconds"], found["tallybook_catalog_version"]) == (float("inf"), 0)
    assert await status_of(services) is SyncStatus.PUBLISHED
    assert await status_of(later(services, hours=1)) is None
    found = await scrape(later(services, hours=1))
    assert found["tallybook_catalog_sync_age_seconds"] == 3600
    assert found['tallybook_catalog_sync_status{status="published"}'] == 1
    assert found['tallybook_catalog_models{pricing="priced"}'] == 9
    assert found['tallybook_catalog_sync_changes{kind="added"}'] == 9
    assert found["tallybook_catalog_version"] == 1
    assert await status_of(later(services, days=1)) is SyncStatus.UNCHANGED


async def test_a_failed_sync_is_visible_and_the_last_good_one_too(services: Services, source: Path) -> None:
    await catalog.step(services)
    write_page(source)
    tomorrow = later(services, days=1)
    assert await status_of(tomorrow) is SyncStatus.FAILED
    found = await scrape(tomorrow)
    assert found['tallybook_catalog_sync_status{status="failed"}'] == 1
    assert found['tallybook_catalog_sync_status{status="published"}'] == 0
    assert found["tallybook_catalog_sync_age_seconds"] == 86_400
    assert found['tallybook_catalog_models{pricing="priced"}'] == 9


async def test_a_suspicious_list_and_a_quarantined_row_are_visible(services: Services, source: Path) -> None:
    await catalog.step(services)
    write_list(source, {**PRICES, "lab/m0": "-1"})
    await catalog.step(later(services, days=1))
    assert (await scrape(services))["tallybook_catalog_quarantined_models"] == 1
    write_list(source, {"lab/m0": "0.000001"})
    assert await status_of(later(services, days=2)) is SyncStatus.REFUSED
    assert (await scrape(services))['tallybook_catalog_sync_status{status="refused"}'] == 1


async def test_tenants_that_price_by_model_are_told_of_other_prices(services: Services, source: Path) -> None:
    tenant = await tenant_with_model_prices(services)
    await api.make_account(services.database)
    await catalog.step(services)
    write_list(source, {**PRICES, "lab/m3": "0.000003"})
    await catalog.step(later(services, days=1))
    rows = await services.database.fetch("SELECT tenant_id, topic, payload FROM outbox ORDER BY id")
    assert [(row["tenant_id"], row["topic"]) for row in rows] == [(tenant.id, price_changes.TOPIC)] * 2
    assert rows[1]["payload"]["changes"] == [
        {
            "model": "lab/m3",
            "change": "repriced",
            "before": {"standard": [{"input": "1", "output": "1"}]},
            "after": {"standard": [{"input": "3", "output": "3"}]},
        }
    ]
    assert (len(rows[0]["payload"]["changes"]), rows[0]["payload"]["leftOut"]) == (9, 0)


async def test_a_sync_that_breaks_off_is_on_record_and_moves_no_price(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(connection: Connection, report: SyncReport) -> None:
        del connection, report
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(price_changes, "announce", broken)
    assert await status_of(services) is SyncStatus.FAILED
    async with postgres.snapshot(services.database) as connection:
        found = await actions.catalog_status(connection)
    assert found.last is not None
    assert (found.last.error, found.version) == ("ZeroDivisionError: a bug", 0)
    assert await services.database.fetchval("SELECT count(*) FROM ai_models") == 0


async def test_an_empty_address_turns_the_sync_off(services: Services) -> None:
    off = replace(services, settings=replace(services.settings, catalog_url=""))
    await catalog.run(off, asyncio.Event())
    assert await services.database.fetchval("SELECT count(*) FROM ai_model_syncs") == 0


async def test_many_who_look_for_a_newer_book_load_it_once(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    await sync.sync_once(services.database, services.settings.catalog_url, lambda: NOW)
    loads = 0
    load = actions.load_book

    async def counted(connection: Connection) -> object:
        nonlocal loads
        loads += 1
        return await load(connection)

    monkeypatch.setattr(actions, "load_book", counted)
    old = replace(services, book=services.book.__class__(0, []))
    assert await asyncio.gather(*(current_book.refresh(old) for _ in range(20))) == [True] * 20
    assert (loads, len(old.book)) == (1, 9)
    assert not await current_book.refresh(old)
