"""A pool that does not reconcile is found by the worker's rounds, frozen, named to whoever charges it, and thawed when it is right.

Each test says which change of the code it fails for.
"""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest

from tallybook.cli import pools as command
from tallybook.core import errors, partitions
from tallybook.entrypoints import metrics
from tallybook.entrypoints.workers import reconciling
from tallybook.flows import freezing, reconcile_round
from tallybook.flows.reconcile_round import Outcome
from tallybook.flows.services import Services
from tallybook.rollup import freezes
from tallybook.storage import locks, postgres
from tallybook.storage.redis import Redis
from tests.support import api, billing, tills
from tests.support.billing import World


@pytest.fixture
async def world(database: postgres.Pool, redis_client: Redis) -> AsyncGenerator[World]:
    async with billing.world(database, redis_client) as made:
        yield made


async def a_customer(world: World) -> tuple[str, int]:
    """A customer that has used something: its own id and its row id."""
    await world.metered()
    subscription = await world.subscribe("pro")
    await world.use(subscription["customer"], "api_calls", 30)
    await world.caught_up()
    row_id = await world.services.database.fetchval(
        "SELECT id FROM customers WHERE external_id = $1 AND tenant_id = $2", subscription["customer"], world.tenant.id
    )
    return subscription["customer"], row_id


async def shift(world: World, customer_id: int, by: int) -> str:
    """Change what the till says is left in the customer's pool. Returns the pool's name."""
    partition = partitions.of(world.tenant.id, customer_id, api.PARTITIONS)
    view = await world.services.till.read(world.tenant.id, customer_id)
    [name] = [name for name in view.pools if ".f" in name]
    await tills.shift_pool(world.services.redis, partition, customer_id, name, by)
    return name


async def go_round(services: Services) -> Outcome:
    """A whole round without rests."""

    async def go_on() -> bool:
        return True

    return await reconcile_round.go_round(services, go_on)


async def public_id(world: World, customer_id: int) -> str:
    return await world.services.database.fetchval("SELECT public_id FROM customers WHERE id = $1", customer_id)


async def test_a_pool_that_is_off_by_one_unit_freezes_its_customer_and_nobody_else(world: World) -> None:
    """Fails when a round does not look at the till, freezes by tenant, or tolerates any difference."""
    customer, customer_id = await a_customer(world)
    other = await world.subscribe("pro")
    assert (await go_round(world.services)).problems == 0
    pool = await shift(world, customer_id, 1)
    outcome = await go_round(world.services)
    assert outcome.frozen == [customer_id]
    answer = await world.api.send(
        "POST", "/api/v1/usage/events", {"customerId": customer, "featureCode": "api_calls", "eventId": "x", "value": 1}
    )
    assert (answer.status, answer.code, answer.headers["Retry-After"]) == (503, "pool_frozen", "30")
    assert pool in answer.body["error"]["message"]
    assert pool in answer.body["error"]["details"]["reason"]
    await world.use(other["customer"], "api_calls", 1)
    assert (await go_round(world.services)).frozen == [customer_id]
    await shift(world, customer_id, -1)


async def test_the_book_is_compared_with_itself_and_a_wrong_pool_of_it_freezes(world: World) -> None:
    """Fails when a round compares the till with balances only."""
    _, customer_id = await a_customer(world)
    await world.services.database.execute("UPDATE pool_ledger SET amount = amount + 1 WHERE customer_id = $1", customer_id)
    outcome = await go_round(world.services)
    assert outcome.frozen == [customer_id]
    await world.services.database.execute("UPDATE pool_ledger SET amount = amount - 1 WHERE customer_id = $1", customer_id)


