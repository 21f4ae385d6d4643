"""The same till on a Redis Cluster of three masters: partitions live and fail by themselves, and no event is counted twice on the way.

Each test says which change of the code it fails for.
"""

import asyncio
import dataclasses
import signal
from collections.abc import AsyncGenerator, Generator, Sequence

import pytest

from tallybook.charge import fence, identities, torn_tail
from tallybook.charge.commands import Outcome, Receipt
from tallybook.charge.till import Till
from tallybook.core import errors, partitions
from tallybook.entrypoints.workers import rollup as rollup_worker
from tallybook.entrypoints.workers import watch
from tallybook.flows import rebuild
from tallybook.flows.services import Services
from tallybook.rollup import log_reader
from tallybook.storage import redis, redis_cluster
from tallybook.storage.postgres import Pool
from tallybook.storage.redis import Redis
from tallybook.storage.safety import UnsafeStoreError
from tests.support import api, lost_tills, waiting
from tests.support.redis_cluster import EVERY, ClusterServers, customer_in, kill, node_of, running, server_of, start, until_ok


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


async def charge_all(till: Till, event_id: str, amount: int = 10) -> list[Receipt]:
    """One event in every partition, in one request."""
    return await till.charge([lost_tills.event(customer_in(partition), event_id, amount) for partition in EVERY])


async def test_events_of_one_request_are_each_logged_on_the_master_of_their_partition(services: Services, client: Redis) -> None:
    """Fails when a call names partitions of two slots, or a command goes to another master than its key's."""
    receipts = await charge_all(services.till, "e")
    assert [receipt.outcome for receipt in receipts] == [Outcome.ACCEPTED] * api.PARTITIONS
    masters = await client.servers()
    held = {server.name: [key async for keys in redis.scan(server, "{p*}:log") for key in keys] for server in masters}
    assert len(held) == 3
    for partition in EVERY:
        server, _ = await server_of(client, partition)
        assert log_reader.key(partition).encode() in held[server.name]
    assert sum(map(len, held.values())) == api.PARTITIONS
    assert await services.till.sequences() == [1] * api.PARTITIONS


async def test_repeats_conflicts_and_limits_are_the_same_on_a_cluster(services: Services) -> None:
    """Fails when receipts come back in another order than the charges, or of another partition."""
    first = await charge_all(services.till, "e")
    again = await charge_all(services.till, "e")
    assert [(one.outcome, one.left) for one in again] == [(Outcome.DUPLICATE, one.left) for one in first]
    assert {one.outcome for one in await charge_all(services.till, "e", 11)} == {Outcome.CONFLICT}
    assert {one.outcome for one in await charge_all(services.till, "too much", 991)} == {Outcome.REFUSED}
    charges = [lost_tills.event(customer_in(partition, nth), f"m{nth}", nth + 1) for nth in range(5) for partition in EVERY]
    assert [one.left for one in await services.till.charge(charges)] == [
        (990 if nth == 0 else 1000) - nth - 1 for nth in range(5) for _ in EVERY
    ]


async def test_a_master_that_has_forgotten_the_script_is_given_it_again(services: Services, client: Redis) -> None:
    """Fails when the script is loaded once for the whole cluster."""
    await charge_all(services.till, "before")
    server, _ = await server_of(client, 2)
    await server.execute_command("SCRIPT", "FLUSH")
    assert {one.outcome for one in await charge_all(services.till, "after")} == {Outcome.ACCEPTED}


async def test_a_change_of_a_tenants_terms_reaches_the_partitions_of_all_masters(services: Services) -> None:
    """Fails when it is told to one master only."""
    await services.till.bump_terms(1, None, 7)
    assert {one.outcome for one in await charge_all(services.till, "old terms")} == {Outcome.STALE}
    views = [await services.till.read(1, customer_in(partition)) for partition in EVERY]
    assert [view.tenant_version for view in views] == [7] * api.PARTITIONS


async def test_nobody_gets_the_epoch_when_one_master_belongs_to_another_installation(services: Services, client: Redis) -> None:
    """Fails when the epoch is written partition by partition without having looked at all."""
    for partition in EVERY:
        await client.execute_command("DEL", f"{partitions.prefix(partition)}:m")
    await client.execute_command("HSET", "{p03}:m", "epoch", "another")
    with pytest.raises(errors.Unavailable, match="does not hold this installation's till"):
        await services.till.initialize()
    assert [await client.execute_command("EXISTS", f"{partitions.prefix(partition)}:m") for partition in EVERY] == [0, 0, 0, 1]


