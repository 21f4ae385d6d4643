"""Voids of usage that was priced again: what goes back is what the event is charged then, and every sum agrees."""

import random
from collections.abc import AsyncGenerator

import pytest

from tallybook.core import ids
from tallybook.flows import current_book, rerate
from tallybook.pricing.rates import Band, Listed, Price
from tallybook.storage import postgres
from tallybook.storage.redis import Redis
from tests.support import rerating
from tests.support.billing import World
from tests.support.rerating import (
    CHARGE,
    DOUBLE,
    HALF,
    apply,
    balance,
    end_prices,
    is_clean,
    set_price,
    subscribed,
    survey,
    use,
    void,
)


@pytest.fixture
async def world(database: postgres.Pool, redis_client: Redis) -> AsyncGenerator[World]:
    async with rerating.rerating_world(database, redis_client) as made:
        yield made


@pytest.mark.parametrize("price", [HALF, DOUBLE])
async def test_a_void_gives_back_what_the_event_is_charged_after_re_ratings(world: World, price: Price) -> None:
    """Mutants: the void gives back the original amount only; it gives back what the whole hour was adjusted by."""
    subscription = await subscribed(world)
    await use(world, subscription, timestamp="2026-11-10T06:15:00Z")
    before = await balance(world, subscription)
    last = await use(world, subscription, timestamp="2026-11-10T06:20:00Z", inputTokens=20_000)
    await set_price(world, price, "2026-11-10T06:00:00")
    kept = CHARGE // 2 if price is HALF else 2 * CHARGE
    await apply(world)
    await void(world, last)
    assert await balance(world, subscription) == pytest.approx(before - (kept - CHARGE) / 1e5)
    [difference] = await survey(world)
    assert (difference.events, difference.total.took, difference.total.rerated) == (1, CHARGE, kept - CHARGE)
    assert await apply(world) == 0
    assert await is_clean(world)


async def test_a_void_goes_by_the_last_re_rating_and_not_by_prices_set_since(world: World) -> None:
    """Mutants: the share is computed from the newest prices; from the first re-rating."""
    subscription = await subscribed(world)
    before = await balance(world, subscription)
    last = await use(world, subscription, timestamp="2026-11-10T06:15:00Z")
    since = "2026-11-10T06:00:00"
    for price in (DOUBLE, HALF):
        await set_price(world, price, since)
        await apply(world)
    await set_price(world, DOUBLE, since)
    await void(world, last)
    assert await balance(world, subscription) == pytest.approx(before)
    assert await apply(world) == 0
    assert await is_clean(world)


async def test_a_void_of_usage_that_came_after_the_re_rating_gives_back_its_own_amount(world: World) -> None:
    """Mutant: the re-rating of the hour is taken to be of all usage in it."""
    subscription = await subscribed(world)
    await use(world, subscription, timestamp="2026-11-10T06:15:00Z")
    since = "2026-11-10T06:00:00"
    await set_price(world, HALF, since)
    await apply(world)
    before = await balance(world, subscription)
    await set_price(world, DOUBLE, since)
    await current_book.refresh(world.services)
    last = await use(world, subscription, timestamp="2026-11-10T06:20:00Z")
    assert await balance(world, subscription) == pytest.approx(before - 1004.4)
    await void(world, last)
    assert await balance(world, subscription) == pytest.approx(before)
    assert await apply(world) == CHARGE * 3 // 2
    assert await is_clean(world)


async def test_a_price_that_begins_within_the_hour_is_given_back_to_those_it_was_taken_from(world: World) -> None:
    """Mutant: one price row is kept for the whole hour."""
    subscription = await subscribed(world)
    before = await balance(world, subscription)
    await use(world, subscription, timestamp="2026-11-10T06:15:00Z")
    last = await use(world, subscription, timestamp="2026-11-10T06:45:00Z")
    await set_price(world, DOUBLE, "2026-11-10T06:30:00")
    assert await apply(world) == CHARGE
    await void(world, last)
    assert await balance(world, subscription) == pytest.approx(before - 502.2)
    assert await apply(world) == 0
    assert await is_clean(world)


async def test_a_void_after_the_close_of_its_period_gives_back_what_is_charged_now(world: World) -> None:
    subscription = await subscribed(world)
    last = await use(world, subscription)
    await world.advance_to("2026-12-20T00:00:00")
    before = await balance(world, subscription)
    await set_price(world, DOUBLE, "2026-11-01T00:00:00")
    assert await apply(world) == CHARGE
    await void(world, last)
    assert await balance(world, subscription) == pytest.approx(before + 502.2)
    assert await apply(world) == 0
    assert await is_clean(world)


async def test_a_void_of_unlimited_usage_gives_nothing_back(world: World) -> None:
    """Mutant: the share of an event that took nothing is its charge by the new price."""
    await set_price(world, Price((Band(0, Listed(0, 0)),)), "2026-11-01T00:00:00", "me/own")
    await world.plan("ai", 5000, consumptionModel="balance", price_includedBalance=500_000)
    await world.feature("ai", "ai_chat", pricingMode="ai_model", margin=20)
    await world.feature("ai", "free_chat", pricingMode="ai_model", margin=20, unlimited=True)
    subscription = await world.subscribe("ai")
    before = await balance(world, subscription)
    for feature in ("ai_chat", "free_chat"):
        last = await use(world, subscription, model="me/own", featureCode=feature, timestamp="2026-11-10T06:15:00Z")
    await set_price(world, DOUBLE, "2026-11-01T00:00:00", "me/own")
    assert await apply(world) == 2 * CHARGE
    await void(world, last)
    assert await balance(world, subscription) == pytest.approx(before - 1004.4)
    assert await apply(world) == 0


async def test_a_void_waits_until_a_re_rating_is_done(world: World) -> None:
    subscription = await subscribed(world)
    await use(world, subscription)
    await world.caught_up()
    digest = await world.services.database.fetchval("SELECT digest FROM usage_events WHERE tenant_id = $1", world.tenant.id)
    path = f"/usage/events/{ids.event_public_id(digest)}/void"
    async with rerate.alone(world.services):
        assert await world.refused("POST", path, {"reason": "x"}) == (503, "rerate_in_progress")
    await world.ask("POST", path, {"reason": "x"})


async def test_after_any_turns_each_sum_is_right_and_voiding_everything_leaves_nothing(world: World) -> None:
    """Mutants: any share of a re-rating that is taken from another event, another hour or another price."""
    dice, left = random.Random(3), list[str]()
    subscription = await subscribed(world)
    before = await balance(world, subscription)
    for turn in ("use", "use", "price", "rerate", "use", "price", "void", "rerate", "use", "end", "rerate", "void", "price"):
        if turn == "use":
            left.append(
                await use(world, subscription, timestamp=f"2026-11-10T0{dice.choice((5, 6, 6))}:{dice.randint(10, 59)}:00Z")
            )
        elif turn == "void":
            await void(world, left.pop(dice.randrange(len(left))))
        elif turn == "rerate":
            await apply(world)
        else:
            await _change_prices(world, dice, turn)
    for event in left:
        await void(world, event)
    assert await apply(world) == 0
    assert await balance(world, subscription) == pytest.approx(before)
    assert await is_clean(world)


async def _change_prices(world: World, dice: random.Random, turn: str) -> None:
    since = f"2026-11-10T0{dice.choice((5, 6))}:{dice.choice(('00', '30'))}:00"
    await (end_prices(world, since) if turn == "end" else set_price(world, dice.choice((HALF, DOUBLE)), since))
    await current_book.refresh(world.services)
