"""Credits that are taken away by hand: first those that were added or bought, then the plan's, never more than there are."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pytest

from tallybook.core import money
from tallybook.core.usage_log import Applied, Kind, Record
from tallybook.flows import reconcile
from tallybook.rollup import movements, rules
from tallybook.storage import postgres
from tallybook.storage.redis import Redis
from tests.support import billing
from tests.support.billing import Json, World


@pytest.fixture
async def world(database: postgres.Pool, redis_client: Redis) -> AsyncGenerator[World]:
    async with billing.world(database, redis_client) as made:
        await made.plan("studio", 4900, consumptionModel="credits", price_includedCredits=100)
        await made.feature("studio", "images", creditsPerUnit=10)
        yield made


async def adjust(world: World, subscription: Json, amount: int) -> tuple[int, object]:
    """Status, and what is left or why not."""
    answer = await world.api.send("POST", f"/api/v1/subscriptions/{subscription['id']}/balance/adjust", {"amount": amount})
    return answer.status, answer.body["newBalance"] if answer.status == 200 else answer.code


async def left(world: World, subscription: Json) -> tuple[float, float]:
    """Plan credits and purchased ones."""
    shown = (await world.ask("GET", f"/subscriptions/{subscription['id']}"))["credits"]
    return shown["remaining"], shown["purchased"]


async def is_reconciled(world: World) -> bool:
    await world.caught_up()
    report = await reconcile.reconcile(world.services.database, world.services.redis, world.services.settings.partitions)
    return report.is_clean


async def test_plan_credits_can_be_taken_away(world: World) -> None:
    subscription = await world.subscribe("studio")
    assert await adjust(world, subscription, -10) == (200, 90)
    assert await left(world, subscription) == (90, 0)
    assert await is_reconciled(world)


async def test_added_credits_are_taken_before_the_plans(world: World) -> None:
    subscription = await world.subscribe("studio")
    assert await adjust(world, subscription, 30) == (200, 130)
    assert await adjust(world, subscription, -10) == (200, 120)
    assert await left(world, subscription) == (100, 20)
    assert await adjust(world, subscription, -50) == (200, 70)
    assert await left(world, subscription) == (70, 0)
    assert await is_reconciled(world)
    rows = await world.services.database.fetch(
        "SELECT amount, spare_amount FROM usage_events WHERE tenant_id = $1 AND kind = 1 ORDER BY accepted_at", world.tenant.id
    )
    assert [(row["amount"] // money.NANO, row["spare_amount"] // money.NANO) for row in rows] == [(-30, 0), (10, 10), (50, 20)]


async def test_more_than_there_is_is_refused_and_nothing_is_taken(world: World) -> None:
    subscription = await world.subscribe("studio")
    await adjust(world, subscription, 30)
    assert await adjust(world, subscription, -131) == (402, "insufficient_credits")
    assert await left(world, subscription) == (100, 30)
    assert await adjust(world, subscription, -130) == (200, 0)
    assert await adjust(world, subscription, -1) == (402, "insufficient_credits")
    assert await is_reconciled(world)


async def test_usage_and_adjustments_at_the_same_time_never_take_more_than_there_is(world: World) -> None:
    subscription = await world.subscribe("studio")
    await adjust(world, subscription, 50)

    async def use() -> int:
        used = {"customerId": subscription["customer"], "featureCode": "images", "value": 1}
        return 10 * ((await world.api.send("POST", "/api/v1/usage/events", used)).status == 200)

    async def take() -> int:
        return 7 * ((await adjust(world, subscription, -7))[0] == 200)

    taken: Sequence[int] = await asyncio.gather(*(work() for _ in range(15) for work in (use, take)))
    assert sum(await left(world, subscription)) == 150 - sum(taken) >= 0
    assert 150 - sum(taken) < 10
    assert await is_reconciled(world)


@pytest.mark.parametrize(("amount", "outcome"), [(-5, "-6"), (-5, "1"), (5, "1"), (5, "-1")])
def test_a_part_that_is_no_part_of_the_adjustment_is_not_booked(amount: int, outcome: str) -> None:
    assert rules.effect_problem(Record(Kind.ADJUSTMENT, 1, 1, b"", "7.c.1", amount), outcome)


def test_an_adjustment_moves_both_pools() -> None:
    found = movements.of_record(Applied(Record(Kind.ADJUSTMENT, 1, 1, b"", "7.c.1", -5), "-3"))
    assert {(movement.pool, movement.what): movement.amount for movement in found} == {
        ("credits", movements.ADJUSTED): -3,
        ("7.c.1", movements.ADJUSTED): -2,
    }