async def test_a_dead_master_costs_its_own_partitions_and_loses_nothing(
    services: Services, client: Redis, cluster: ClusterServers
) -> None:
    """Fails when one lane serves all masters, or one answer for all partitions is waited for."""
    before = await charge_all(services.till, "before")
    server, dead = await server_of(client, 0)
    forgotten = [identities.key(partition, 1, b"00") for partition in EVERY]
    for key in forgotten:
        await client.execute_command("HSET", key, "a", "b")
    await kill(cluster, server)
    for round_number in range(3):
        settled = await services.till.settle(
            [lost_tills.event(customer_in(partition), f"away {round_number}", 10) for partition in EVERY]
        )
        for partition, one in enumerate(settled):
            if partition in dead:
                assert isinstance(one, errors.Unavailable)
                assert one.code == "till_unavailable"
            else:
                assert isinstance(one, Receipt)
                assert one.outcome is Outcome.ACCEPTED
    with pytest.raises(errors.Unavailable):
        await services.till.charge([lost_tills.event(customer_in(partition), "all", 10) for partition in dead])
    assert await services.till.written() == [1 if partition in dead else 4 for partition in EVERY]
    with pytest.raises(redis.RedisError):
        await services.till.forget()
    living = [key for partition, key in enumerate(forgotten) if partition not in dead]
    assert [await client.execute_command("EXISTS", key) for key in living] == [0] * len(living)
    await services.till.check()
    assert await watch.look(services) is not None
    await check_that_a_process_can_start(services, cluster.url)
    await start(cluster, server)
    await waiting.until(lambda: takes_charges_again(services.till, before))
    again = await charge_all(services.till, "away 0")
    assert [one.outcome for one in again] == [Outcome.ACCEPTED if partition in dead else Outcome.DUPLICATE for partition in EVERY]
    await lost_tills.roll_up(services)
    assert (await lost_tills.look(services)).is_clean


async def takes_charges_again(till: Till, before: Sequence[Receipt]) -> bool:
    """A master that was started again takes none while its file is rewritten."""
    try:
        again = await charge_all(till, "before")
    except errors.Unavailable:
        return False
    assert [one.left for one in again] == [one.left for one in before]
    return True


async def check_that_a_process_can_start(services: Services, url: str) -> None:
    """With a client of its own, that has yet to hear where the slots are."""
    client = redis.connect(url)
    await redis.assert_durable(client)
    till = await lost_tills.another_process(dataclasses.replace(services, redis=client))
    await till.check()
    await client.close()


async def test_nobody_else_waits_for_a_master_that_stands_still_and_the_api_stays_ready(
    services: Services, client: Redis, cluster: ClusterServers
) -> None:
    """Fails when a lane serves two masters, or when readiness waits for all: a load balancer would take every API away."""
    await charge_all(services.till, "before")
    server, still = await server_of(client, 0)
    others = [customer_in(partition) for partition in EVERY if partition not in still]
    child = cluster.nodes[node_of(cluster, server)].child
    child.send(signal.SIGSTOP)
    try:
        waits = asyncio.create_task(services.till.charge([lost_tills.event(customer_in(still[0]), "waits", 10)]))
        for event_id in "abc":
            receipts = await services.till.charge([lost_tills.event(customer, event_id, 10) for customer in others])
            assert {one.outcome for one in receipts} == {Outcome.ACCEPTED}
        assert not waits.done()
        with pytest.raises(errors.Unavailable):
            await waits
        async with api.serving(services) as caller, caller.get("/readyz") as answer:
            assert answer.status == 200, await answer.text()
    finally:
        child.send(signal.SIGCONT)
    await until_ok(cluster, server)


