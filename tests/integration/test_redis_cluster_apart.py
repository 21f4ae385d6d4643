"""What a master that is away, or a slot that nobody serves, may not hold up on a Redis Cluster: others' terms, bills and rollup.

Each test says which change of the code it fails for.
"""

from collections.abc import AsyncGenerator, Generator, Sequence

import pytest

from tallybook.core import errors, partitions
from tallybook.core.tenant import Tenant
from tallybook.flows import period, terms
from tallybook.flows.services import Services
from tallybook.rollup import actions as rollup
from tallybook.storage import postgres, redis, redis_cluster
from tallybook.storage.postgres import Pool
from tallybook.storage.redis import Redis
from tallybook.subscriptions import period_store
from tallybook.subscriptions.model import UsagePeriod
from tallybook.tenancy import actions as tenancy
from tests.support import billing, lost_tills, waiting
from tests.support.billing import Json, World
from tests.support.redis_cluster import EVERY, ClusterServers, customer_in, kill, running, server_of, start

ONE = Tenant(1, "org_1", livemode=False)
OTHER = Tenant(2, "org_1", livemode=False)


@pytest.fixture(scope="module")
def cluster() -> Generator[ClusterServers]:
    """Three masters that this module may kill."""
    with running() as servers:
        yield servers


@pytest.fixture
async def client(cluster: ClusterServers) -> AsyncGenerator[Redis]:
    made = redis.connect(cluster.url)
    yield made
    await made.close()


@pytest.fixture
async def services(database: Pool, client: Redis, postgres_url: str) -> Services:
    return await lost_tills.install(database, client, postgres_url)


@pytest.fixture
async def world(services: Services) -> AsyncGenerator[World]:
    """On the emptied stores that `services` left."""
    await services.database.execute("TRUNCATE organizations, installation CASCADE")
    await redis.everywhere(services.redis, "FLUSHALL")
    async with billing.world(services.database, services.redis) as made:
        yield made


async def raise_terms(services: Services, tenant: Tenant, customer_id: int) -> int:
    async with postgres.transaction(services.database) as connection:
        return await tenancy.bump_customer_terms(connection, tenant, customer_id)


async def version(services: Services, tenant: Tenant, customer_id: int) -> int:
    return (await services.till.read(tenant.id, customer_id)).customer_version


async def test_what_the_till_of_a_dead_master_can_not_be_told_holds_up_nobody_elses_change(
    services: Services, client: Redis, cluster: ClusterServers
) -> None:
    """Fails when telling stops at the first customer, or at the first organization, that can't be told."""
    await services.database.execute("INSERT INTO tenants (organization_id, livemode, terms_version) VALUES ('org_1', true, 0)")
    server, dead = await server_of(client, 0)
    alive = next(partition for partition in EVERY if partition not in dead)
    lost, found = customer_in(dead[0]), customer_in(alive)
    elsewhere = next(one for one in range(1001, 2000) if services.till.partition_of(OTHER.id, one) == alive)
    await kill(cluster, server)
    for tenant, customer_id in ((ONE, lost), (ONE, found), (OTHER, elsewhere)):
        assert await raise_terms(services, tenant, customer_id) == 1
    with pytest.raises(errors.Unavailable):
        await terms.publish_stragglers(services)
    assert await version(services, ONE, found) == await version(services, OTHER, elsewhere) == 1
    with pytest.raises(errors.Unavailable):
        await terms.publish(services, ONE)
    async with services.database.acquire() as connection:
        assert [bump.customer_id for bump in await tenancy.undelivered_bumps(connection, ONE)] == [lost]
        assert await tenancy.undelivered_bumps(connection, OTHER) == []
    await start(cluster, server)
    await waiting.until(lambda: is_told(services))
    assert await version(services, ONE, lost) == 1


async def is_told(services: Services) -> bool:
    """A master that was started again takes no word while its file is rewritten."""
    try:
        await terms.publish_stragglers(services)
    except errors.Unavailable:
        return False
    return True


async def used(world: World) -> list[Json]:
    """Subscriptions on all masters that used 1500 of 1000, which the book knows."""
    await world.metered()
    subscriptions = [await world.subscribe("pro") for _ in range(8)]
    for subscription in subscriptions:
        await world.use(subscription["customer"], "api_calls", 1500)
    await world.caught_up()
    return subscriptions


async def due(world: World) -> Sequence[UsagePeriod]:
    """The periods that end a month later, which is now."""
    world.clock.shows = billing.at("2026-12-20T10:00:00")
    async with world.services.database.acquire() as connection:
        return await period_store.due(connection, world.clock(), period.BATCH)


@pytest.mark.parametrize("is_told", [False, True])
async def test_periods_of_customers_on_other_masters_are_billed_while_one_is_dead(
    world: World, client: Redis, cluster: ClusterServers, *, is_told: bool
) -> None:
    """Fails when telling or ticking stops at the first partition that is away."""
    subscriptions = await used(world)
    server, dead = await server_of(client, 0)
    away = [subscription for subscription in subscriptions if await partition_of(world, subscription) in dead]
    assert 0 < len(away) < len(subscriptions)
    ended = await due(world)
    if is_told:
        await period.begin(world.services, ended)
        await terms.publish(world.services, world.tenant)
    await kill(cluster, server)
    results = await period.close_due(world.services)
    unsettled = [result for result in results if isinstance(result, period.Unsettled)]
    assert {type(result.error) for result in unsettled} == {errors.Unavailable}
    assert len(unsettled) == len(away)
    for subscription in subscriptions:
        totals = [invoice["total"] for invoice in await world.invoices(subscription)]
        assert totals == ([9900] if subscription in away else [9900, 9900 + 500])
    assert await dropped(world) == len(subscriptions) - len(away)
    await start(cluster, server)
    await waiting.until(lambda: is_all_billed(world))
    assert [invoice["total"] for invoice in await world.invoices(away[0])] == [9900, 9900 + 500]


