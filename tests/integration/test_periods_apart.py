"""What can't go on holds up nothing else: partitions that stand still, frozen pools, clocks of other sandboxes."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator

import pytest

from tallybook.core import errors
from tallybook.entrypoints.workers import periods as worker
from tallybook.flows import openings, period, test_clock
from tallybook.storage import postgres
from tallybook.storage.redis import Redis
from tallybook.subscriptions import period_store
from tests.support import api, billing, waiting
from tests.support.api import Api
from tests.support.billing import Json, World


@pytest.fixture
async def world(database: postgres.Pool, redis_client: Redis) -> AsyncGenerator[World]:
    await billing.forget_everything(database, redis_client)
    async with billing.world(database, redis_client) as made:
        yield made


@pytest.fixture
def standing_still(monkeypatch: pytest.MonkeyPatch) -> Generator[set[int]]:
    """Partitions that the book does not get on with; nobody waits for them long."""
    still = set[int]()
    rolled_up_to = period.invoice_store.rolled_up_to

    async def read(connection: postgres.Connection, partition: int) -> int:
        return 0 if partition in still else await rolled_up_to(connection, partition)

    with monkeypatch.context() as patch:
        patch.setattr(period, "CATCH_UP_S", 1.0)
        patch.setattr(period.invoice_store, "rolled_up_to", read)
        yield still


async def customer_id(world: World, subscription: Json) -> int:
    return await world.services.database.fetchval("SELECT id FROM customers WHERE external_id = $1", subscription["customer"])


async def subscribed(world: World, is_wanted: Callable[[int], bool]) -> Json:
    """A subscription of a customer whose partition is as wanted; those before it are of nobody."""
    while True:
        reference = await world.customer()
        row_id = await world.services.database.fetchval("SELECT id FROM customers WHERE external_id = $1", reference)
        if is_wanted(period.partition_of(world.services, world.tenant, row_id)):
            return await world.subscribe("pro", reference)


async def test_more_stuck_periods_than_are_closed_together_keep_no_later_one_waiting(
    world: World, standing_still: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when periods that could not be billed are tried again before others."""
    standing_still.add(2)
    monkeypatch.setattr(period, "BATCH", 2)
    await world.metered()
    stuck = [await subscribed(world, lambda partition: partition == 2) for _ in range(3)]
    world.clock.shows = billing.at("2026-11-20T09:30:00")
    last = await subscribed(world, lambda partition: partition != 2)
    world.clock.shows = billing.at("2026-12-20T10:00:00")
    for _ in range(2):
        await period.close_due(world.services)
    assert [state for _, _, state in await world.periods(last)] == ["closed", "open"]
    standing_still.clear()
    for _ in range(2):
        await world.close_due()
    assert [len(await world.invoices(subscription)) for subscription in stuck] == [2, 2, 2]


