"""A retry of what was accepted is a repeat, also when the same event would be refused if it came now for the first time.

Each test fails when what is refused before the till is not looked up by its id.
"""

from collections.abc import AsyncGenerator

import pytest

from tallybook.flows import booked_events
from tallybook.rollup import events
from tallybook.storage import postgres
from tallybook.storage.redis import Redis
from tests.support import billing
from tests.support.billing import Json, World


@pytest.fixture
async def world(database: postgres.Pool, redis_client: Redis) -> AsyncGenerator[World]:
    async with billing.world(database, redis_client) as made:
        yield made


async def end(world: World, subscription: Json) -> None:
    """Cancel it at the end of its period, and let that pass."""
    await world.ask("POST", f"/subscriptions/{subscription['id']}/cancel", {})
    world.clock.shows = billing.at("2026-12-21T10:00:00")
    await world.close_due()


async def batch(world: World, *events: Json) -> list[Json]:
    return (await world.ask("POST", "/usage/events/batch", {"events": list(events)}))["results"]


async def read_nothing(*_given: object) -> dict[bytes, object]:
    return {}


async def test_a_retry_after_the_subscription_has_ended_is_a_duplicate_with_the_original(world: World) -> None:
    await world.plan("flex", 5000, consumptionModel="balance", price_includedBalance=100_000)
    await world.feature("flex", "exports", overage={"enabled": True, "unitPrice": 100})
    subscription = await world.subscribe("flex")
    event: Json = {"customerId": subscription["customer"], "featureCode": "exports", "value": 2.5, "eventId": "e"}
    [first] = await batch(world, event)
    await end(world, subscription)
    again, changed, new = await batch(world, event, {**event, "value": 3}, {**event, "eventId": "new"})
    assert again == {"status": "duplicate", "event": first["event"]}
    assert (changed["status"], changed["error"]["code"]) == ("conflict", "conflict")
    assert (new["status"], new["error"]["code"]) == ("invalid", "no_active_subscription")
    single = await world.api.send("POST", "/api/v1/usage/events", event)
    assert (single.status, single.code, single.body["error"]["details"]["id"]) == (409, "duplicate", first["event"]["id"])


async def test_a_replay_of_the_same_request_after_the_subscription_has_ended_is_answered_as_at_first(world: World) -> None:
    await world.metered()
    subscription = await world.subscribe("pro")
    event: Json = {"customerId": subscription["customer"], "featureCode": "api_calls", "value": 2}
    headers = {"Idempotency-Key": "k"}
    first = await world.api.send("POST", "/api/v1/usage/events", event, headers=headers)
    await end(world, subscription)
    again = await world.api.send("POST", "/api/v1/usage/events", event, headers=headers)
    assert (again.status, again.body) == (200, first.body)


@pytest.mark.parametrize("taken", [10_000, 7_500])
async def test_a_retry_after_a_feature_was_disabled_shows_whether_the_event_used_the_balance_up(world: World, taken: int) -> None:
    await world.plan("strict", 5000, consumptionModel="balance", price_includedBalance=10_000, blockOnExhaustion=True)
    await world.feature("strict", "exports", overage={"enabled": True, "unitPrice": 2_500})
    subscription = await world.subscribe("strict")
    event: Json = {"customerId": subscription["customer"], "featureCode": "exports", "value": taken / 2_500, "eventId": "e"}
    [first] = await batch(world, event)
    assert first["event"]["consumption"]["blocked"] == (taken == 10_000)
    await end(world, subscription)
    [again] = await batch(world, event)
    assert again == {"status": "duplicate", "event": first["event"]}


async def test_a_repeat_that_the_book_has_not_read_yet_is_told_to_come_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.metered()
    subscription = await world.subscribe("pro")
    event: Json = {"customerId": subscription["customer"], "featureCode": "api_calls", "value": 2, "eventId": "e"}
    await batch(world, event)
    await end(world, subscription)
    monkeypatch.setattr(booked_events, "WAIT_S", 0.0)
    with monkeypatch.context() as behind:
        behind.setattr(events, "originals", read_nothing)
        [again] = await batch(world, event)
    assert (again["status"], again["error"]["code"]) == ("retry", "book_behind")
    assert (await batch(world, event))[0]["status"] == "duplicate"
