"""The catalog changes while real processes take usage: no request fails, each event has one price, and the books agree."""

import asyncio
import contextlib
import json
import random
import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tallybook.ai_models import actions, catalog_files, decimals, sync
from tallybook.ai_models.model import SyncReport, SyncStatus
from tallybook.core import clock
from tallybook.embedded.stores import Stores
from tallybook.flows import price_changes
from tallybook.rollup import model_usage
from tallybook.rollup.model_usage import ModelUsage
from tallybook.storage import migrate, postgres, redis
from tallybook.storage.postgres import Pool
from tests.crash import field, oracle, setting
from tests.crash.field import Field
from tests.crash.load import MODELS, Load
from tests.support import waiting
from tests.support.service import Service

APIS, LOAD_TASKS = 2, 2
_LED_S = actions.LEAD.total_seconds() + 1
_KINDS = (("input", "input"), ("output", "output"), ("input_cache_read", "cache_read"), ("input_cache_write", "cache_write"))


@pytest.fixture
async def running() -> AsyncGenerator[Field]:
    """Two API processes and a worker on stores of their own: other tests must keep the prices they know."""
    with tempfile.TemporaryDirectory(prefix="tallybook-sync-") as name:
        folder = _opened_up(name)
        stores = Stores(folder / "data", postgres_settings={"shared_buffers": "64MB"})
        await asyncio.to_thread(stores.start)
        await migrate.migrate(stores.postgres.url)
        opened = await asyncio.to_thread(field.open_field, stores, apis=APIS, workers=1)
        try:
            for port in opened.ports:
                while not await asyncio.to_thread(port.is_ready):  # noqa: ASYNC110 - it is another process
                    await asyncio.sleep(0.05)
            yield opened
        finally:
            await asyncio.to_thread(opened.close)


def _opened_up(name: str) -> Path:
    """The servers may run as another user, who must get into the folder."""
    folder = Path(name)
    folder.chmod(0o711)
    return folder


def gateway_list(factor: int) -> bytes:
    """The packaged catalog as the gateway would send it; what the load uses costs `factor` times as much."""
    dearer = {catalog_files.book(_catalog()).resolve(0, model).model_id for model in MODELS}
    rows: list[dict[str, object]] = []
    for model_id, entry in _catalog().entries.items():
        pricing: dict[str, str] = {}
        if entry.model.price is not None:
            listed = entry.model.price.standard[0].listed
            amounts = {key: getattr(listed, name) for key, name in _KINDS}
            times = factor if model_id in dearer else 1
            pricing = {key: _usd_per_token(pico * times) for key, pico in amounts.items() if pico is not None}
        rows.append({"id": model_id, "type": entry.model.type, "pricing": pricing})
    return json.dumps({"data": rows}).encode()


def _catalog() -> catalog_files.Catalog:
    return catalog_files.read(catalog_files.packaged())


def _usd_per_token(pico: int) -> str:
    return decimals.usd_per_million(pico) + "e-6"


async def publish(database: Pool, path: Path, factor: int) -> SyncReport:
    path.write_bytes(gateway_list(factor))  # noqa: ASYNC240 - a small local file
    report = await sync.sync_once(database, str(path), clock.real_clock, announce=price_changes.announce)
    assert report.status is SyncStatus.PUBLISHED, report
    return report


async def events_of(database: Pool) -> list[ModelUsage]:
    customers = await database.fetch("SELECT DISTINCT customer_id FROM usage_events WHERE price_id <> 0")
    async with database.acquire() as connection:
        ids = [row["customer_id"] for row in customers]
        beginning, end = clock.from_ms(0), clock.from_ms(4_000_000_000_000)
        return [event for each in ids for event in await model_usage.of_customer(connection, each, beginning, end)]


async def make_load(running: Field, database: Pool) -> Load:
    service = Service(running.urls[0], running.settings.postgres_url, running.settings.redis_url)
    async with database.acquire() as connection:
        tenant_id, account = await setting.make_account(connection, service)
    with contextlib.closing(service):
        await asyncio.to_thread(setting.make_plans, account)
        made = await asyncio.to_thread(setting.make_customers, account, 2)
    async with database.acquire() as connection:
        customers = await setting.customers(connection, tenant_id, made)
    return Load(tenant_id, account.key, running.urls, customers, random.Random(20_261_120))


async def test_no_request_fails_and_each_event_is_priced_by_the_catalog_of_its_time(running: Field, tmp_path: Path) -> None:
    database = await postgres.connect(running.settings.postgres_url)
    client = redis.connect(running.settings.redis_url)
    try:
        load = await make_load(running, database)
        before = await database.fetchval("SELECT version FROM ai_catalog_version")
        stop = asyncio.Event()
        loading = asyncio.create_task(load.run(stop, LOAD_TASKS))
        await waiting.until(lambda: _has_accepted(load, 200))
        published = [await publish(database, tmp_path / "list.json", factor) for factor in (2, 3)]
        await asyncio.sleep(_LED_S)
        enough = load.accepted + 200
        await waiting.until(lambda: _has_accepted(load, enough))
        stop.set()
        await loading
        assert (load.requests_failed, load.wrong) == (0, [])
        await oracle.until_rolled_up(database, client, running.settings.partitions)
        report = await oracle.verify(database, client, load.sent, partitions=running.settings.partitions)
        assert list(report.problems()) == []
        assert [report.version for report in published] == [before + 1, before + 2]
        await _check_prices(database, before)
        assert await database.fetchval("SELECT count(*) FROM outbox WHERE topic = $1", price_changes.TOPIC) == len(published)
    finally:
        await client.close()
        await database.close()


async def _has_accepted(load: Load, count: int) -> bool:
    return load.accepted >= count


async def _check_prices(database: Pool, before: int) -> None:
    """Each row is explained by itself, by one catalog version, and by the price in force when it happened."""
    events = await events_of(database)
    async with database.acquire() as connection:
        book = await actions.load_book(connection)
    for event in events:
        in_force = book.resolve(0, event.model).entry.row_at(clock.to_ms(event.occurred_at))
        assert (event.price_id, event.amount) == (in_force.id, event.charge_nano), event
        rates = in_force.standard.first
        assert (event.input_pico, event.output_pico, event.cache_read_pico) == (rates.input, rates.output, rates.cache_read)
        assert before <= event.catalog_version <= before + 2
    seen = {model: {event.price_id for event in events if event.model == model} for model in {event.model for event in events}}
    assert len({event.catalog_version for event in events}) >= 2
    assert all(len(rows) >= 2 for rows in seen.values()), seen
