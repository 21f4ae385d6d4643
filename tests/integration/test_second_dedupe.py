"""Ids that the till has forgotten: old events are looked up in the book first, and what slips through is found and taken back.

Each test names the mutant that it kills.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from datetime import timedelta
from typing import Any

import pytest

from tallybook.core import partitions
from tallybook.flows import old_ids, period, reconcile, repeats
from tallybook.flows.repeats import Sweep
from tallybook.rollup import events
from tallybook.storage import postgres
from tallybook.storage.redis import Redis
from tests.support import api, billing
from tests.support.billing import Json, World

OLD = "2026-11-10T08:00:00Z"
"""Ten days before what the clock shows; the till remembers three."""


@pytest.fixture
async def world(database: postgres.Pool, redis_client: Redis) -> AsyncGenerator[World]:
    await database.execute("TRUNCATE usage_sweeps")
    async with billing.world(database, redis_client) as made:
        yield made


async def credits_customer(world: World) -> Json:
    """100 plan credits and 50 purchased ones; an image takes 10."""
    await world.plan("studio", 1000, consumptionModel="credits", price_includedCredits=100)
    await world.feature("studio", "images", creditsPerUnit=10)
    subscription = await world.subscribe("studio")
    await world.ask("POST", f"/subscriptions/{subscription['id']}/balance/adjust", {"amount": 50, "reason": "gift"})
    return subscription


async def credits_left(world: World, subscription: Json) -> Json:
    return (await world.ask("GET", f"/subscriptions/{subscription['id']}"))["credits"]


async def forgotten(world: World) -> None:
    """Everything is in the book, and the till knows no id any more."""
    await world.caught_up()
    await world.forget_ids()


async def sums_agree(world: World) -> None:
    await world.caught_up()
    report = await reconcile.reconcile(world.services.database, world.services.redis, api.PARTITIONS)
    assert report.is_clean, report


async def hourly(world: World) -> tuple[int, int]:
    """Events and quantity (units) of all hourly totals."""
    await world.caught_up()
    row = await world.services.database.fetchrow(
        "SELECT sum(events)::int AS events, (sum(quantity_nano) / 1000000000)::int AS units FROM usage_hourly WHERE tenant_id = $1",
        world.tenant.id,
    )
    assert row is not None
    return row["events"], row["units"]


async def test_an_old_event_that_only_the_book_remembers_is_a_duplicate_with_the_original_result(world: World) -> None:
    """Mutants: no lookup; the answer says what is left now instead of then."""
    subscription = await credits_customer(world)
    first = await world.use(subscription["customer"], "images", 4, eventId="old", timestamp=OLD)
    await world.use(subscription["customer"], "images", 7, eventId="new")
    await forgotten(world)
    again = await world.use(subscription["customer"], "images", 4, eventId="old", timestamp=OLD, status=409)
    assert (again["error"]["code"], again["error"]["details"]) == ("duplicate", first)
    assert await credits_left(world, subscription) == {"remaining": 0, "included": 100, "purchased": 40}
    await sums_agree(world)


@pytest.mark.parametrize("change", [{"value": 5}, {"timestamp": "2026-11-10T08:00:01Z"}, {"properties": {"a": "b"}}])
async def test_an_old_event_with_a_known_id_and_another_payload_is_a_conflict(world: World, change: Json) -> None:
    """Mutants: the book is searched by id and time; the fingerprint is not compared."""
    subscription = await credits_customer(world)
    event: Json = {"value": 4, "eventId": "old", "timestamp": OLD}
    await world.use(subscription["customer"], "images", **event)
    await forgotten(world)
    answer = await world.use(subscription["customer"], "images", **(event | change), status=409)
    assert answer["error"]["code"] == "conflict"
    assert (await credits_left(world, subscription))["remaining"] == 60


async def test_a_replay_of_an_old_request_is_answered_as_it_was(world: World) -> None:
    """Mutant: the book does not keep the idempotency key's hash."""
    subscription = await credits_customer(world)
    event = {"customerId": subscription["customer"], "featureCode": "images", "value": 4, "eventId": "old", "timestamp": OLD}
    first = await world.api.send("POST", "/api/v1/usage/events", event, headers={"idempotency-key": "k"})
    await forgotten(world)
    again = await world.api.send("POST", "/api/v1/usage/events", event, headers={"idempotency-key": "k"})
    assert (again.status, again.body) == (200, first.body)


