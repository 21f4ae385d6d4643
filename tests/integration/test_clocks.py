"""A process whose clock is off says so, and is not ready when ids of old events could be missed because of it."""

import asyncio
import logging
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from prometheus_client import generate_latest

from tallybook.core.clock import real_clock
from tallybook.entrypoints import metrics
from tallybook.entrypoints.workers import clocks, periods, upkeep
from tallybook.flows.services import Services
from tallybook.storage import postgres, redis
from tallybook.storage.redis import Redis
from tests.support import api, billing
from tests.support.api import Api


@pytest.fixture
async def services(database: postgres.Pool, redis_client: Redis) -> Services:
    await redis_client.execute_command("FLUSHALL")
    return await api.make_services(database, redis_client)


async def look(services: Services) -> dict[str, float]:
    found: dict[str, float] = {}
    asked: dict[str, clocks.Ask] = {
        "redis": lambda: redis.server_time(services.redis),
        "postgres": lambda: postgres.server_time(services.database),
    }
    await clocks.compare(services, asked, found)
    return found


async def test_clocks_that_agree_are_not_worth_a_word(services: Services, caplog: pytest.LogCaptureFixture) -> None:
    """Mutant: the time a store takes to answer counts as skew."""
    assert await look(services) == {"redis": 0.0, "postgres": 0.0}
    assert (services.clock_skew_s, caplog.text) == (0.0, "")


@pytest.mark.parametrize("seconds", [-2.5, 2.5])
async def test_more_than_a_second_is_logged_and_shown(
    services: Services, caplog: pytest.LogCaptureFixture, seconds: float
) -> None:
    """Mutants: only a clock that runs ahead is noticed; the sign is lost."""
    services.clock = lambda: real_clock() + timedelta(seconds=seconds)
    with caplog.at_level(logging.ERROR):
        found = await look(services)
    for store in ("redis", "postgres"):
        assert found[store] == pytest.approx(seconds, abs=0.5)
        assert f"off the clock of {store}" in caplog.text
        assert f'tallybook_clock_skew_seconds{{store="{store}"}} 2.' in generate_latest(metrics.REGISTRY).decode()


@pytest.mark.parametrize(("seconds", "status"), [(0, 200), (-50, 200), (50, 200), (-70, 503), (70, 503)])
async def test_a_process_more_than_a_minute_off_is_not_ready(services: Services, seconds: int, status: int) -> None:
    """Mutant: readiness does not ask the clock, or asks in one direction."""
    services.clock = lambda: real_clock() + timedelta(seconds=seconds)
    await look(services)
    async with api.serving(services) as client:
        answer = await Api(client, None).send("GET", "/readyz")
    assert answer.status == status
    assert (answer.body["checks"]["clock"] == "ok") == (status == 200)


@pytest.mark.parametrize("told_by", ["postgres", "redis"])
async def test_a_worker_whose_clock_is_off_bills_nothing_and_drops_nothing(
    database: postgres.Pool, redis_client: Redis, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, told_by: str
) -> None:
    """Fails when only readiness asks the clock, or only once at the start, or only one of the stores."""
    await billing.forget_everything(database, redis_client)
    async with billing.world(database, redis_client) as world:
        services = world.services
        services.settings = replace(services.settings, raw_events_months=2)
        world.clock.shows = real_clock()
        await world.metered()
        subscription = await world.subscribe("pro")
        await world.use(subscription["customer"], "api_calls", 1500)
        await world.caught_up()
        assert await periods.close_periods(services) < 1
        world.clock.shows += timedelta(days=200)
        if told_by == "redis":
            billing.stores_agree(world, monkeypatch)
            services.clock_skew_s = 61.0
        assert await periods.close_periods(services) > 1
        await upkeep.tidy_book(services, asyncio.Event())
        assert (await world.periods(subscription))[-1][2] == "open"
        assert len(await world.invoices(subscription)) == 1
        assert await database.fetchval("SELECT count(*) FROM usage_events") > 0
        assert caplog.text.count("it bills and drops nothing until that is mended") == 2
        services.clock_skew_s = 59.0
        billing.stores_agree(world, monkeypatch)
        await periods.close_periods(services)
        assert len(await world.invoices(subscription)) == 2


async def test_a_store_that_is_away_keeps_its_last_word(services: Services) -> None:
    """Mutant: a lost store resets the skew, and a process with a wrong clock becomes ready."""
    services.clock = lambda: real_clock() + timedelta(seconds=70)
    found = await look(services)

    async def away() -> datetime:
        raise ConnectionResetError

    await clocks.compare(services, {"redis": away}, found)
    assert services.clock_skew_s > 60
