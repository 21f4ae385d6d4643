"""A Redis that is not this installation's whole till is refused, also while running; and the till is made anew from the book.

Each test says which change of the code it fails for.
"""

import asyncio
import dataclasses

import pytest
from msgspec.structs import replace

from tallybook.charge import identities
from tallybook.charge.remaking import Remaking
from tallybook.charge.till import Outcome, Receipt, Till, TillSettings
from tallybook.core import errors, partitions
from tallybook.core.usage_log import Kind
from tallybook.flows import claim, freezing, rebuild
from tallybook.flows.rebuild import Found
from tallybook.flows.services import Services
from tallybook.rollup import actions as rollup
from tallybook.rollup import log_reader
from tallybook.rollup.model import OffsetMovedError, UnknownLogError
from tallybook.storage.postgres import Pool
from tallybook.storage.redis import Redis
from tests.support import api, lost_tills, tills
from tests.support import log_builder as log


@pytest.fixture
async def services(database: Pool, redis_client: Redis, postgres_url: str) -> Services:
    return await lost_tills.install(database, redis_client, postgres_url)


async def refused(till: Till, customer_id: int = 1) -> str:
    """Why usage and reads are refused, both for the same reason."""
    with pytest.raises(errors.Unavailable) as usage:
        await lost_tills.use(till, customer_id, "refused", 1)
    with pytest.raises(errors.Unavailable) as reading:
        await till.read(1, customer_id)
    assert usage.value.code == reading.value.code == "till_unknown"
    assert usage.value.retry_after_s == 30
    return str(usage.value)


async def every_kind(till: Till) -> list[Receipt]:
    """Usage paid in every way, and every other change of a pool, on six customers; returns what the usage of five was answered."""
    receipts: list[Receipt] = []
    for customer_id in range(1, 6):
        await till.charge([tills.change(Kind.ADJUSTMENT, customer_id, "bought", 100, pool="credits")])
        receipts += [await lost_tills.use(till, customer_id, f"e{event}", 270) for event in range(4)]
    await till.charge([tills.change(Kind.SET, 1, "set", 70, opening=1000), tills.change(Kind.EXPIRY, 2, "expiry", 0)])
    await till.charge([tills.change(Kind.ADJUSTMENT, 3, "granted", 25, opening=1000)])
    await till.charge([tills.usage(4, "reopened", 1, opening=1500)])
    await till.charge([tills.change(Kind.ADJUSTMENT, 6, "bought", 100, pool="credits")])
    for name, amount in (("from credits", -40), ("from both", -90), ("from the pool", -20), ("too much", -921)):
        await till.charge([tills.change(Kind.ADJUSTMENT, 6, name, amount, opening=1000, spare="credits")])
    return receipts


async def memory(client: Redis) -> dict[bytes, dict[bytes, bytes]]:
    """Everything the till remembers, but for what a new till has of its own."""
    found: dict[bytes, dict[bytes, bytes]] = {}
    for key in await client.execute_command("KEYS", "*"):
        if key.endswith((b":m", b":log")) or b":aside:" in key:
            continue
        flat: list[bytes] = await client.execute_command("HGETALL", key)
        found[key] = dict(zip(flat[::2], flat[1::2], strict=True))
    return found


def readable(found: dict[bytes, dict[bytes, bytes]]) -> dict[bytes, dict[bytes, bytes]]:
    """The same, where an outcome of nothing is written as 0, as the book has it."""
    return {
        key: {name: value + b"0" if b":d:" in key and value.endswith(b",") else value for name, value in fields.items()}
        for key, fields in found.items()
    }


async def test_a_till_made_anew_remembers_byte_for_byte_what_the_old_one_did(services: Services) -> None:
    """Fails when any field of an identity, a pool, its opening or a terms version is left out or written otherwise."""
    till = services.till
    await every_kind(till)
    await till.bump_terms(1, None, 3)
    await services.database.execute("UPDATE tenants SET terms_version = 3")
    await services.database.execute("INSERT INTO customer_terms (customer_id, tenant_id, version) VALUES (5, 1, 7)")
    await till.bump_terms(1, 5, 7)
    await lost_tills.roll_up(services)
    before, sequences = readable(await memory(services.redis)), await till.sequences()
    await services.redis.execute_command("FLUSHALL")
    made = await rebuild.rebuild(services)
    assert (made.found, made.drained, made.lost) == (Found.EMPTY, 0, [])
    assert readable(await memory(services.redis)) == before
    assert await till.sequences() == sequences
    assert (await lost_tills.look(services)).is_clean


