"""The till's script on a real Redis: each rule, each edge where arithmetic fails, and the log it leaves behind."""

import asyncio
import re
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import msgspec
import pytest

from tallybook.charge import commands
from tallybook.charge.commands import Charge, Outcome, Receipt
from tallybook.charge.till import PoolState, Till, TillSettings
from tallybook.core import errors, ids, partitions, usage_log
from tallybook.core.usage_log import Kind
from tallybook.storage import redis
from tallybook.storage.redis import Redis

TENANT = 1
COUNT = 4


@pytest.fixture(autouse=True, params=[0, commands.ROWS_MAX], ids=["columns", "rows"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test is run with each form of the log."""
    monkeypatch.setattr(commands, "ROWS_MAX", request.param)


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Redis]:
    client = redis.connect(redis_url)
    await client.execute_command("FLUSHALL")
    yield client
    await client.close()


@pytest.fixture
async def till(client: Redis) -> Till:
    till = Till(client, TillSettings("epoch", COUNT, 3600))
    await till.initialize()
    return till


def charge(  # noqa: PLR0913 - the commands differ in one thing each
    customer: int,
    event_id: str,
    amount: int,
    *,
    opening: int = 1000,
    blocks: bool = True,
    kind: Kind = Kind.USAGE,
    pool: str = "7.c.100",
    spare_pool: str = "",
    versions: tuple[int, int] = (1, 0),
    fingerprint: bytes = b"payload!",
    idempotency: bytes = bytes(4),
) -> Charge:
    """Usage takes `amount`; the other kinds add it, or set what is left to it."""
    record = usage_log.Record(kind, TENANT, customer, ids.event_digest(TENANT, customer, event_id), pool, amount, event_id)
    record = msgspec.structs.replace(record, fingerprint=fingerprint + idempotency)
    return Charge(
        partition=partitions.of(TENANT, customer, COUNT),
        record=record,
        amount=-amount if kind is Kind.USAGE else amount,
        opening=opening,
        blocks=blocks,
        spare_pool=spare_pool,
        tenant_version=versions[0],
        customer_version=versions[1],
    )


async def one(till: Till, command: Charge) -> Receipt:
    [receipt] = await till.charge([command])
    return receipt


async def entries(client: Redis, customer: int) -> list[usage_log.Entry]:
    key = f"{partitions.prefix(partitions.of(TENANT, customer, COUNT))}:log"
    found: list[tuple[bytes, list[bytes]]] = await client.execute_command("XRANGE", key, "-", "+")
    assert [int(identity.split(b"-")[0]) for identity, _ in found] == list(range(1, len(found) + 1))
    return [usage_log.decode_entry(fields[1]) for _, fields in found]


async def test_a_repeat_answers_with_the_original_and_another_payload_is_a_conflict(till: Till) -> None:
    first = await one(till, charge(1, "a", 400))
    assert (first.outcome, first.left) == (Outcome.ACCEPTED, 600)
    await one(till, charge(1, "b", 100))
    again = await one(till, charge(1, "a", 400))
    assert (again.outcome, again.amount, again.left, again.accepted_at_ms) == (Outcome.DUPLICATE, -400, 600, first.accepted_at_ms)
    other = await one(till, charge(1, "a", 399, fingerprint=b"another!"))
    assert (other.outcome, other.amount) == (Outcome.CONFLICT, -400)
    assert (await till.read(TENANT, 1)).pools["7.c.100"].left == 500


async def test_a_repeat_inside_one_call_is_caught(till: Till) -> None:
    receipts = await till.charge([charge(1, "a", 10), charge(1, "a", 10), charge(1, "a", 11, fingerprint=b"another!")])
    assert [receipt.outcome for receipt in receipts] == [Outcome.ACCEPTED, Outcome.DUPLICATE, Outcome.CONFLICT]


async def test_the_same_id_of_another_customer_is_another_event(till: Till) -> None:
    receipts = await till.charge([charge(1, "a", 10), charge(2, "a", 10)])
    assert [receipt.outcome for receipt in receipts] == [Outcome.ACCEPTED, Outcome.ACCEPTED]


async def test_a_replay_with_the_same_idempotency_key_is_told_apart_from_a_duplicate(till: Till) -> None:
    await one(till, charge(1, "a", 10, idempotency=b"key1"))
    assert (await one(till, charge(1, "a", 10, idempotency=b"key1"))).same_request
    assert not (await one(till, charge(1, "a", 10, idempotency=b"key2"))).same_request
    assert not (await one(till, charge(1, "a", 10))).same_request


async def test_a_blocking_pool_gives_exactly_what_it_holds_and_a_refused_event_leaves_no_trace(till: Till, client: Redis) -> None:
    assert (await one(till, charge(1, "a", 1000))).outcome is Outcome.ACCEPTED
    refused = await one(till, charge(1, "b", 1))
    assert (refused.outcome, refused.left) == (Outcome.REFUSED, 0)
    assert (await one(till, charge(1, "free", 0))).outcome is Outcome.ACCEPTED
    assert [[applied.record.event_id for applied in entry.applied] for entry in await entries(client, 1)] == [["a"], ["free"]]
    await one(till, charge(1, "grant", 1, kind=Kind.ADJUSTMENT))
    assert (await one(till, charge(1, "b", 1))).outcome is Outcome.ACCEPTED


async def test_a_pool_that_does_not_block_goes_below_zero(till: Till) -> None:
    assert (await one(till, charge(1, "a", 1500, blocks=False))).left == -500


async def test_eight_clients_get_exactly_a_thousand_credits_out_of_a_thousand(till: Till) -> None:
    async def client(name: int) -> int:
        receipts = [await one(till, charge(1, f"{name}-{number}", 1)) for number in range(200)]
        return sum(receipt.outcome is Outcome.ACCEPTED for receipt in receipts)

    assert sum(await asyncio.gather(*(client(name) for name in range(8)))) == 1000
    assert (await till.read(TENANT, 1)).pools["7.c.100"].left == 0


async def test_plan_credits_are_used_before_purchased_ones_and_a_mixed_payment_is_logged(till: Till, client: Redis) -> None:
    await one(till, charge(1, "pack", 50, pool="credits", opening=0, kind=Kind.ADJUSTMENT))
    mixed = await one(till, charge(1, "a", 1010, spare_pool="credits"))
    assert (mixed.outcome, mixed.left, mixed.spare_left) == (Outcome.ACCEPTED, 0, 40)
    too_much = await one(till, charge(1, "b", 41, spare_pool="credits"))
    assert (too_much.outcome, too_much.left, too_much.spare_left) == (Outcome.REFUSED, 0, 40)
    only_purchased = await one(till, charge(1, "c", 40, spare_pool="credits"))
    assert (only_purchased.outcome, only_purchased.spare_left) == (Outcome.ACCEPTED, 0)
    outcomes = {applied.record.event_id: applied.outcome for entry in await entries(client, 1) for applied in entry.applied}
    assert outcomes == {"pack": "", "a": "10", "c": "40"}


@pytest.mark.parametrize("edge", [10**14, 2**53, 2**53 + 1, 4 * 10**18 - 1])
async def test_amounts_stay_exact_where_doubles_do_not(till: Till, edge: int) -> None:
    assert (await one(till, charge(1, "a", 1, opening=edge))).left == edge - 1
    assert (await one(till, charge(1, "b", edge - 1, opening=edge))).left == 0
    assert (await one(till, charge(1, "c", 1, opening=edge))).outcome is Outcome.REFUSED


async def test_small_amounts_are_taken_exactly_from_a_pool_that_doubles_cannot_hold(till: Till, client: Redis) -> None:
    opening = 2**53 + 4
    assert [(await one(till, charge(1, name, 1, opening=opening))).left for name in "abc"] == [
        opening - 1,
        opening - 2,
        opening - 3,
    ]
    receipts = await till.charge([charge(1, name, 1, opening=opening) for name in "defgh"])
    assert [receipt.left for receipt in receipts] == [opening - taken for taken in range(4, 9)]
    logged = [int(applied.left) for entry in await entries(client, 1) for applied in entry.applied]
    assert logged == [opening - taken for taken in range(1, 9)]


async def test_charges_of_one_call_are_settled_and_logged_in_the_order_they_came(till: Till, client: Redis) -> None:
    """Fails when charges are sorted by what they have in common, or one kind of them overtakes another."""
    await one(till, charge(1, "open", 0, opening=100))
    asked = [("a", 60, 100), ("b", 10**15, 100), ("c", 50, 100), ("d", 40, 100), ("e", 5, 110), ("f", 6, 110), ("g", 5, 110)]
    receipts = await till.charge([charge(1, name, amount, opening=opening) for name, amount, opening in asked])
    assert [(receipt.outcome, receipt.left) for receipt in receipts] == [
        *((Outcome.ACCEPTED, 40), (Outcome.REFUSED, 40), (Outcome.REFUSED, 40), (Outcome.ACCEPTED, 0)),
        *((Outcome.ACCEPTED, 5), (Outcome.REFUSED, 5), (Outcome.ACCEPTED, 0)),
    ]
    found = [(applied.record.event_id, applied.left) for applied in (await entries(client, 1))[-1].applied]
    assert found == [("a", "40"), ("d", "0"), ("e", "5"), ("g", "0")]


async def test_a_pool_never_leaves_the_range_in_which_it_is_exact(till: Till) -> None:
    most = 4 * 10**18
    await one(till, charge(1, "a", most, opening=0, blocks=False))
    assert (await one(till, charge(1, "b", 10**15, opening=0, blocks=False))).outcome is Outcome.LIMIT
    assert (await one(till, charge(2, "a", 10**15, opening=most, kind=Kind.ADJUSTMENT))).outcome is Outcome.LIMIT
    assert (await till.read(TENANT, 1)).pools["7.c.100"].left == -most


async def test_older_terms_are_stale_and_nothing_is_recorded(till: Till, client: Redis) -> None:
    await till.bump_terms(TENANT, None, 5)
    await till.bump_terms(TENANT, 1, 3)
    for versions in ((4, 3), (5, 2)):
        assert (await one(till, charge(1, "a", 1, versions=versions))).outcome is Outcome.STALE
    assert await entries(client, 1) == []
    assert (await one(till, charge(1, "a", 1, versions=(5, 3)))).outcome is Outcome.ACCEPTED


async def test_terms_only_ever_get_newer(till: Till) -> None:
    await one(till, charge(1, "a", 1, versions=(9, 9)))
    await till.bump_terms(TENANT, None, 2)
    await till.bump_terms(TENANT, 1, 2)
    view = await till.read(TENANT, 1)
    assert (view.tenant_version, view.customer_version) == (9, 9)


async def test_a_pool_moves_by_the_difference_when_its_terms_grant_another_amount(till: Till, client: Redis) -> None:
    await one(till, charge(1, "a", 300, opening=1000))
    assert (await one(till, charge(1, "b", 1, opening=1500))).left == 1199
    assert (await one(till, charge(1, "c", 1, opening=400))).left == 98
    assert (await till.read(TENANT, 1)).pools["7.c.100"] == PoolState(opening=400, left=98)
    openings = [(opening.old, opening.new) for entry in await entries(client, 1) for opening in entry.openings]
    assert openings == [("", "1000"), ("1000", "1500"), ("1500", "400")]


async def test_setting_a_pool_logs_what_was_left_before(till: Till, client: Redis) -> None:
    await one(till, charge(1, "a", 300))
    assert (await one(till, charge(1, "set", 950, kind=Kind.SET))).left == 950
    assert (await one(till, charge(1, "set", 950, kind=Kind.SET))).outcome is Outcome.DUPLICATE
    assert (await entries(client, 1))[-1].applied[0].outcome == "700"


async def test_an_expired_pool_is_gone_once_and_its_rest_is_logged(till: Till, client: Redis) -> None:
    await one(till, charge(1, "a", 300))
    for _ in range(2):
        assert (await one(till, charge(1, "expiry", 0, kind=Kind.EXPIRY))).outcome is Outcome.ACCEPTED
    assert (await till.read(TENANT, 1)).pools == {}
    logged = [(applied.record.kind, applied.outcome) for entry in await entries(client, 1) for applied in entry.applied]
    assert logged == [(Kind.USAGE, ""), (Kind.EXPIRY, "700")]


async def test_a_frozen_customer_is_refused_until_thawed_and_repeats_are_still_answered(till: Till) -> None:
    await one(till, charge(1, "a", 1))
    await till.freeze(TENANT, 1, "does not reconcile")
    assert (await one(till, charge(1, "b", 1))).outcome is Outcome.FROZEN
    assert (await one(till, charge(1, "a", 1))).outcome is Outcome.DUPLICATE
    await till.thaw(TENANT, 1)
    assert (await one(till, charge(1, "b", 1))).outcome is Outcome.ACCEPTED


async def test_a_till_without_our_epoch_takes_nothing_and_says_what_to_do(till: Till, client: Redis) -> None:
    await client.execute_command("FLUSHALL")
    with pytest.raises(errors.Unavailable, match=r"rebuild") as refusal:
        await one(till, charge(1, "a", 1))
    assert refusal.value.code == "till_unknown"
    foreign = Till(client, TillSettings("other", COUNT, 3600))
    await foreign.initialize()
    with pytest.raises(errors.Unavailable):
        await till.initialize()
    assert await entries(client, 1) == []


async def test_one_call_settles_charges_of_many_partitions_in_their_order(till: Till) -> None:
    receipts = await till.charge([charge(customer, "a", customer) for customer in range(1, 50)])
    assert [receipt.left for receipt in receipts] == [1000 - customer for customer in range(1, 50)]


async def test_a_tick_marks_a_place_after_everything_accepted_before(till: Till, client: Redis) -> None:
    await one(till, charge(1, "a", 1))
    assert await till.tick(partitions.of(TENANT, 1, COUNT)) == 2
    assert (await entries(client, 1))[-1].applied[0].record.kind == Kind.TICK


async def test_an_identity_outlives_one_generation_and_is_freed_after_two(client: Redis) -> None:
    till = Till(client, TillSettings("epoch", COUNT, 3600))
    await till.initialize()
    await one(till, charge(1, "a", 1))
    meta = f"{partitions.prefix(partitions.of(TENANT, 1, COUNT))}:m"
    generation = int(await client.execute_command("HGET", meta, "generation"))
    await client.execute_command("HSET", meta, "generation", generation + 1)
    assert (await one(till, charge(1, "a", 1))).outcome is Outcome.DUPLICATE
    await client.execute_command("HSET", meta, "generation", generation + 2)
    await till.forget()
    assert [key async for key in _dedupe_keys(client)] == []


async def test_generations_before_a_silence_are_freed_after_it_and_nothing_else_is(client: Redis) -> None:
    """Fails when only some generations before the running one are freed, or another installation's key is taken for an identity."""
    till = Till(client, TillSettings("epoch", COUNT, 3600))
    await till.initialize()
    await till.charge([charge(customer, f"before {n}", 1) for customer in range(1, 20) for n in range(20)])
    latest = [
        await client.execute_command("HINCRBY", f"{partitions.prefix(partition)}:m", "generation", 40)
        for partition in range(COUNT)
    ]
    await till.charge([charge(customer, f"after {n}", 1) for customer in range(1, 20) for n in range(20)])
    strangers = {b"{prod}:d:1:ab", b"{p00}:d:1:abc", b"{p77}:d:1:ab"}
    for key in strangers:
        await client.execute_command("HSET", key, "a", "b")
    await till.forget()
    kept = {key async for key in _dedupe_keys(client)}
    assert strangers <= kept
    assert {key.split(b":")[2] for key in kept - strangers} == {b"%d" % generation for generation in latest}
    again = await till.charge([charge(customer, f"after {n}", 1) for customer in range(1, 20) for n in range(20)])
    assert {receipt.outcome for receipt in again} == {Outcome.DUPLICATE}


async def _dedupe_keys(client: Redis) -> AsyncIterator[bytes]:
    for key in await client.execute_command("KEYS", "*:d:*"):
        yield key


async def test_a_closed_redis_is_unavailable_not_a_loss_of_words(redis_url: str) -> None:
    client = redis.connect(redis_url + "-nobody-listens-here")
    till = Till(client, TillSettings("epoch", COUNT, 3600))
    with pytest.raises(errors.Unavailable, match="send the same ids again"):
        await one(till, charge(1, "a", 1))


@pytest.mark.parametrize(
    ("left", "amount"),
    [
        *((2**53 - 1, 1), (2**53, -1), (-(2**53), 1), (10**9, 2**53), (1 - 10**18, 10**18 - 1), (10**18, -(10**18) + 1)),
        *(
            (999_999_999 + 10**18, 1),
            (10**18, -1),
            (-(10**18), -999_999_999),
            (-(10**18) - 1, 10**9),
            (3 * 10**18 + 5, 10**18 - 5),
        ),
    ],
)
async def test_sums_are_exact_on_both_sides_of_what_a_double_says(till: Till, left: int, amount: int) -> None:
    """Fails when one half of a sum loses its sign or its carry."""
    await one(till, charge(1, "set", left, kind=Kind.SET, blocks=False))
    receipt = await one(till, charge(1, "added", amount, kind=Kind.ADJUSTMENT, blocks=False))
    assert (receipt.outcome, receipt.left) == (Outcome.ACCEPTED, left + amount)
    assert (await till.read(TENANT, 1)).pools["7.c.100"].left == left + amount


async def test_a_call_with_more_customers_than_one_command_takes_settles_them_all(client: Redis) -> None:
    """Fails when states are read or written without being shared out over commands."""
    till = Till(client, TillSettings("epoch", 1, 3600))
    await till.initialize()
    for call, name in enumerate("ab", 1):
        asked = [msgspec.structs.replace(charge(customer, name, customer), partition=0) for customer in range(1, 4501)]
        receipts = await till.charge([msgspec.structs.replace(one, opening=10_000) for one in asked])
        assert [receipt.left for receipt in receipts] == [10_000 - call * customer for customer in range(1, 4501)]


async def test_runs_of_one_customer_in_a_call_see_what_the_others_did(till: Till) -> None:
    """Fails when a run looks at what was stored before the call, or overwrites another pool of the customer."""
    pools = ["7.c.100", "7.f3.100", "7.c.100", "7.f4.100", "7.f3.100", "7.c.100"]
    for call in range(3):
        asked = [charge(1, f"{call} {number}", 10, pool=pool) for number, pool in enumerate(pools)]
        asked.insert(3, charge(2, f"{call}", 1))
        receipts = await till.charge(asked)
        before = 1000 - 30 * call
        assert [receipt.left for receipt in receipts][:3] == [before - 10, 1000 - 20 * call - 10, before - 20]
    view = await till.read(TENANT, 1)
    assert {name: pool.left for name, pool in view.pools.items()} == {"7.c.100": 910, "7.f3.100": 940, "7.f4.100": 970}


async def test_terms_learned_from_one_charge_make_an_older_one_of_the_same_call_stale(till: Till) -> None:
    asked = [charge(1, "a", 1, versions=(1, 1)), charge(1, "b", 1, versions=(2, 2)), charge(1, "c", 1, versions=(1, 2))]
    receipts = await till.charge([*asked, charge(1, "d", 1, versions=(2, 1)), charge(1, "e", 1, versions=(2, 2))])
    accepted, stale = Outcome.ACCEPTED, Outcome.STALE
    assert [receipt.outcome for receipt in receipts] == [accepted, accepted, stale, stale, accepted]
    view = await till.read(TENANT, 1)
    assert (view.tenant_version, view.customer_version) == (2, 2)


async def test_terms_of_a_frozen_customer_get_newer_and_its_pools_expire_while_it_stays_frozen(till: Till) -> None:
    await one(till, charge(1, "a", 100))
    await till.freeze(TENANT, 1, "does not reconcile; 5 != 6!")
    await till.bump_terms(TENANT, 1, 7)
    refused = await one(till, charge(1, "b", 1, versions=(1, 8)))
    assert (refused.outcome, refused.reason) == (Outcome.FROZEN, "does not reconcile; 5 != 6!")
    assert (await one(till, charge(1, "expiry", 0, kind=Kind.EXPIRY))).found == 900
    view = await till.read(TENANT, 1)
    assert (view.frozen, view.customer_version, view.pools) == (True, 8, {})
    await till.thaw(TENANT, 1)
    await till.thaw(TENANT, 1)
    view = await till.read(TENANT, 1)
    assert (view.frozen, view.customer_version) == (False, 8)


@pytest.mark.parametrize("amount", [2**47 - 1, 2**47, 2**47 + 1, 2**53 - 1, 2**53, 2**53 + 1])
async def test_a_large_amount_among_small_ones_is_taken_and_remembered_exactly(till: Till, amount: int) -> None:
    """Fails when an identity says a large amount in the bytes of a small one, or a call's runs share what one of them needs."""
    opening = 2**53 + 2**52
    for call in ("apart", "together"):
        asked = [
            charge(customer, f"{call} {name}", of_it, opening=opening if customer == 1 else 0, blocks=False)
            for customer, name, of_it in ((1, "a", 1), (1, "b", amount), (2, "c", amount), (2, "d", 3))
        ]
        receipts = [await one(till, each) for each in asked] if call == "apart" else await till.charge(asked)
        again = await till.charge(asked)
        assert [(each.outcome, each.amount, each.left) for each in again] == [
            (Outcome.DUPLICATE, each.amount, each.left) for each in receipts
        ]
    views = [await till.read(TENANT, customer) for customer in (1, 2)]
    assert [view.pools["7.c.100"].left for view in views] == [opening - 2 * (amount + 1), -2 * (amount + 3)]


async def test_what_is_left_stays_exact_when_usage_gives_back_more_than_a_double_says(till: Till) -> None:
    """Fails when the short way asks on one side only whether a sum is exact."""
    opening = 2**53 - 1
    receipts = await till.charge([charge(1, name, amount, opening=opening) for name, amount in (("a", 5), ("b", -8), ("c", 1))])
    assert [receipt.left - opening for receipt in receipts] == [-5, 3, 2]
    assert (await till.read(TENANT, 1)).pools["7.c.100"].left == opening + 2


async def test_a_call_writes_each_customers_state_once_and_for_a_refused_charge_not_at_all(till: Till, redis_url: str) -> None:
    """Fails when a state is handed over once for each change of it, or for none."""
    pools = ("7.c.100", "7.f3.100")
    await till.charge([charge(1, pool, 1, pool=pool) for pool in pools])
    taken = [charge(1, f"{number}", 1, pool=pools[number % 2]) for number in range(40)]
    assert await _states_written(redis_url, till, taken) == (1, Outcome.ACCEPTED)
    refused = [charge(1, f"too much {number}", 2000, pool=pools[number % 2]) for number in range(4)]
    assert await _states_written(redis_url, till, refused) == (0, Outcome.REFUSED)
    assert await _states_written(redis_url, till, [charge(1, "opens", 2000, pool="7.f4.100")]) == (1, Outcome.REFUSED)
    assert (await till.read(TENANT, 1)).pools["7.f4.100"] == PoolState(1000, 1000)


async def _states_written(redis_url: str, till: Till, asked: list[Charge]) -> tuple[int, Outcome]:
    """How many states the script hands to Redis, by Redis's own account, and the outcome that all charges share."""
    reader, writer = await asyncio.open_unix_connection(urlsplit(redis_url).path)
    writer.write(b"MONITOR\r\n")
    await reader.readline()
    [outcome] = {receipt.outcome for receipt in await till.charge(asked)}
    writer.write(b"QUIT\r\n")
    seen = [_WORD.findall(line) for line in (await reader.read()).splitlines()]
    writer.close()
    return sum(len(words) // 2 - 1 for words in seen if words[:1] == [b'"HSET"'] and words[1].endswith(b':c"')), outcome


_WORD = re.compile(rb'"(?:[^"\\]|\\.)*"')