async def test_pools_of_closed_periods_are_dropped_while_no_other_period_can_be_closed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when one loop has both duties, one after the other."""
    await world.metered()
    subscription = await world.subscribe("pro")
    await world.use(subscription["customer"], "api_calls", 1)
    world.clock.shows = billing.at("2026-12-20T10:00:00")

    async def nothing(*_: object) -> None:
        """Stands for a crash right after the period was closed."""

    with monkeypatch.context() as patch:
        patch.setattr(period, "expire", nothing)
        await world.close_due()

    async def fails(*_: object) -> None:
        code = "till_unavailable"
        raise errors.Unavailable(code, "The till can't be reached.")

    async def is_dropped() -> bool:
        async with world.services.database.acquire() as connection:
            return await period_store.unexpired(connection, 10) == []

    assert not await is_dropped()
    monkeypatch.setattr(period, "due", fails)
    stop = asyncio.Event()
    task = asyncio.create_task(worker.run(world.services, stop))
    await waiting.until(is_dropped)
    stop.set()
    await task


async def test_a_clock_that_waits_for_a_partition_stops_no_clock_of_another_sandbox(
    world: World, standing_still: set[int]
) -> None:
    account = await api.make_account(world.services.database)
    other = World(world.services, account, Api(world.api.client, account.key), world.clock)
    for each in (world, other):
        await each.stand_at("2026-01-31T10:00:00")
        await each.metered()
    waits = await subscribed(world, lambda partition: partition == 2)
    goes_on = await subscribed(other, lambda partition: partition != 2)
    standing_still.add(2)
    for each in (world, other):
        await each.ask("POST", "/test-clock", {"frozenTime": "2026-03-01T00:00:00Z"}, status=202)
    with pytest.raises(errors.Unavailable):
        await test_clock.carry_on(world.services)
    assert (await other.ask("GET", "/test-clock"))["latestRun"]["status"] == "completed"
    assert (len(await world.invoices(waits)), len(await other.invoices(goes_on))) == (1, 2)
    standing_still.clear()
    await test_clock.carry_on(world.services)
    assert len(await world.invoices(waits)) == 2


async def raised(world: World) -> Json:
    """A subscription that used 3000 of 1000, of which 2500 are included since."""
    await world.metered()
    subscription = await world.subscribe("pro")
    await world.use(subscription["customer"], "api_calls", 3000)
    world.clock.shows = billing.at("2026-12-01T09:00:00")
    await world.ask("PATCH", "/plans/pro/features/api_calls", {"includedAmount": 2500})
    world.clock.shows = billing.at("2026-12-20T10:00:00")
    return subscription


async def test_a_raised_allowance_waits_for_pools_that_are_frozen_and_is_then_billed_as_it_was_shown(world: World) -> None:
    """Fails when a period is billed whose pools could not be granted what its terms grant."""
    subscription = await raised(world)
    owner = await customer_id(world, subscription)
    await world.services.till.freeze(world.tenant.id, owner, "does not reconcile")
    other = await world.subscribe("pro")
    world.clock.shows = billing.at("2027-01-20T10:00:00")
    results = {result.period.customer_id: result for result in await period.close_due(world.services)}
    result = results.pop(owner)
    assert isinstance(result, period.Unsettled)
    assert isinstance(result.error, errors.Unavailable)
    assert result.error.code == "pool_frozen"
    assert [type(each) for each in results.values()] == [period.Settled]
    assert len(await world.invoices(other)) == 2
    await world.services.till.thaw(world.tenant.id, owner)
    await world.close_due()
    assert (await world.invoices(subscription))[1]["total"] == 9900 + 500


async def test_a_raise_is_granted_once_however_often_closing_is_interrupted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscription = await raised(world)

    async def dies(*_: object) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as patch:
        patch.setattr(period, "mark", dies)
        for _ in range(2):
            with pytest.raises(asyncio.CancelledError):
                await period.close_due(world.services)
    await asyncio.gather(world.close_due(), world.close_due(), world.close_due())
    assert [invoice["total"] for invoice in await world.invoices(subscription)] == [9900, 9900 + 500]
    moved = "SELECT sum(amount) FROM pool_ledger WHERE customer_id = $1 AND kind = 'opening'"
    await world.caught_up()
    assert await world.services.database.fetchval(moved, await customer_id(world, subscription)) == 2500 * 10**9


async def test_a_raise_reaches_the_pool_also_when_the_terms_change_once_more_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when a stale answer of the till is taken for done, or for frozen."""
    subscription = await raised(world)
    owner = await customer_id(world, subscription)
    read, asked = world.services.till.read, list[int]()

    async def overtaken(tenant_id: int, of: int) -> object:
        view = await read(tenant_id, of)
        asked.append(of)
        if len(asked) == 1:
            await world.services.till.bump_terms(tenant_id, of, view.customer_version + 7)
        return view

    monkeypatch.setattr(world.services.till, "read", overtaken)
    async with world.services.database.acquire() as connection:
        due = [one for one in await period_store.due(connection, world.clock(), 10) if one.customer_id == owner]
    assert await openings.reopen(world.services, due) == set()
    [pool] = [state for name, state in (await read(world.tenant.id, owner)).pools.items() if ".f" in name]
    assert (pool.opening, pool.left) == (2500 * 10**9, -500 * 10**9)
