"""Stores that die, stay away and come back, on servers of the test's own: a Postgres that is down, a Redis that comes back as it was.

Each test says which change of the code it fails for.
"""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest

from tallybook.core import errors
from tallybook.embedded.stores import Stores
from tallybook.entrypoints.workers import watch
from tallybook.flows import rebuild, reconcile
from tallybook.flows.rebuild import Found
from tallybook.storage import migrate, postgres, redis
from tests.support import api, billing
from tests.support.api import Answer
from tests.support.billing import World

_BATCH = 50


@pytest.fixture(scope="module")
def own_stores() -> Generator[Stores]:
    """Servers that this module may kill."""
    folder = Path(tempfile.mkdtemp(prefix="tallybook-away-"))
    folder.chmod(0o711)
    try:
        with Stores(folder, postgres_settings={"shared_buffers": "32MB"}) as running:
            yield running
    finally:
        shutil.rmtree(folder)


@pytest.fixture
async def world(own_stores: Stores) -> AsyncGenerator[World]:
    await migrate.migrate(own_stores.postgres.url)
    database = await postgres.connect(own_stores.postgres.url)
    client = redis.connect(own_stores.redis.url)
    async with billing.world(database, client) as made:
        made.services.settings = billing.replace(made.services.settings, postgres_url=own_stores.postgres.url)
        await database.execute("UPDATE installation SET till_made_at = now()")
        yield made
    await client.close()
    await database.close()


async def send(world: World, customer: str) -> Answer:
    """A batch of new events."""
    events = [
        {"customerId": customer, "featureCode": "api_calls", "eventId": f"b{next(world.events)}", "value": 1}
        for _ in range(_BATCH)
    ]
    return await world.api.send("POST", "/api/v1/usage/events/batch", {"events": events})


async def booked(world: World) -> int:
    count = "SELECT count(*) FROM usage_events WHERE tenant_id = $1 AND kind = 0"
    return await world.services.database.fetchval(count, world.tenant.id)


async def is_clean(world: World) -> bool:
    await world.caught_up()
    return (await reconcile.reconcile(world.services.database, world.services.redis, api.PARTITIONS)).is_clean


async def test_a_postgres_that_is_down_under_load_neither_loses_nor_piles_up_and_drains_after(
    world: World, own_stores: Stores
) -> None:
    """Fails when usage of known keys and customers needs Postgres, when something waits in this process, or is lost."""
    await world.metered()
    customer = (await world.subscribe("pro"))["customer"]
    stranger = (await world.subscribe("pro"))["customer"]
    accepted = (await send(world, customer)).body["accepted"]
    await world.caught_up()
    os.kill(own_stores.postgres.child.pid, signal.SIGKILL)
    own_stores.postgres.child.wait(20)
    await asyncio.sleep(3.2)
    tasks_before = len(asyncio.all_tasks())
    for _ in range(20):
        answers = await asyncio.gather(*(send(world, customer) for _ in range(5)))
        assert [answer.status for answer in answers] == [200] * 5
        accepted += sum(answer.body["accepted"] for answer in answers)
    assert accepted == 101 * _BATCH
    assert (await send(world, stranger)).status == 503
    assert world.services.till.depth == 0
    assert len(asyncio.all_tasks()) <= tasks_before + 5
    sample = await watch.look(world.services)
    assert sample is not None
    assert sum(sample.written) > sum(sample.read)
    own_stores.postgres.start()
    assert await is_clean(world)
    assert await booked(world) == accepted


async def test_a_redis_that_starts_again_on_its_own_data_goes_on_and_on_an_older_copy_is_refused_until_rebuilt(
    world: World, own_stores: Stores
) -> None:
    """Fails when a server that started again is charged without comparing it with the book, or never again."""
    await world.metered()
    customer = (await world.subscribe("pro"))["customer"]
    data = own_stores.data / "redis"
    await send(world, customer)
    own_stores.redis.stop()
    copy = own_stores.data / "copy"
    shutil.copytree(data, copy)
    own_stores.redis.start()
    assert (await send(world, customer)).body["accepted"] == _BATCH
    await world.caught_up()
    own_stores.redis.stop()
    shutil.rmtree(data)
    copy.rename(data)
    own_stores.redis.start()
    answer = await send(world, customer)
    assert (answer.status, answer.code) == (503, "till_unknown")
    assert "older than what it acknowledged" in answer.body["error"]["message"]
    question = {"customerId": customer, "featureCode": "api_calls"}
    assert (await world.api.send("POST", "/api/v1/usage/check", question)).code == "till_unknown"
    with pytest.raises(errors.Unavailable):
        await world.services.till.check()
    made = await rebuild.rebuild(world.services)
    assert made.found in (Found.OLDER, Found.CLOSED)
    await asyncio.sleep(1.1)
    assert (await send(world, customer)).body["accepted"] == _BATCH
    assert await is_clean(world)
    assert await booked(world) == 3 * _BATCH