async def test_a_repeat_is_told_the_same_before_and_after_and_another_payload_is_still_a_conflict(services: Services) -> None:
    """Fails when identities are not written, or without their fingerprint, or with what is left now."""
    receipts = await every_kind(services.till)
    await lost_tills.roll_up(services)
    await services.redis.execute_command("FLUSHALL")
    await rebuild.rebuild(services)
    again = [
        await lost_tills.use(services.till, customer_id, f"e{event}", 270) for customer_id in range(1, 6) for event in range(4)
    ]
    for first, second in zip(receipts, again, strict=True):
        assert second == replace(first, outcome=Outcome.DUPLICATE, same_request=True)
    for customer_id in range(1, 6):
        assert (await lost_tills.use(services.till, customer_id, "e0", 269)).outcome is Outcome.CONFLICT


async def test_whatever_a_bucket_is_called_it_goes_before_the_till_is_made_anew(services: Services) -> None:
    """Fails when a name with a line break in it isn't known for one: what was lost would then be a duplicate when it is sent again."""
    client = services.redis
    keys = [identities.key(0, 1, identities.name_of(number)) for number in range(identities.BUCKETS)]
    await client.pipeline(*[("HSET", key, "a", "b") for key in keys], atomic=False)
    await Remaking(client, services.settings.partitions, 3600).clear("another")
    assert [key for key in await client.execute_command("KEYS", "*") if b":d:" in key] == []