async def test_the_same_id_of_another_customer_is_another_event(world: World) -> None:
    """Mutant: the identity leaves the customer out."""
    subscription = await credits_customer(world)
    other = await world.subscribe("studio")
    await world.use(subscription["customer"], "images", 4, eventId="old", timestamp=OLD)
    await forgotten(world)
    await world.use(other["customer"], "images", 4, eventId="old", timestamp=OLD)
    assert (await credits_left(world, other))["remaining"] == 60


async def test_events_that_the_till_must_remember_never_ask_the_book(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutant: every dated event is looked up."""
    asked: list[int] = []
    original = events.originals

    async def counting(connection: Any, digests: Iterable[bytes], since: Any) -> Any:  # noqa: ANN401 - passed on
        asked.append(len(list(digests)))
        return await original(connection, digests, since)

    monkeypatch.setattr(events, "originals", counting)
    subscription = await credits_customer(world)
    now = world.services.clock()
    edge = now - timedelta(hours=world.services.settings.hot_window_h) + timedelta(minutes=5, milliseconds=old_ids.SKEW_MS)
    for moment in (None, now, now + timedelta(minutes=4), edge + timedelta(milliseconds=1)):
        dated: Json = {} if moment is None else {"timestamp": moment.isoformat()}
        await world.use(subscription["customer"], "images", 1, **dated)
    assert asked == []
    await world.use(subscription["customer"], "images", 1, timestamp=edge.isoformat())
    assert asked == [1]
    batch = [{"customerId": subscription["customer"], "featureCode": "images", "eventId": f"b{n}"} for n in range(5)]
    batch[1]["timestamp"] = batch[3]["timestamp"] = OLD
    assert (await world.ask("POST", "/usage/events/batch", {"events": batch}))["accepted"] == 5
    assert asked == [1, 2]


async def test_while_the_book_is_away_old_events_are_to_be_sent_again_and_the_others_are_taken(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mutants: an old event passes unchecked; it costs its neighbours."""
    subscription = await credits_customer(world)
    batch = [
        {"customerId": subscription["customer"], "featureCode": "images", "eventId": "young"},
        {"customerId": subscription["customer"], "featureCode": "images", "eventId": "old", "timestamp": OLD},
    ]

    async def away(*_arguments: object) -> None:
        raise ConnectionResetError

    with monkeypatch.context() as patched:
        patched.setattr(events, "originals", away)
        answer = await world.ask("POST", "/usage/events/batch", {"events": batch})
        assert [one["status"] for one in answer["results"]] == ["accepted", "retry"]
        assert answer["results"][1]["error"]["code"] == "database_unavailable"
        assert await world.refused("POST", "/usage/events", batch[1]) == (503, "database_unavailable")
    answer = await world.ask("POST", "/usage/events/batch", {"events": batch})
    assert [one["status"] for one in answer["results"]] == ["duplicate", "accepted"]


async def sweep(world: World) -> Sweep | None:
    await world.caught_up()
    swept = await repeats.sweep_if_due(world.services)
    await world.caught_up()
    return swept


async def twice(world: World, subscription: Json, value: float = 6) -> list[Json]:
    """One undated event that is counted twice, because the till forgot it in between."""
    first = await world.use(subscription["customer"], "images", value, eventId="undated")
    await forgotten(world)
    return [first, await world.use(subscription["customer"], "images", value, eventId="undated")]


async def test_the_sweep_takes_back_an_undated_event_that_was_counted_again(world: World) -> None:
    """Mutants: the first one is taken back; plan and purchased parts are mixed up; totals keep the repeat; it is not counted."""
    subscription = await credits_customer(world)
    counted: list[int] = []
    world.services.observe_repeats = counted.append
    await twice(world, subscription)
    assert await credits_left(world, subscription) == {"remaining": 0, "included": 100, "purchased": 30}
    swept = await sweep(world)
    assert swept is not None
    assert (swept.customers, swept.voided, swept.stuck, counted) == (1, 1, frozenset(), [1])
    assert await credits_left(world, subscription) == {"remaining": 40, "included": 100, "purchased": 50}
    assert await hourly(world) == (1, 6)
    rows = await world.services.database.fetch(
        "SELECT v.reason, e.seq > f.seq AS is_later FROM usage_events AS v "
        "JOIN usage_events AS e ON e.kind = 0 AND v.voids = e.seq || '-' || e.position AND e.customer_id = v.customer_id "
        "JOIN usage_events AS f ON f.kind = 0 AND f.digest = e.digest AND f.seq <> e.seq WHERE v.kind = 5 AND v.tenant_id = $1",
        world.tenant.id,
    )
    assert [(row["reason"], row["is_later"]) for row in rows] == [(repeats.REASON, True)]
    await sums_agree(world)


async def test_the_sweep_runs_once_a_day_and_finds_nothing_twice(world: World) -> None:
    """Mutants: what was taken back is taken back again tomorrow; every worker sweeps."""
    subscription = await credits_customer(world)
    await twice(world, subscription)
    world.clock.shows += timedelta(days=1)
    both = await asyncio.gather(sweep(world), sweep(world))
    assert sorted(one.voided for one in both if one is not None) == [1]
    world.clock.shows += timedelta(hours=23)
    assert await sweep(world) is None
    world.clock.shows += timedelta(hours=1)
    await world.forget_ids()
    swept = await sweep(world)
    assert swept is not None
    assert swept.voided == 0
    assert (await credits_left(world, subscription))["remaining"] == 40
    await sums_agree(world)


async def test_the_sweep_and_a_void_of_the_same_event_together_leave_nothing(world: World) -> None:
    """Mutant: a void of the event is taken for a void of its repeat."""
    subscription = await credits_customer(world)
    first, _ = await twice(world, subscription)
    await world.ask("POST", f"/usage/events/{first['id']}/void", {"reason": "never happened"})
    world.clock.shows += timedelta(days=2)
    swept = await sweep(world)
    assert swept is not None
    assert swept.voided == 1
    assert await hourly(world) == (0, 0)
    assert await credits_left(world, subscription) == {"remaining": 100, "included": 100, "purchased": 50}
    await sums_agree(world)


async def test_a_repeat_is_taken_back_before_its_period_is_billed_whoever_closes_it(world: World) -> None:
    """Mutants: no sweep before billing; the invoice does not wait until the book has the void; two closers void twice."""
    await world.stand_at("2026-03-01")
    await world.metered()
    subscriptions = [await world.subscribe("pro") for _ in range(3)]
    for subscription in subscriptions[:2]:
        await world.use(subscription["customer"], "api_calls", 1500, eventId="undated")
    await forgotten(world)
    for subscription in subscriptions[:2]:
        await world.use(subscription["customer"], "api_calls", 1500, eventId="undated")
    await world.stand_at("2026-04-02")
    await asyncio.gather(*(period.close_due(world.services) for _ in range(3)))
    await world.close_due()
    totals = [[invoice["total"] for invoice in await world.invoices(subscription)] for subscription in subscriptions]
    assert totals == [[9900, 9900 + 500], [9900, 9900 + 500], [9900, 9900]]
    voids = await world.services.database.fetchval(
        "SELECT count(*) FROM usage_events WHERE kind = 5 AND tenant_id = $1", world.tenant.id
    )
    assert voids == 2
    await sums_agree(world)


async def test_a_frozen_customer_with_a_repeat_is_not_billed_until_it_can_be_taken_back(world: World) -> None:
    """Mutant: the period is billed although the sweep could not give the repeat back."""
    await world.stand_at("2026-03-01")
    await world.metered()
    subscription = await world.subscribe("pro")
    await world.use(subscription["customer"], "api_calls", 1500, eventId="undated")
    await forgotten(world)
    await world.use(subscription["customer"], "api_calls", 1500, eventId="undated")
    customer_id = await world.services.database.fetchval(
        "SELECT id FROM customers WHERE external_id = $1", subscription["customer"]
    )
    await world.services.till.freeze(world.tenant.id, customer_id, "a test")
    await world.stand_at("2026-04-02")
    [unsettled] = await period.close_due(world.services)
    assert isinstance(unsettled, period.Unsettled)
    await world.services.till.thaw(world.tenant.id, customer_id)
    await world.close_due()
    assert [invoice["total"] for invoice in await world.invoices(subscription)] == [9900, 9900 + 500]


async def test_of_many_deliveries_one_counts(world: World) -> None:
    """Mutant: only the second delivery is taken back."""
    subscription = await credits_customer(world)
    for _ in range(4):
        await world.use(subscription["customer"], "images", 2, eventId="undated")
        await forgotten(world)
    world.clock.shows += timedelta(days=4)
    swept = await sweep(world)
    assert swept is not None
    assert swept.voided == 3
    assert await hourly(world) == (1, 2)
    await sums_agree(world)


async def jump_ahead(world: World, days: int) -> None:
    """Leave of the till what one call leaves under a clock of Redis that runs ahead: neither its time nor its generation goes back."""
    client, window_s = world.services.redis, world.services.till.hot_window_s
    [seconds, _] = await client.execute_command("TIME")
    for partition in range(world.services.settings.partitions):
        meta = f"{partitions.prefix(partition)}:m"
        latest_ms = int(await client.execute_command("HGET", meta, "now_ms") or 0)
        ahead_s = max(int(seconds), latest_ms // 1000) + days * 86_400
        await client.execute_command("HSET", meta, "now_ms", ahead_s * 1000, "generation", ahead_s // window_s)


async def test_what_is_counted_twice_because_the_tills_clock_was_ahead_for_a_moment_is_taken_back(world: World) -> None:
    """Fails when the sweep looks only for what is older than the hot window, or only up to now."""
    subscription = await credits_customer(world)
    dated = world.services.clock().isoformat()
    await world.use(subscription["customer"], "images", 4, eventId="undated")
    await world.use(subscription["customer"], "images", 3, eventId="dated", timestamp=dated)
    await jump_ahead(world, 10)
    await world.use(subscription["customer"], "images", 4, eventId="undated")
    await world.use(subscription["customer"], "images", 3, eventId="dated", timestamp=dated)
    await world.use(subscription["customer"], "images", 4, eventId="undated", status=409)
    assert await credits_left(world, subscription) == {"remaining": 0, "included": 100, "purchased": 10}
    await world.services.till.forget()
    swept = await sweep(world)
    assert swept is not None
    assert (swept.customers, swept.voided, swept.stuck) == (1, 2, frozenset())
    assert await credits_left(world, subscription) == {"remaining": 30, "included": 100, "purchased": 50}
    assert await hourly(world) == (2, 7)
    await sums_agree(world)


async def test_a_repeat_taken_while_the_tills_clock_was_ahead_is_on_no_invoice(world: World) -> None:
    """Fails when a period is billed without a search for repeats, or when that leaves out what was accepted after its end."""
    await world.stand_at("2026-03-01")
    await world.metered()
    subscription = await world.subscribe("pro")
    await world.use(subscription["customer"], "api_calls", 1500, eventId="paid")
    await jump_ahead(world, 10)
    await world.use(subscription["customer"], "api_calls", 1500, eventId="paid")
    await world.stand_at("2026-04-02")
    await world.close_due()
    assert [invoice["total"] for invoice in await world.invoices(subscription)] == [9900, 9900 + 500]
    await sums_agree(world)
