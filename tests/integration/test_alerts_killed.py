"""A worker that is killed around the commit of a crossing, for real: whichever worker comes next, it is told once."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest

from tallybook import settings
from tallybook.core.clock import real_clock
from tallybook.storage.postgres import Pool
from tallybook.storage.redis import Redis
from tests.support import api, billing, waiting
from tests.support.api import Api
from tests.support.billing import World


@pytest.fixture
async def world(database: Pool, redis_client: Redis) -> AsyncGenerator[World]:
    """A world whose log nobody reads but the workers that the test starts."""
    await billing.forget_everything(database, redis_client)
    clock = billing.HandClock(real_clock())
    services = await billing.make_services(database, redis_client, clock)
    account = await api.make_account(database)
    async with api.serving(services) as caller:
        yield World(services, account, Api(caller, account.key), clock)


async def worker(world: World, postgres_url: str, redis_url: str, failpoint: str = "") -> asyncio.subprocess.Process:
    """A worker process; with a failpoint, one that kills itself there."""
    wanted = replace(
        world.services.settings,
        postgres_url=postgres_url,
        redis_url=redis_url,
        failpoint=failpoint,
        catalog_url="",
        reconcile_every_s=0,
        log_level="error",
    )
    environment = {**os.environ, **settings.to_environment(wanted)}
    return await asyncio.create_subprocess_exec(sys.executable, "-m", "tallybook.cli", "work", env=environment)


async def told(world: World) -> list[str]:
    return await world.topics("balance.", "alert.")


async def test_a_crossing_is_told_once_by_workers_that_are_killed_around_its_commit(
    world: World, postgres_url: str, redis_url: str
) -> None:
    await world.plan("wallet", 500, consumptionModel="balance", price_includedBalance=50_000)
    await world.feature("wallet", "api_calls", overage={"enabled": True, "unitPrice": 100})
    await world.ask("POST", "/alerts", {"metric": "spend", "threshold": 100, "unit": "amount"})
    subscription = await world.subscribe("wallet")
    await world.use(subscription["customer"], "api_calls", 460)
    for failpoint, told_by_then in (("rollup.before_commit", 0), ("rollup.after_commit", 2)):
        killed = await worker(world, postgres_url, redis_url, failpoint)
        assert await killed.wait() == -signal.SIGKILL
        assert len(await told(world)) == told_by_then
    healthy = await worker(world, postgres_url, redis_url)
    try:
        await world.use(subscription["customer"], "api_calls", 1)
        await world.caught_up()
        await waiting.until(lambda: is_sent(world))
    finally:
        healthy.terminate()
        assert await healthy.wait() == 0
    assert sorted(await told(world)) == ["alert.triggered", "balance.low"]


async def is_sent(world: World) -> bool:
    """Whether nothing waits in the outbox."""
    return await world.services.database.fetchval("SELECT count(*) FROM outbox WHERE delivered_at IS NULL") == 0