@pytest.mark.parametrize("hot_window_s", [lost_tills.HOT_WINDOW_S * 12, lost_tills.HOT_WINDOW_S // 12])
async def test_ids_are_kept_by_another_hot_window_once_the_till_was_made_anew(services: Services, hot_window_s: int) -> None:
    """Fails when the generation is carried over: a longer window would not end for decades, and a shorter one forget at once."""
    receipts = await every_kind(services.till)
    await lost_tills.roll_up(services)
    settings = TillSettings(services.till.epoch, services.settings.partitions, hot_window_s)
    till = Till(services.redis, settings, ask_book=claim.asker(services.database, settings.partitions))
    made = await rebuild.rebuild(dataclasses.replace(services, till=till), force=True)
    assert (made.found, made.identities > len(receipts)) == (Found.WHOLE, True)
    metas = [f"{partitions.prefix(partition)}:m" for partition in range(services.settings.partitions)]
    for meta in metas:
        generation, now_ms = await services.redis.execute_command("HMGET", meta, "generation", "now_ms")
        assert int(generation) == int(now_ms) // 1000 // hot_window_s
    assert (await lost_tills.use(till, 1, "e0", 270)).outcome is Outcome.DUPLICATE
    await till.forget()
    assert (await lost_tills.use(till, 1, "e0", 270)).outcome is Outcome.DUPLICATE


async def test_an_emptied_redis_is_refused_until_it_was_rebuilt_and_nothing_needs_a_restart(services: Services) -> None:
    """Fails when the script does not check the epoch, or a process keeps the old one."""
    other = await lost_tills.another_process(services)
    await lost_tills.use(other, 1, "a", 400)
    await lost_tills.roll_up(services)
    await services.redis.execute_command("FLUSHALL")
    for till in (services.till, other):
        assert "Redis does not hold this installation's till" in await refused(till)
    made = await rebuild.rebuild(services)
    assert made.found is Found.EMPTY
    await asyncio.sleep(1.1)
    assert (await lost_tills.use(other, 1, "a", 400)).outcome is Outcome.DUPLICATE
    assert (await lost_tills.use(services.till, 1, "b", 400)).left == 200
    assert (await other.read(1, 1)).pools[log.POOL].left == 200
    await lost_tills.roll_up(services)
    assert (await lost_tills.look(services)).is_clean


async def test_what_the_log_still_holds_is_read_before_the_till_is_made_anew(services: Services) -> None:
    """Fails when the log is dropped with the till."""
    await lost_tills.use(services.till, 1, "booked", 100)
    await lost_tills.roll_up(services)
    await lost_tills.use(services.till, 1, "only in the log", 50)
    await lost_tills.use(services.till, 2, "only in the log too", 30)
    with pytest.raises(errors.Conflict, match="--force"):
        await rebuild.rebuild(services)
    made = await rebuild.rebuild(services, force=True)
    assert (made.found, made.drained) == (Found.WHOLE, 2)
    assert await services.database.fetchval("SELECT count(*) FROM usage_events") == 3
    assert (await lost_tills.use(services.till, 1, "only in the log", 50)).outcome is Outcome.DUPLICATE
    assert (await lost_tills.use(services.till, 1, "new", 50)).left == 800
    assert (await lost_tills.look(services)).is_clean


async def test_an_older_copy_is_refused_while_running_and_at_once_also_by_a_process_that_starts_then(services: Services) -> None:
    """Fails when the script does not compare the server's run, or `admit` does not compare the sequences with the book's."""
    await lost_tills.use(services.till, 1, "a", 100)
    old = await lost_tills.copy_of(services.redis)
    other = await lost_tills.another_process(services)
    for event in range(3):
        await lost_tills.use(other, 1, f"later {event}", 100)
    await lost_tills.roll_up(services)
    await lost_tills.put_back(services.redis, old)
    await lost_tills.restart(services.redis)
    starting = await lost_tills.another_process(services)
    for till in (services.till, other, starting):
        assert "older than what it acknowledged" in await refused(till) or "closed" in await refused(till)
    assert (await rebuild.rebuild(services)).found is Found.OLDER
    await asyncio.sleep(1.1)
    assert (await lost_tills.use(other, 1, "later 2", 100)).outcome is Outcome.DUPLICATE
    assert (await lost_tills.use(starting, 1, "new", 100)).left == 500
    await lost_tills.roll_up(services)
    assert (await lost_tills.look(services)).is_clean


async def test_a_copy_put_back_without_a_restart_is_noticed_by_whoever_was_told_more(services: Services) -> None:
    """Fails when a call does not say what its process was told, or a till that went back is not closed for all."""
    other = await lost_tills.another_process(services)
    await lost_tills.use(other, 1, "a", 100)
    old = await lost_tills.copy_of(services.redis)
    await lost_tills.use(services.till, 1, "acknowledged", 100)
    await lost_tills.put_back(services.redis, old)
    with pytest.raises(errors.Unavailable, match=r"older than what it acknowledged|closed"):
        await lost_tills.use(services.till, 1, "next", 100)
    assert "closed" in await refused(other)
    assert (await rebuild.rebuild(services)).found is Found.CLOSED
    await asyncio.sleep(1.1)
    assert (await lost_tills.use(other, 1, "next", 100)).left == 800


async def test_a_restart_on_the_same_data_is_let_in_without_anybody_noticing(services: Services) -> None:
    """Fails when a restarted server is refused for good, or is never let in again."""
    await lost_tills.use(services.till, 1, "a", 100)
    await lost_tills.restart(services.redis)
    assert (await lost_tills.use(services.till, 1, "b", 100)).left == 800
    await lost_tills.restart(services.redis)
    await services.till.bump_terms(1, 1, 3)
    assert (await services.till.read(1, 1)).customer_version == 3


async def test_a_restarted_redis_is_not_charged_while_the_book_cannot_say_whether_it_is_whole(services: Services) -> None:
    """Fails when a till is admitted without asking the book."""
    away: list[bool] = []
    till = await lost_tills.another_process(services, away)
    await lost_tills.use(till, 1, "a", 100)
    away.append(True)
    assert (await lost_tills.use(till, 1, "b", 100)).outcome is Outcome.ACCEPTED
    await lost_tills.restart(services.redis)
    assert "the book can't be asked" in await refused(till)


async def test_another_installations_till_is_refused_and_its_log_is_set_aside_not_lost(services: Services) -> None:
    """Fails when a foreign epoch is charged, or a rebuild takes the till from its owner unasked, or drops or reads its log."""
    await lost_tills.use(services.till, 1, "a", 100)
    await lost_tills.roll_up(services)
    await services.redis.execute_command("FLUSHALL")
    foreign = await tills.open_till(services.redis)
    for event in range(5):
        await lost_tills.use(foreign, 1, f"foreign {event}", 10)
    assert "expected" in await refused(services.till)
    with pytest.raises(UnknownLogError):
        await lost_tills.roll_up(services)
    with pytest.raises(errors.Conflict, match="TALLYBOOK_REDIS_URL"):
        await rebuild.rebuild(services)
    assert (await lost_tills.use(foreign, 1, "foreign 5", 10)).left == 940
    made = await rebuild.rebuild(services, force=True)
    assert (made.found, made.drained, made.aside) == (Found.FOREIGN, 0, 1)
    [aside] = await services.redis.execute_command("KEYS", "*:aside:*:log")
    assert await services.redis.execute_command("XLEN", aside) == 6
    assert await services.database.fetchval("SELECT count(*) FROM usage_events") == 1
    assert (await lost_tills.use(services.till, 1, "b", 100)).left == 800
    with pytest.raises(errors.Unavailable):
        await lost_tills.use(foreign, 1, "foreign 9", 10)
    await lost_tills.roll_up(services)
    assert (await lost_tills.look(services)).is_clean


async def test_a_change_of_terms_is_not_told_to_a_foreign_till(services: Services) -> None:
    """Fails when versions are raised without looking at the epoch: they would count as delivered."""
    await services.redis.execute_command("FLUSHALL")
    foreign = await tills.open_till(services.redis)
    with pytest.raises(errors.Unavailable):
        await services.till.bump_terms(1, None, 9)
    with pytest.raises(errors.Unavailable):
        await services.till.freeze(1, 1, "pool x")
    assert (await foreign.read(1, 1)).tenant_version == 0
    assert not (await foreign.read(1, 1)).frozen


async def test_a_pass_that_read_the_old_log_does_not_count_after_the_rebuild(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when offsets do not carry the epoch: the book would skip the first entries of the new till."""
    await lost_tills.use(services.till, 1, "a", 100)
    read, go_on = asyncio.Event(), asyncio.Event()
    original = log_reader.read

    async def slowly(client: Redis, after: dict[int, int], epoch: str | None) -> object:
        found = await original(client, after, epoch)
        read.set()
        await go_on.wait()
        return found

    monkeypatch.setattr(log_reader, "read", slowly)
    slow = asyncio.create_task(lost_tills.roll_up(services))
    await read.wait()
    monkeypatch.setattr(log_reader, "read", original)
    await services.redis.execute_command("FLUSHALL")
    await rebuild.rebuild(services)
    assert (await lost_tills.use(services.till, 1, "b", 100)).left == 900
    go_on.set()
    with pytest.raises(OffsetMovedError):
        await slow
    await lost_tills.roll_up(services)
    assert [row["event_id"] for row in await services.database.fetch("SELECT event_id FROM usage_events")] == ["b"]
    assert (await lost_tills.look(services)).is_clean


async def test_a_rebuild_that_died_half_way_leaves_a_till_that_is_refused_and_can_be_run_again(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when the till is opened before everything is written."""
    receipts = await every_kind(services.till)
    await services.database.execute("INSERT INTO customer_terms (customer_id, tenant_id, version) VALUES (5, 1, 7)")
    await lost_tills.roll_up(services)
    steps = ("close", "clear", "begin", "write_tenants", "write_customers", "write_pools", "write_identities", "open")
    for step in steps:

        async def die(*_arguments: object, step: str = step) -> None:
            raise ConnectionError(step)

        with monkeypatch.context() as patched:
            patched.setattr(Remaking, step, die)
            with pytest.raises(ConnectionError):
                await rebuild.rebuild(services, force=True)
        if step != "close":
            await refused(services.till)
            await asyncio.sleep(1.1)
    await rebuild.rebuild(services)
    assert (await lost_tills.use(services.till, 1, "e0", 270)) == replace(
        receipts[0], outcome=Outcome.DUPLICATE, same_request=True
    )
    assert (await lost_tills.look(services)).is_clean


async def test_frozen_customers_stay_frozen(services: Services) -> None:
    """Fails when the book does not keep who is frozen."""
    await lost_tills.use(services.till, 1, "a", 100)
    await freezing.freeze(services, 1, 1, "pool 7.b.1 does not reconcile")
    await lost_tills.roll_up(services)
    await services.redis.execute_command("FLUSHALL")
    await rebuild.rebuild(services)
    receipt = await lost_tills.use(services.till, 1, "b", 100)
    assert (receipt.outcome, receipt.reason) == (Outcome.FROZEN, "pool 7.b.1 does not reconcile")


async def test_entries_that_the_log_lost_are_named_and_stand_in_quarantine(services: Services) -> None:
    """Fails when a rebuild skips over a gap by itself, or forgets what it skipped."""
    for event in range(4):
        await lost_tills.use(services.till, 1, f"e{event}", 100)
    key = log_reader.key(tills.partition_of(1))
    await services.redis.execute_command("XDEL", key, "2-0", "4-0")
    await Remaking(services.redis, api.PARTITIONS, 3600).close(services.till.epoch)
    with pytest.raises(errors.Conflict, match="expected log entry 2, found 3"):
        await rebuild.rebuild(services)
    made = await rebuild.rebuild(services, force=True)
    assert [entry.split(": ")[1] for entry in made.lost] == ["2 to 2", "4 to 4"]
    assert (await lost_tills.offsets(services))[tills.partition_of(1)] == 4
    assert [one.what for one in (await lost_tills.look(services)).sums if not one.is_equal] == [
        "items in quarantine = those with a known effect"
    ]


async def test_periods_that_were_being_closed_are_marked_again(services: Services) -> None:
    """Fails when marks of the old log are kept: the period would wait for a sequence that may never come."""
    await services.database.execute(
        "INSERT INTO customers (tenant_id, public_id, email, created_at, updated_at) VALUES (1, 'cus_1', 'a@b', now(), now());"
        "INSERT INTO plans (tenant_id, public_id, code, name, created_at, updated_at) VALUES (1, 'plan_1', 'p', 'P', now(), now());"
        "INSERT INTO subscriptions (tenant_id, public_id, customer_id, plan_id, name, status, started_at, anchor_at, created_at, "
        "updated_at) SELECT 1, 'sub_1', c.id, p.id, 'P', 'active', now(), now(), now(), now() FROM customers c, plans p;"
        "INSERT INTO billing_periods (subscription_id, tenant_id, starts_at, ends_at, state, closing_seq, feature_revision) "
        "SELECT id, 1, now() - interval '1 month', now(), 'closing', 99, 0 FROM subscriptions"
    )
    await services.redis.execute_command("FLUSHALL")
    await rebuild.rebuild(services)
    assert await services.database.fetchval("SELECT closing_seq FROM billing_periods") is None


async def test_two_rebuilds_at_once_are_one(services: Services) -> None:
    """Fails without the lock."""
    await services.redis.execute_command("FLUSHALL")
    results = await asyncio.gather(rebuild.rebuild(services), rebuild.rebuild(services), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["Rebuilt", "Unavailable"]


async def test_the_rollup_keeps_away_from_an_older_copy(services: Services) -> None:
    """Fails when the log is read without comparing its sequence with the book's."""
    await lost_tills.use(services.till, 1, "a", 100)
    old = await lost_tills.copy_of(services.redis)
    await lost_tills.use(services.till, 1, "b", 100)
    await lost_tills.roll_up(services)
    await lost_tills.put_back(services.redis, old)
    with pytest.raises(UnknownLogError, match="is at 1, and the book at 2"):
        await rollup.roll_up(services.database, services.redis, range(api.PARTITIONS), services.clock(), services.till.epoch)
