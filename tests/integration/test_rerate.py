"""Pricing past usage again on real stores: what differs, what is written, and that it is written once."""

import argparse
import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import timedelta

import pytest

from tallybook.ai_models import actions, locks
from tallybook.ai_models import store as ai_models
from tallybook.cli import models_rerate
from tallybook.core import errors
from tallybook.flows import rerate
from tallybook.flows.rerate import Window
from tallybook.pricing.rates import Band, Listed, Price
from tallybook.rollup import model_usage
from tallybook.storage import postgres
from tallybook.storage.redis import Redis
from tests.support import rerating
from tests.support.billing import World, at
from tests.support.rerating import (
    CHARGE,
    DAY,
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
)


@pytest.fixture
async def world(database: postgres.Pool, redis_client: Redis) -> AsyncGenerator[World]:
    async with rerating.rerating_world(database, redis_client) as made:
        yield made


async def test_usage_priced_as_the_book_says_now_differs_by_nothing(world: World) -> None:
    subscription = await subscribed(world)
    await use(world, subscription)
    [difference] = await survey(world)
    assert (difference.events, difference.changed, difference.open_hours) == (1, 0, [])
    assert (difference.total.took, difference.total.should) == (CHARGE, CHARGE)
    assert await apply(world) == 0


async def test_a_backdated_price_is_shown_then_written_hour_by_hour_and_once(world: World) -> None:
    subscription = await subscribed(world)
    for hour in (6, 6, 7):
        await use(world, subscription, timestamp=f"2026-11-10T0{hour}:15:00Z")
    before = await balance(world, subscription)
    await set_price(world, HALF, "2026-11-10T06:00:00")
    [difference] = await survey(world)
    assert (difference.events, difference.changed, difference.total.owed) == (3, 3, -3 * CHARGE // 2)
    assert await balance(world, subscription) == before
    written = await rerate.write(world.services, difference)
    assert [(f"{one.hour:%H}", one.nano) for one in written.adjusted] == [("06", -CHARGE), ("07", -CHARGE // 2)]
    assert len({one.id for one in written.adjusted}) == 2
    assert await balance(world, subscription) == pytest.approx(before + 753.3)
    assert await apply(world) == 0
    [again] = await survey(world)
    assert (again.total.rerated, again.total.owed) == (-3 * CHARGE // 2, 0)
    assert await balance(world, subscription) == pytest.approx(before + 753.3)
    assert await is_clean(world)


async def test_windows_that_overlap_adjust_each_hour_once(world: World) -> None:
    subscription = await subscribed(world)
    for hour in (5, 6, 7):
        await use(world, subscription, timestamp=f"2026-11-10T0{hour}:15:00Z")
    await set_price(world, HALF, "2026-11-10T00:00:00")
    assert await apply(world, "2026-11-10T05:00:00", "2026-11-10T07:00:00") == -CHARGE
    assert await apply(world, "2026-11-10T06:00:00", "2026-11-10T08:00:00") == -CHARGE // 2
    assert await apply(world) == 0


async def test_a_rerate_that_broke_off_is_finished_by_the_next(world: World) -> None:
    subscription = await subscribed(world)
    for hour in (5, 6):
        await use(world, subscription, timestamp=f"2026-11-10T0{hour}:15:00Z")
    await set_price(world, HALF, "2026-11-10T00:00:00")
    [difference] = await survey(world)
    first = difference.open_hours[0]
    await rerate.write(world.services, replace(difference, hours={first: difference.hours[first]}))
    assert await apply(world) == -CHARGE // 2
    # The same step twice, as after an answer that never came, is one step for the till.
    assert [one.nano for one in (await rerate.write(world.services, difference)).adjusted] == [-CHARGE // 2] * 2
    assert await apply(world) == 0
    assert await is_clean(world)


async def test_a_second_change_of_mind_takes_the_difference_to_the_first(world: World) -> None:
    subscription = await subscribed(world)
    await use(world, subscription, timestamp="2026-11-10T06:15:00Z")
    await set_price(world, HALF, "2026-11-10T00:00:00")
    assert await apply(world) == -CHARGE // 2
    await set_price(world, DOUBLE, "2026-11-10T00:00:00")
    assert await apply(world) == CHARGE * 3 // 2
    assert await is_clean(world)


async def test_going_back_and_forth_between_two_prices_adjusts_each_time(world: World) -> None:
    """Mutant: the identity of an adjustment is the hour and the sums, which come again."""
    subscription = await subscribed(world)
    await use(world, subscription, timestamp="2026-11-10T06:15:00Z")
    before, since = await balance(world, subscription), "2026-11-10T06:00:00"
    for _ in range(2):
        await set_price(world, DOUBLE, since)
        assert await apply(world) == CHARGE
        assert await balance(world, subscription) == pytest.approx(before - 502.2)
        await end_prices(world, since)
        assert await apply(world) == -CHARGE
        assert await balance(world, subscription) == pytest.approx(before)
    assert await apply(world) == 0
    assert await is_clean(world)


async def test_an_alias_that_is_a_models_id_does_not_lead_past_usage_elsewhere(world: World) -> None:
    """Mutant: the stored model is resolved again, aliases first."""
    subscription = await subscribed(world)
    await use(world, subscription)
    async with postgres.transaction(world.services.database) as connection:
        await actions.set_alias(connection, world.tenant, "anthropic/claude-sonnet-4.6", "openai/gpt-5-nano", world.clock())
    [difference] = await survey(world)
    assert (difference.events, difference.changed, difference.unpriced, difference.total.owed) == (1, 0, 0, 0)


@pytest.mark.parametrize("unlimited", [True, False])
async def test_a_free_model_that_gets_a_price_costs_only_where_the_plan_is_not_unlimited(
    world: World, *, unlimited: bool
) -> None:
    """Mutant: an event that took nothing at a price of 0 is charged, whatever its terms were."""
    await set_price(world, Price((Band(0, Listed(0, 0)),)), "2026-11-01T00:00:00", "me/own")
    await world.plan("ai", 5000, consumptionModel="balance", price_includedBalance=500_000)
    await world.feature("ai", "ai_chat", pricingMode="ai_model", margin=20, unlimited=unlimited)
    subscription = await world.subscribe("ai")
    await use(world, subscription, model="me/own", timestamp="2026-11-10T06:15:00Z")
    await world.advance_to("2026-12-20T00:00:00")
    await set_price(world, DOUBLE, "2026-11-01T00:00:00", "me/own")
    [difference] = await survey(world)
    assert (difference.events, difference.total.took) == (1, 0)
    assert difference.total.owed == (0 if unlimited else 2 * CHARGE)


async def test_without_a_worker_nothing_is_surveyed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutant: what the book lacks is taken for usage that never happened."""

    async def behind(_services: object, goals: dict[int, int]) -> set[int]:
        return set(goals)

    monkeypatch.setattr(rerate.period, "catch_up", behind)
    with pytest.raises(errors.Unavailable, match="far enough"):
        await survey(world)


async def test_usage_of_a_closed_period_is_adjusted_in_the_running_one(world: World) -> None:
    subscription = await subscribed(world)
    await use(world, subscription)
    await world.advance_to("2026-12-20T00:00:00")
    issued = await world.invoices(subscription)
    before = await balance(world, subscription)
    await set_price(world, HALF, "2026-11-01T00:00:00")
    assert await apply(world) == -CHARGE // 2
    assert await balance(world, subscription) == pytest.approx(before + 251.1)
    assert await world.invoices(subscription) == issued
    assert await apply(world) == 0
    row = await world.services.database.fetchrow(
        "SELECT pool, belongs_to, properties FROM usage_events WHERE kind = 1 AND tenant_id = $1", world.tenant.id
    )
    assert row is not None
    assert (row["belongs_to"], row["properties"][model_usage.RERATED_HOUR]) == (
        at("2026-11-10T08:00:00"),
        "2026-11-10T08:00:00.000Z",
    )
    assert row["pool"].endswith(f".b.{int(at('2026-12-10T08:30:00').timestamp())}")


async def test_a_blocking_balance_is_not_overdrawn_by_a_dearer_price(world: World) -> None:
    subscription = await subscribed(world, blocks=True)
    dear = Price((Band(0, Listed(3 * 10**9, 10**10)),))
    await use(world, subscription)
    before = await balance(world, subscription)
    await set_price(world, dear, "2026-11-10T00:00:00")
    [difference] = await survey(world)
    written = await rerate.write(world.services, difference)
    assert (list(written.adjusted), written.refused) == ([], "the balance does not cover it, and the plan blocks")
    assert await balance(world, subscription) == before


async def test_usage_that_took_nothing_still_takes_nothing(world: World) -> None:
    await world.plan("ai", 5000, consumptionModel="balance", price_includedBalance=500_000)
    await world.feature("ai", "ai_chat", pricingMode="ai_model", margin=20, unlimited=True)
    subscription = await world.subscribe("ai")
    await use(world, subscription)
    await set_price(world, DOUBLE, "2026-11-10T00:00:00")
    [difference] = await survey(world)
    assert (difference.events, difference.total.took, difference.total.owed) == (1, 0, 0)


async def test_usage_without_a_price_now_stays_as_it_was(world: World) -> None:
    subscription = await subscribed(world)
    await set_price(world, HALF, "2026-11-10T00:00:00", "acme/house")
    await use(world, subscription, model="acme/house")
    database = world.services.database
    await database.execute("UPDATE ai_price_overrides SET effective_to = effective_from WHERE tenant_id = $1", world.tenant.id)
    async with postgres.transaction(database) as connection:
        await ai_models.raise_version(connection, world.clock())
    [difference] = await survey(world)
    assert (difference.unpriced, difference.total.owed) == (1, 0)


async def test_a_customer_whose_subscription_ended_is_told_of_and_not_adjusted(world: World) -> None:
    subscription = await subscribed(world)
    await use(world, subscription)
    await world.ask("POST", f"/subscriptions/{subscription['id']}/cancel", {"immediate": True})
    await set_price(world, HALF, "2026-11-10T00:00:00")
    [difference] = await survey(world)
    assert (await rerate.write(world.services, difference)).refused == "the customer has no subscription that runs"


async def test_each_charge_can_be_computed_again_from_its_row(world: World) -> None:
    subscription = await subscribed(world)
    await use(world, subscription, webSearchRequests=3, cacheWrite1hTokens=400)
    await use(world, subscription, model="openai/gpt-5.4", inputTokens=300_000, cacheWriteTokens=0, serviceTier="flex")
    [difference] = await survey(world)
    async with world.services.database.acquire() as connection:
        rows = await model_usage.of_customer(connection, difference.customer.customer_id, at(DAY[0]), at(DAY[1]))
    assert [row.charge_nano for row in rows] == [row.amount for row in rows]
    assert {row.catalog_version for row in rows} == {world.services.book.version}
    assert sorted(row.web_search_pico for row in rows if row.web_searches) == [10**10]


def test_windows_are_whole_hours() -> None:
    moment = at("2026-11-10T06:00:00")
    for starts_at, ends_at in ((moment, moment), (moment, moment + timedelta(minutes=30)), (moment, moment - timedelta(hours=1))):
        with pytest.raises(errors.ValidationError):
            Window(starts_at, ends_at)


async def test_one_rerate_runs_at_a_time(world: World) -> None:
    async with rerate.alone(world.services):
        with pytest.raises(errors.Conflict):
            async with rerate.alone(world.services):
                pass


async def test_a_rerate_waits_for_voids_under_way(world: World) -> None:
    """Mutant: a void that happens to run makes the command fail."""
    held = asyncio.Event()

    async def void_for_a_moment() -> None:
        async with postgres.transaction(world.services.database) as connection:
            assert await locks.try_share_rerate_lock(connection)
            held.set()
            await asyncio.sleep(0.2)

    voiding = asyncio.create_task(void_for_a_moment())
    await held.wait()
    async with rerate.alone(world.services):
        assert voiding.done()


async def test_the_command_shows_before_it_writes(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    subscription = await subscribed(world)
    await use(world, subscription)
    await set_price(world, HALF, "2026-11-10T00:00:00")
    parser = argparse.ArgumentParser()
    models_rerate.configure(parser)
    words = ["--from", DAY[0], "--to", DAY[1], "--organization", world.tenant.organization_id]
    before = await balance(world, subscription)
    assert await models_rerate.perform(world.services, parser.parse_args([*words, "--dry-run"])) == 0
    told = capsys.readouterr().out
    assert "took $0.05022, should take $0.02511, adjusted before $0.00, difference -$0.02511" in told
    assert "1 customers; -$0.02511 would be owed" in told
    assert await balance(world, subscription) == before
    assert await models_rerate.perform(world.services, parser.parse_args([*words, "--customer", subscription["customer"]])) == 0
    told = capsys.readouterr().out
    assert "2026-11-10T08:00:00.000Z  evt_" in told
    assert await balance(world, subscription) == pytest.approx(before + 251.1)
    with pytest.raises(errors.NotFound):
        await models_rerate.perform(world.services, parser.parse_args([*words, "--customer", "nobody"]))