async def test_the_rollup_of_other_masters_goes_on_while_one_is_dead(
    services: Services, client: Redis, cluster: ClusterServers, postgres_url: str
) -> None:
    """Fails when a pass reads all masters or none."""
    await charge_all(services.till, "e")
    server, dead = await server_of(client, 0)
    await kill(cluster, server)
    rollup = rollup_worker.Rollup(
        services.database, client, postgres_url, api.PARTITIONS, services.clock, lambda: services.till.epoch
    )
    stop = asyncio.Event()
    running = asyncio.create_task(rollup_worker.run(rollup, stop))
    alive = [partition for partition in EVERY if partition not in dead]

    async def are_booked(of: Sequence[int]) -> bool:
        read = await lost_tills.offsets(services)
        return all(read[partition] == 1 for partition in of)

    await waiting.until(lambda: are_booked(alive))
    assert not await are_booked(dead)
    await start(cluster, server)
    await waiting.until(lambda: are_booked(EVERY))
    stop.set()
    await running


async def test_a_master_that_was_started_again_is_compared_with_the_book_by_itself(services: Services, client: Redis) -> None:
    """Fails when the restart of one master closes the others, or when it is charged without asking the book."""
    away: list[bool] = []
    till = await lost_tills.another_process(services, away)
    await charge_all(till, "before")
    _, restarted = await server_of(client, 0)
    await lost_tills.restart(client, restarted)
    away.append(True)
    settled = await till.settle([lost_tills.event(customer_in(partition), "no book", 10) for partition in EVERY])
    assert [isinstance(one, Receipt) for one in settled] == [partition not in restarted for partition in EVERY]
    away.clear()
    till = await lost_tills.another_process(services)
    assert {one.outcome for one in await charge_all(till, "with book")} == {Outcome.ACCEPTED}


