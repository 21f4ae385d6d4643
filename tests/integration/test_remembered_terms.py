"""What a process remembers of a customer never outlives a change of it, whatever was refused meanwhile."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from tallybook.core.tenant import Tenant
from tallybook.storage import postgres
from tallybook.storage.redis import Redis
from tallybook.subscriptions.terms import Terms
from tests.support import billing
from tests.support.billing import World


@pytest.fixture
async def world(database: postgres.Pool, redis_client: Redis) -> AsyncGenerator[World]:
    async with billing.world(database, redis_client) as world:
        yield world


async def metered(world: World) -> None:
    await world.plan("pro", 9900, "monthly")
    await world.feature("pro", "api_calls", includedAmount=1000, overage={"enabled": True, "unitPrice": 100})


async def test_usage_refused_before_the_subscription_is_taken_after_it(world: World) -> None:
    await metered(world)
    customer = await world.customer()
    await world.use(customer, "api_calls", 1, status=404)
    await world.subscribe("pro", customer)
    await world.use(customer, "api_calls", 1)


async def test_a_feature_that_was_refused_is_usable_once_the_plan_has_it(world: World) -> None:
    await metered(world)
    subscription = await world.subscribe("pro")
    await world.use(subscription["customer"], "images", 1, status=404)
    await world.feature("pro", "images", includedAmount=10)
    await world.use(subscription["customer"], "images", 1)


async def test_a_customer_that_comes_back_after_a_cancellation_is_served(world: World) -> None:
    await world.stand_at("2026-01-31T10:00:00")
    await metered(world)
    subscription = await world.subscribe("pro")
    customer = subscription["customer"]
    await world.use(customer, "api_calls", 1)
    await world.ask("POST", f"/subscriptions/{subscription['id']}/cancel", {"immediate": True})
    await world.use(customer, "api_calls", 1, status=404)
    await world.close_due()
    await world.subscribe("pro", customer)
    await world.use(customer, "api_calls", 1)


async def test_an_event_dated_at_the_new_time_of_a_test_clock_is_taken(world: World) -> None:
    await world.stand_at("2026-01-31T10:00:00")
    await metered(world)
    subscription = await world.subscribe("pro")
    await world.use(subscription["customer"], "api_calls", 1)
    await world.advance_to("2026-02-10T00:00:00")
    await world.use(subscription["customer"], "api_calls", 1, timestamp="2026-02-10T00:00:00Z")


async def test_a_refusal_is_doubted_by_the_terms_it_was_made_with_whatever_others_load_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch waits for a customer it has not met, and meanwhile another request learns what time it is for the one it has.

    Mutant: the terms at hand when the till is asked stand for those that the refusal came from.
    """
    await world.stand_at("2026-01-31T10:00:00")
    await metered(world)
    known, stranger = [(await world.subscribe("pro"))["customer"] for _ in range(2)]
    await world.use(known, "api_calls", 1)
    await world.advance_to("2026-02-10T00:00:00")
    load, is_waiting, may_go = world.services.terms.load, asyncio.Event(), asyncio.Event()

    async def slowly(tenant: Tenant, reference: str) -> Terms | None:
        if reference == stranger:
            is_waiting.set()
            await may_go.wait()
        return await load(tenant, reference)

    monkeypatch.setattr(world.services.terms, "load", slowly)
    today = {"featureCode": "api_calls", "timestamp": "2026-02-10T00:00:00Z"}
    events = [{"customerId": reference, "eventId": f"of {reference}", **today} for reference in (stranger, known)]
    batch = asyncio.create_task(world.ask("POST", "/usage/events/batch", {"events": events}))
    await is_waiting.wait()
    await world.use(known, "api_calls", 1, timestamp="2026-02-10T00:00:00Z")
    may_go.set()
    assert [result["status"] for result in (await batch)["results"]] == ["accepted", "accepted"]