async def test_pools_of_closed_periods_are_dropped_on_other_masters_while_one_is_dead(
    world: World, client: Redis, cluster: ClusterServers
) -> None:
    """Fails when dropping stops at the first pool that is away; what was marked before needs no till to be billed."""
    subscriptions = await used(world)
    ended = await due(world)
    await period.begin(world.services, ended)
    await terms.publish(world.services, world.tenant)
    await period.mark(world.services, ended, {})
    await world.caught_up()
    server, dead = await server_of(client, 0)
    away = [subscription for subscription in subscriptions if await partition_of(world, subscription) in dead]
    await kill(cluster, server)
    results = await period.close_due(world.services)
    assert [type(result) for result in results] == [period.Settled] * len(subscriptions)
    assert await dropped(world) == len(subscriptions) - len(away)
    assert await period.expire_leftovers(world.services) == 0
    await start(cluster, server)

    async def is_dropped() -> bool:
        await period.expire_leftovers(world.services)
        return await dropped(world) == len(subscriptions)

    await waiting.until(is_dropped)


async def dropped(world: World) -> int:
    """Periods that are closed and whose pools the till has dropped."""
    closed = "SELECT count(*) FROM billing_periods WHERE state = 'closed' AND expired_at IS NOT NULL"
    return await world.services.database.fetchval(closed)


async def partition_of(world: World, subscription: Json) -> int:
    customer_id = await world.services.database.fetchval(
        "SELECT id FROM customers WHERE external_id = $1", subscription["customer"]
    )
    return world.services.till.partition_of(world.tenant.id, customer_id)


async def is_all_billed(world: World) -> bool:
    await period.close_due(world.services)
    return await world.services.database.fetchval("SELECT count(*) FROM billing_periods WHERE state = 'closing'") == 0


async def test_while_a_slot_moves_its_masters_other_partitions_are_rolled_up(services: Services, client: Redis) -> None:
    """Fails when one partition's error ends the reading of all."""
    source, held = await server_of(client, 0)
    target = next(server for server in await client.servers() if server.name != source.name)
    moving, *others = held
    assert others
    await services.till.charge([lost_tills.event(customer_in(partition), "e", 10) for partition in EVERY])
    slot = redis_cluster.slot_of(partitions.prefix(moving))
    ids = [(await server.execute_command("CLUSTER", "MYID")).decode() for server in (source, target)]
    await target.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
    await source.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
    host, port = target.name.split(":")
    keys: list[bytes] = await source.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1000)
    keys.sort(key=lambda key: not key.endswith(b":log"))
    await source.execute_command("MIGRATE", host, port, keys[0], 0, 5000)
    passed = await rollup.roll_up(services.database, client, held, services.clock(), services.till.epoch)
    assert [partition for partition, _ in passed.left_out] == [moving]
    assert [(await lost_tills.offsets(services))[partition] for partition in held] == [0] + [1] * len(others)
    with pytest.raises(redis.RedisError):
        await rollup.roll_up(services.database, client, [moving], services.clock(), services.till.epoch)
    for key in keys[1:]:
        await source.execute_command("MIGRATE", host, port, key, 0, 5000)
    for server in (target, source):
        await server.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])
    await lost_tills.roll_up(services)
    assert await lost_tills.offsets(services) == [1 for _ in EVERY]


async def test_a_slot_that_nobody_holds_costs_its_own_partition_alone(
    services: Services, client: Redis, cluster: ClusterServers
) -> None:
    """Fails when partitions can't be grouped by server while one of them has none."""
    events = [lost_tills.event(customer_in(partition), "e", 10) for partition in EVERY]
    await services.till.charge(events)
    holder, _ = await server_of(client, 0)
    slot = redis_cluster.slot_of(partitions.prefix(0))
    for node in cluster.nodes:
        alone = redis.connect(node.url)
        await alone.execute_command("CLUSTER", "DELSLOTS", slot)
        await alone.close()

    async def is_known() -> bool:
        with pytest.raises(redis.RedisError):
            await client.execute_command("HGET", "{p00}:m", "seq")
        return client.server_of("{p00}") == ""

    await waiting.until(is_known)
    groups = await client.by_server([partitions.prefix(partition) for partition in EVERY])
    assert [places for server, places in groups if server.name == ""] == [[0]]
    settled = await services.till.settle(events)
    assert [isinstance(one, errors.Unavailable) for one in settled] == [partition == 0 for partition in EVERY]
    assert await services.till.written() == [1 for _ in EVERY]
    await lost_tills.restart(client, [1])
    await services.till.check()
    assert not isinstance((await services.till.settle(events))[1], errors.Unavailable)
    assert [partition for partition, _ in (await lost_tills.roll_up(services)).left_out] == [0]
    assert await lost_tills.offsets(services) == [0, *[1 for _ in EVERY[1:]]]
    await holder.execute_command("CLUSTER", "ADDSLOTS", slot)
    await waiting.until(lambda: takes(services, customer_in(0)))
    await lost_tills.roll_up(services)
    assert await lost_tills.offsets(services) == [1 for _ in EVERY]


async def takes(services: Services, customer_id: int) -> bool:
    try:
        await lost_tills.use(services.till, customer_id, "e", 10)
    except errors.Unavailable:
        return False
    return True


async def test_a_fault_while_one_master_is_looked_at_is_not_taken_for_a_master_that_is_away(
    services: Services, client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when whatever goes wrong with one of several masters is passed over."""
    server, _ = await server_of(client, 0)

    async def fail(*_words: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(server, "execute_command", fail)
    with pytest.raises(RuntimeError):
        await services.till.check()
