"""Repeats that the sweep takes back after their hour was priced again: what goes back is what the repeat is charged by then."""

from collections.abc import AsyncGenerator

import pytest

from tallybook.core import errors
from tallybook.flows import repeats, rerate
from tallybook.pricing.rates import Price
from tallybook.storage import postgres
from tallybook.storage.redis import Redis
from tests.support import rerating
from tests.support.billing import Json, World
from tests.support.rerating import CHARGE, DOUBLE, HALF, apply, balance, is_clean, set_price, subscribed, use

SINCE = "2026-11-10T06:00:00"


@pytest.fixture
async def world(database: postgres.Pool, redis_client: Redis) -> AsyncGenerator[World]:
    await database.execute("TRUNCATE usage_sweeps")
    async with rerating.rerating_world(database, redis_client) as made:
        yield made


async def counted_twice(world: World, subscription: Json) -> None:
    """One event without a date, which the till forgot before it came again."""
    await use(world, subscription, eventId="undated")
    await world.caught_up()
    await world.forget_ids()
    await use(world, subscription, eventId="undated")
    await world.caught_up()


@pytest.mark.parametrize("price", [HALF, DOUBLE])
async def test_the_sweep_gives_back_what_re_ratings_made_of_the_repeat(world: World, price: Price) -> None:
    """Mutants: the share of the re-rating stays taken; it is given back for the first event too."""
    subscription = await subscribed(world)
    before = await balance(world, subscription)
    await counted_twice(world, subscription)
    kept = CHARGE // 2 if price is HALF else 2 * CHARGE
    await set_price(world, price, SINCE)
    assert await apply(world) == 2 * (kept - CHARGE)
    await world.caught_up()
    swept = await repeats.sweep_if_due(world.services)
    assert swept is not None
    assert (swept.voided, swept.stuck) == (1, frozenset())
    await world.caught_up()
    assert await balance(world, subscription) == pytest.approx(before - kept / 1e5)
    assert await apply(world) == 0
    assert await is_clean(world)


async def test_a_repeat_that_came_after_the_re_rating_gives_back_its_own_amount(world: World) -> None:
    """Mutant: the share of the first event is taken for that of its repeat."""
    subscription = await subscribed(world)
    before = await balance(world, subscription)
    await use(world, subscription, eventId="undated")
    await world.caught_up()
    await set_price(world, HALF, SINCE)
    assert await apply(world) == -CHARGE // 2
    await world.caught_up()
    await world.forget_ids()
    await use(world, subscription, eventId="undated")
    await world.caught_up()
    await repeats.sweep_if_due(world.services)
    await world.caught_up()
    assert await balance(world, subscription) == pytest.approx(before - CHARGE / 2 / 1e5)
    assert await apply(world) == 0
    assert await is_clean(world)


async def test_while_a_re_rating_runs_the_sweep_waits_for_it(world: World) -> None:
    """Mutant: what the re-rating has written, and the book does not have yet, stays taken."""
    subscription = await subscribed(world)
    before = await balance(world, subscription)
    await counted_twice(world, subscription)
    await set_price(world, DOUBLE, SINCE)
    async with rerate.alone(world.services):
        assert await apply(world) == 2 * CHARGE
        with pytest.raises(errors.Unavailable, match="priced again"):
            await repeats.sweep_if_due(world.services)
    swept = await repeats.sweep_if_due(world.services)
    assert swept is not None
    assert swept.voided == 1
    assert await balance(world, subscription) == pytest.approx(before - 2 * CHARGE / 1e5)


async def test_before_its_period_is_billed_a_repeat_goes_back_with_what_re_ratings_took(world: World) -> None:
    """Mutant: only the daily sweep knows of re-ratings."""
    subscription = await subscribed(world)
    await counted_twice(world, subscription)
    await set_price(world, DOUBLE, SINCE)
    assert await apply(world) == 2 * CHARGE
    await world.advance_to("2026-12-20T00:00:00")
    taken = await world.services.database.fetchval(
        "SELECT sum(amount) FROM usage_events WHERE tenant_id = $1 AND pool LIKE '%.b.%'", world.tenant.id
    )
    assert abs(taken) == 2 * CHARGE
    assert await apply(world) == 0
    assert await is_clean(world)