async def test_hours_that_differ_from_their_events_are_told_and_freeze_nobody(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Fails when a round leaves the hourly totals out."""
    _, customer_id = await a_customer(world)
    await world.services.database.execute("UPDATE usage_hourly SET amount = amount + 1 WHERE customer_id = $1", customer_id)
    outcome = await go_round(world.services)
    assert [one.what for one in outcome.wrong] == ["usage events = hourly totals: amount"]
    assert "books differ" in caplog.text
    assert customer_id not in outcome.frozen
    await world.services.database.execute("UPDATE usage_hourly SET amount = amount - 1 WHERE customer_id = $1", customer_id)


async def test_a_customer_is_thawed_only_when_all_there_is_of_it_reconciles_or_by_force(world: World) -> None:
    """Fails when thawing does not look, or force does not work, or only one of till and book is told."""
    customer, customer_id = await a_customer(world)
    await shift(world, customer_id, -7)
    await go_round(world.services)
    name = await public_id(world, customer_id)
    [listed] = [line for line in await command.frozen(world.services) if line.startswith(name)]
    assert "does not reconcile" in listed
    code, lines = await command.thaw(world.services, name, force=False)
    assert (code, lines[-1]) == (1, f"{name} stays frozen: it does not reconcile")
    assert any("customer" in line and "pool" in line for line in lines)
    await world.use(customer, "api_calls", 1, status=503)
    assert (await command.thaw(world.services, name, force=True))[0] == 0
    await world.use(customer, "api_calls", 1)
    await world.caught_up()
    await go_round(world.services)
    await shift(world, customer_id, 7)
    assert await command.thaw(world.services, name, force=False) == (0, [f"{name} is charged again"])
    await world.use(customer, "api_calls", 1)
    assert not any(line.startswith(name) for line in await command.frozen(world.services))
    with pytest.raises(errors.NotFound):
        await command.thaw(world.services, "cus_nobody", force=False)


async def test_a_till_that_is_not_ours_freezes_nobody(world: World) -> None:
    """Fails when what differs is frozen without asking once more whose till it is."""
    _, customer_id = await a_customer(world)
    epoch = world.services.till.epoch
    for partition in range(api.PARTITIONS):
        await world.services.redis.execute_command("HSET", f"{partitions.prefix(partition)}:m", "epoch", "another")
    with pytest.raises(errors.Unavailable):
        await go_round(world.services)
    with pytest.raises(errors.Unavailable):
        await freezing.freeze(world.services, world.tenant.id, customer_id, "pool x")
    assert customer_id not in [one.customer_id for one in await freezes.every(world.services.database)]
    for partition in range(api.PARTITIONS):
        await world.services.redis.execute_command("HSET", f"{partitions.prefix(partition)}:m", "epoch", epoch)
    await world.services.till.check()


async def test_whom_the_book_says_is_frozen_the_till_refuses_again(world: World) -> None:
    """Fails when a round does not repeat what a crash left half done."""
    customer, customer_id = await a_customer(world)
    await freezes.note(world.services.database, world.tenant.id, customer_id, "pool y does not reconcile")
    await world.use(customer, "api_calls", 1)
    await freezing.keep(world.services)
    await world.use(customer, "api_calls", 1, status=503)
    await freezing.thaw(world.services, world.tenant.id, customer_id)
    await freezing.keep(world.services)
    await world.use(customer, "api_calls", 1)


async def test_the_worker_goes_round_shows_what_it_found_and_one_process_at_a_time_does(
    world: World, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when the loop does not lead alone, or the metrics are not set."""
    settings = replace(world.services.settings, postgres_url=postgres_url, reconcile_every_s=1)
    services = replace(world.services, settings=settings)
    _, customer_id = await a_customer(world)
    await shift(world, customer_id, 3)
    rounds = 0
    original = reconciling.go_round

    async def counted(services: Services, stop: asyncio.Event) -> Outcome:
        nonlocal rounds
        rounds += 1
        outcome = await original(services, stop)
        stop.set()
        return outcome

    monkeypatch.setattr(reconciling, "go_round", counted)
    async with locks.alone(postgres_url, reconciling.LOCK, application_name="test") as leads:
        assert leads
        stop = asyncio.Event()
        waiting = asyncio.create_task(reconciling.run(services, stop))
        await asyncio.sleep(0.3)
        assert rounds == 0
        stop.set()
        await waiting
    await reconciling.run(services, asyncio.Event())
    assert rounds == 1
    text = metrics.exposition({}).decode()
    frozen = len(await freezes.every(services.database))
    assert f"tallybook_pools_frozen {float(frozen)}" in text
    assert frozen >= 1
    assert "tallybook_reconcile_problems 0.0" not in text
    await shift(world, customer_id, -3)


async def test_rounds_while_traffic_flows_find_nothing(world: World) -> None:
    """Fails when till and book are compared at different moments."""
    customer, _ = await a_customer(world)

    async def traffic() -> None:
        for _ in range(60):
            await world.use(customer, "api_calls", 1)

    sending = asyncio.create_task(traffic())
    while not sending.done():
        outcome = await go_round(world.services)
        assert [one for one in outcome.differences if one.tenant_id == world.tenant.id] == []
    await sending
