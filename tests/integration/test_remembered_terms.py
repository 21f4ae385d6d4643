"""What a process remembers of a customer never outlives a change of it, whatever was refused meanwhile."""

from collections.abc import AsyncGenerator

import pytest

from tallybook.storage import postgres
from tallybook.storage.redis import Redis
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