async def test_nobody_waits_for_a_master_that_takes_long_to_rewrite_its_file(
    services: Services, client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when a call waits for the rewrite, or once more for each of the master's partitions."""
    await charge_all(services.till, "before")
    _, restarted = await server_of(client, 0)
    await lost_tills.restart(client, restarted)
    asked: list[str] = []

    async def cut_off_slowly(server: Redis) -> None:
        asked.append(server.name)
        if len(asked) == 1:
            await asyncio.sleep(0.3)

    monkeypatch.setattr(torn_tail, "cut_off", cut_off_slowly)
    monkeypatch.setattr(fence, "_SOON_S", 0.1)
    monkeypatch.setattr(fence, "_REFUSED_S", 60.0)
    settled = await services.till.settle([lost_tills.event(customer_in(partition), "meanwhile", 10) for partition in EVERY])
    assert [isinstance(one, Receipt) for one in settled] == [partition not in restarted for partition in EVERY]
    assert {one.code for one in settled if not isinstance(one, Receipt)} == {"till_unavailable"}
    with pytest.raises(errors.Unavailable):
        await services.till.charge([lost_tills.event(customer_in(restarted[0]), "still", 10)])
    assert len(asked) <= 1
    monkeypatch.setattr(fence, "_SOON_S", 60.0)
    monkeypatch.setattr(fence, "_REFUSED_S", 0.0)
    assert {one.outcome for one in await charge_all(services.till, "rewritten")} == {Outcome.ACCEPTED}


async def test_the_file_of_the_master_that_holds_a_partition_now_is_rewritten(
    services: Services, client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when it is that of the master which held it when slots were last asked for."""
    holder, _ = await server_of(client, 0)
    other = next(server for server in await client.servers() if server.name != holder.name)
    await lost_tills.restart(client, [0])
    rewritten: list[str] = []

    async def note(server: Redis) -> None:
        rewritten.append(server.name)

    monkeypatch.setattr(torn_tail, "cut_off", note)
    vars(client)["_holders"][redis_cluster.slot_of("{p00}")] = other
    await services.till.check()
    assert holder.name in rewritten


async def test_a_master_that_lost_what_it_acknowledged_is_closed_and_the_others_are_not(
    services: Services, client: Redis
) -> None:
    """Fails when only the partition that was asked is closed, or the whole cluster is."""
    await charge_all(services.till, "before")
    _, behind = await server_of(client, 0)
    assert len(behind) > 1
    await client.execute_command("HSET", "{p00}:m", "seq", 0)
    settled = await services.till.settle([lost_tills.event(customer_in(partition), "after", 10) for partition in EVERY])
    assert isinstance(settled[0], errors.Unavailable)
    assert settled[0].code == "till_unknown"
    closed = [await client.execute_command("HEXISTS", f"{partitions.prefix(partition)}:m", "closed") for partition in EVERY]
    assert closed == [int(partition in behind) for partition in EVERY]
    assert services.till.is_refused
    other = [partition for partition in EVERY if partition not in behind]
    receipts = await services.till.charge([lost_tills.event(customer_in(partition), "others", 10) for partition in other])
    assert {one.outcome for one in receipts} == {Outcome.ACCEPTED}


async def test_a_till_on_a_cluster_is_made_anew_from_the_book(services: Services, client: Redis) -> None:
    """Fails when keys are looked for, dropped or written on one master only."""
    before = await charge_all(services.till, "before")
    await lost_tills.roll_up(services)
    server, emptied = await server_of(client, 0)
    await server.execute_command("FLUSHALL")
    settled = await services.till.settle([lost_tills.event(customer_in(partition), "lost", 10) for partition in EVERY])
    assert [isinstance(one, errors.Unavailable) for one in settled] == [partition in emptied for partition in EVERY]
    await lost_tills.roll_up_of(services, [partition for partition in EVERY if partition not in emptied])
    leftovers = [f"{partitions.prefix(partition)}:d:1:ff" for partition in EVERY]
    await client.pipeline(*[("HSET", key, "v", 1) for key in leftovers], atomic=False)
    rebuilt = await rebuild.rebuild(services)
    assert rebuilt.pools == api.PARTITIONS
    assert await client.pipeline(*[("EXISTS", key) for key in leftovers], atomic=False) == [0] * api.PARTITIONS
    again = await charge_all(services.till, "before")
    assert [(one.outcome, one.left) for one in again] == [(Outcome.DUPLICATE, one.left) for one in before]
    await lost_tills.roll_up(services)
    assert (await lost_tills.look(services)).is_clean


async def test_a_partition_takes_nothing_while_its_slot_is_moved_and_remembers_everything_afterwards(
    services: Services, client: Redis
) -> None:
    """Fails when `ASK` is followed: the script would then look for identities where they have not arrived yet."""
    customer = customer_in(3)
    [first] = await services.till.charge([lost_tills.event(customer, "e", 10)])
    source, _ = await server_of(client, 3)
    target = next(server for server in await client.servers() if server.name != source.name)
    slot = redis_cluster.slot_of("{p03}")
    ids = [(await server.execute_command("CLUSTER", "MYID")).decode() for server in (source, target)]
    await target.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
    await source.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
    keys: list[bytes] = await source.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 1000)
    keys.sort(key=lambda key: not key.endswith(b":m"))
    host, port = target.name.split(":")
    for place, key in enumerate(keys):
        await source.execute_command("MIGRATE", host, port, key, 0, 5000)
        if place in (0, len(keys) - 1):
            with pytest.raises(errors.Unavailable):
                await services.till.charge([lost_tills.event(customer, "e", 10)])
    for server in (target, source):
        await server.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])
    [again] = await services.till.charge([lost_tills.event(customer, "e", 10)])
    assert (again.outcome, again.left) == (Outcome.DUPLICATE, first.left)
    assert (await services.till.charge([lost_tills.event(customer, "new", 10)]))[0].left == first.left - 10
    assert (await services.till.read(1, customer)).sequence == 2
    await lost_tills.roll_up(services)
    assert (await lost_tills.look(services)).is_clean


async def test_a_cluster_that_is_named_like_one_server_is_refused_by_name(cluster: ClusterServers) -> None:
    """Fails when the first event finds it out, by an error that says `CROSSSLOT`."""
    alone = redis.connect(cluster.nodes[0].url)
    with pytest.raises(UnsafeStoreError, match=r"redis\+cluster://"):
        await redis.assert_durable(alone)
    await alone.close()


async def test_settings_of_every_master_are_looked_at(client: Redis) -> None:
    """Fails when the first server speaks for all."""
    await redis.assert_durable(client)
    servers = await client.servers()
    await servers[-1].execute_command("CONFIG", "SET", "appendfsync", "everysec")
    with pytest.raises(UnsafeStoreError, match="appendfsync is 'everysec'"):
        await redis.assert_durable(client)
    await servers[-1].execute_command("CONFIG", "SET", "appendfsync", "always")
