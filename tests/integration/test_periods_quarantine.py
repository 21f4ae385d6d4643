"""Usage that the book could not take and the period that pays for it: billed once it is applied or dropped, and never around it."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import pytest

from tallybook.core import errors, partitions
from tallybook.flows import period, reconcile
from tallybook.rollup import log_reader, quarantine
from tallybook.storage import postgres
from tallybook.storage.redis import Redis
from tests.support import billing
from tests.support.api import PARTITIONS
from tests.support.billing import Json, World

_ENDED = billing.at("2026-12-20T10:00:00")


@pytest.fixture
async def world(database: postgres.Pool, redis_client: Redis) -> AsyncGenerator[World]:
    await billing.forget_everything(database, redis_client)
    await database.execute("TRUNCATE quarantine")
    async with billing.world(database, redis_client) as made:
        await made.metered()
        yield made
    await database.execute("TRUNCATE quarantine")


@asynccontextmanager
async def refusing(world: World, sqlstate: str) -> AsyncGenerator[None]:
    """Postgres answers usage with an error."""
    database = world.services.database
    raises = f"BEGIN RAISE EXCEPTION USING ERRCODE = '{sqlstate}', MESSAGE = 'refused'; END"
    await database.execute(f"CREATE OR REPLACE FUNCTION refusing() RETURNS trigger LANGUAGE plpgsql AS $${raises}$$")
    await database.execute("CREATE TRIGGER refuses BEFORE INSERT ON usage_hourly FOR EACH ROW EXECUTE FUNCTION refusing()")
    try:
        yield
    finally:
        await database.execute("DROP TRIGGER refuses ON usage_hourly")


async def partition_of(world: World, subscription: Json) -> int:
    """Where the log of the subscription's customer is."""
    query = "SELECT customer_id FROM subscriptions WHERE public_id = $1"
    return partitions.of(world.tenant.id, await world.services.database.fetchval(query, subscription["id"]), PARTITIONS)


async def subscribed(world: World, *, where: Callable[[int], bool]) -> Json:
    """A subscription of a customer in such a partition."""
    while True:
        subscription = await world.subscribe("pro")
        if where(await partition_of(world, subscription)):
            return subscription


async def totals(world: World, subscription: Json) -> list[int]:
    return [invoice["total"] for invoice in await world.invoices(subscription)]


async def why_not(world: World) -> set[str]:
    """Codes of what keeps periods from being billed."""
    left = [result.error for result in await period.close_due(world.services) if isinstance(result, period.Unsettled)]
    return {error.code if isinstance(error, errors.Unavailable) else str(error) for error in left}


async def is_clean(world: World) -> bool:
    return (await reconcile.reconcile(world.services.database, world.services.redis, PARTITIONS)).is_clean


async def test_a_server_without_room_costs_no_usage_on_the_bill(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when entries are set aside for it, or the period is billed without them."""
    subscription = await world.subscribe("pro")
    await world.use(subscription["customer"], "api_calls", 900)
    await world.caught_up()
    monkeypatch.setattr(period, "CATCH_UP_S", 0.3)
    async with refusing(world, "53100"):
        for _ in range(3):
            await world.use(subscription["customer"], "api_calls", 500)
        world.clock.shows = _ENDED
        assert await why_not(world) == {"book_behind"}
    await world.caught_up()
    assert await quarantine.every(world.services.database) == []
    while await world.close_due():
        pass
    assert await totals(world, subscription) == [9900, 9900 + 1400]


async def test_a_period_with_usage_in_quarantine_is_billed_with_it_once_it_is_applied(world: World) -> None:
    """Fails when it is billed without: the usage would come to a pool that is closed, and on no invoice."""
    held = await world.subscribe("pro")
    neighbour = await subscribed(world, where=[await partition_of(world, held)].__contains__)
    await world.use(held["customer"], "api_calls", 900)
    await world.use(neighbour["customer"], "api_calls", 1500)
    await world.caught_up()
    async with refusing(world, "23514"):
        for _ in range(3):
            await world.use(held["customer"], "api_calls", 500)
        await world.caught_up()
    items = await quarantine.every(world.services.database)
    assert items
    world.clock.shows = _ENDED
    assert await why_not(world) == {"usage_quarantined"}
    assert (await totals(world, held), await totals(world, neighbour)) == ([9900], [9900, 10_400])
    await world.use(held["customer"], "api_calls", 1)
    for item in items:
        await quarantine.retry(world.services.database, item.id, world.clock())
    await world.close_due()
    assert await totals(world, held) == [9900, 9900 + 1400]
    await world.caught_up()
    assert await is_clean(world)


async def test_what_nobody_can_read_holds_up_the_bills_of_its_partition_until_it_is_dropped(world: World) -> None:
    """Fails when usage of nobody knows whom counts as nobody's, or as everybody's."""
    held = await world.subscribe("pro")
    partition = await partition_of(world, held)
    other = await subscribed(world, where=lambda one: one != partition)
    key = log_reader.key(partition)
    sequence = (await world.services.till.sequences())[partition] + 1
    await world.services.redis.execute_command("XADD", key, f"{sequence}-0", "d", b"no entry")
    await world.services.redis.execute_command("HSET", f"{partitions.prefix(partition)}:m", "seq", sequence)
    world.clock.shows = _ENDED
    assert await why_not(world) == {"usage_quarantined"}
    assert (await totals(world, held), await totals(world, other)) == ([9900], [9900, 9900])
    [item] = await quarantine.every(world.services.database)
    await quarantine.drop(world.services.database, item.id, "written by hand", world.clock())
    await world.close_due()
    assert await totals(world, held) == [9900, 9900]


async def test_more_items_than_anybody_looks_into_hold_up_their_partitions(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "_LOOKED_INTO_MAX", 1)
    held = await world.subscribe("pro")
    async with refusing(world, "22003"):
        for _ in range(2):
            await world.use(held["customer"], "api_calls", 500)
            await world.caught_up()
    partition = await partition_of(world, held)
    found = await quarantine.lacking(world.services.database, range(PARTITIONS))
    assert (found.customers, found.partitions) == (frozenset(), frozenset(range(PARTITIONS)))
    found = await quarantine.lacking(world.services.database, set(range(PARTITIONS)) - {partition})
    assert (found.customers, found.partitions) == (frozenset(), frozenset())
