"""Ending a subscription, at once or with its cycle: what is still billed, and what is not."""

from collections.abc import AsyncGenerator

import pytest

from tallybook.storage import postgres
from tallybook.storage.redis import Redis
from tests.support import billing
from tests.support.billing import World


@pytest.fixture
async def world(database: postgres.Pool, redis_client: Redis) -> AsyncGenerator[World]:
    async with billing.world(database, redis_client) as made:
        yield made


async def test_a_cancellation_at_period_end_bills_the_last_overage_and_no_further_base(world: World) -> None:
    await world.stand_at("2026-03-15")
    await world.metered()
    subscription = await world.subscribe("pro")
    await world.use(subscription["customer"], "api_calls", 1200)
    canceled = await world.ask("POST", f"/subscriptions/{subscription['id']}/cancel", {"reason": "moving on"})
    assert (canceled["status"], canceled["cancelAtPeriodEnd"], canceled["endDate"][:10]) == ("active", True, "2026-04-15")
    assert canceled["cancellation"]["reason"] == "moving on"
    assert await world.refused("POST", f"/subscriptions/{subscription['id']}/cancel", {}) == (409, "already_scheduled")
    await world.advance_to("2026-05-01")
    assert [(invoice["invoiceType"], invoice["total"]) for invoice in await world.invoices(subscription)] == [
        ("recurring", 9900),
        ("overage", 200),
    ]
    shown = await world.ask("GET", f"/subscriptions/{subscription['id']}")
    assert (shown["status"], shown["currentPeriod"], shown["cancelAtPeriodEnd"]) == ("canceled", None, False)
    told = (await world.topics("subscription"))[2:]
    assert told == ["subscription.updated", "subscription.cancellation_scheduled", "subscription.canceled"]
    gone = await world.use(subscription["customer"], "api_calls", 1, status=404)
    assert gone["error"]["code"] == "no_active_subscription"
    assert (await world.periods(subscription))[-1][2] == "closed"


async def test_a_cancellation_in_a_trial_ends_with_the_trial_and_bills_nothing(world: World) -> None:
    await world.stand_at("2026-01-17")
    await world.plan("pro", 9900, price_trialDays=14)
    subscription = await world.subscribe("pro")
    await world.ask("POST", f"/subscriptions/{subscription['id']}/cancel", {})
    await world.advance_to("2026-03-01")
    assert await world.invoices(subscription) == []
    assert (await world.ask("GET", f"/subscriptions/{subscription['id']}"))["status"] == "canceled"


async def test_a_scheduled_cancellation_can_be_taken_back(world: World) -> None:
    await world.stand_at("2026-03-15")
    await world.metered()
    subscription = await world.subscribe("pro")
    path = f"/subscriptions/{subscription['id']}"
    assert await world.refused("POST", f"{path}/uncancel") == (409, "not_scheduled_for_cancellation")
    await world.ask("POST", f"{path}/cancel", {})
    kept = await world.ask("POST", f"{path}/uncancel")
    assert (kept["cancelAtPeriodEnd"], kept["cancellation"], kept["endDate"]) == (False, None, None)
    await world.advance_to("2026-04-16")
    assert len(await world.invoices(subscription)) == 2


async def test_an_immediate_cancellation_stops_usage_and_bills_what_was_used(world: World) -> None:
    await world.stand_at("2026-03-15")
    await world.metered()
    subscription = await world.subscribe("pro")
    await world.use(subscription["customer"], "api_calls", 1300)
    await world.stand_at("2026-03-20")
    canceled = await world.ask("POST", f"/subscriptions/{subscription['id']}/cancel", {"immediate": True})
    assert (canceled["status"], canceled["endDate"][:10]) == ("canceled", "2026-03-20")
    await world.use(subscription["customer"], "api_calls", 1, status=404)
    again = await world.subscribe("pro", subscription["customer"])
    await world.close_due()
    found = [
        (invoice["invoiceType"], invoice["total"], invoice["periodEnd"][:10]) for invoice in await world.invoices(subscription)
    ]
    assert found == [("recurring", 9900, "2026-04-15"), ("overage", 300, "2026-03-20")]
    assert await world.periods(subscription) == [("2026-03-15", "2026-03-20", "closed")]
    assert await world.periods(again) == [("2026-03-20", "2026-04-20", "open")]
    assert await world.refused("POST", f"/subscriptions/{subscription['id']}/cancel", {"immediate": True}) == (
        409,
        "subscription_already_canceled",
    )
    assert await world.refused("POST", f"/subscriptions/{subscription['id']}/uncancel") == (409, "subscription_already_canceled")


async def test_a_subscription_canceled_at_the_very_moment_of_its_start_closes_cleanly(world: World) -> None:
    await world.stand_at("2026-03-15")
    await world.metered()
    subscription = await world.subscribe("pro")
    await world.ask("POST", f"/subscriptions/{subscription['id']}/cancel", {"immediate": True})
    await world.close_due()
    assert [invoice["total"] for invoice in await world.invoices(subscription)] == [9900]
    assert [state for _, _, state in await world.periods(subscription)] == ["closed"]


async def test_an_immediate_cancellation_while_an_ended_period_waits_still_bills_both_periods(world: World) -> None:
    await world.metered()
    subscription = await world.subscribe("pro")
    world.clock.shows = billing.at("2026-12-20T09:00:30")
    await world.use(subscription["customer"], "api_calls", 1100)
    await world.ask("POST", f"/subscriptions/{subscription['id']}/cancel", {"immediate": True})
    await world.close_due()
    await world.close_due()
    found = [(invoice["invoiceType"], invoice["total"]) for invoice in await world.invoices(subscription)]
    assert found == [("recurring", 9900), ("recurring", 9900), ("overage", 100)]
    assert [state for _, _, state in await world.periods(subscription)] == ["closed", "closed"]


async def test_a_one_time_purchase_can_not_be_canceled(world: World) -> None:
    await world.metered("one_time", 29_900)
    subscription = await world.subscribe("pro")
    for body in ({}, {"immediate": True}):
        refused = await world.refused("POST", f"/subscriptions/{subscription['id']}/cancel", body)
        assert refused == (409, "one_time_subscription_not_cancelable")


async def test_a_free_plan_is_canceled_at_once(world: World) -> None:
    await world.plan("hobby", None, isFree=True)
    subscription = await world.subscribe("hobby")
    assert (await world.ask("POST", f"/subscriptions/{subscription['id']}/cancel", {}))["status"] == "canceled"
    assert await world.ask("GET", "/subscriptions/active", params={"customerId": subscription["customer"]}) is None


async def test_a_purchase_without_renewal_ends_with_its_period(world: World) -> None:
    await world.stand_at("2026-03-15")
    await world.metered("quarterly", 29_700)
    subscription = await world.subscribe("pro", cancelAtPeriodEnd=True)
    assert (subscription["cancelAtPeriodEnd"], subscription["endDate"][:10]) == (True, "2026-06-15")
    await world.advance_to("2026-09-01")
    assert [invoice["total"] for invoice in await world.invoices(subscription)] == [29_700]
    assert len(await world.periods(subscription)) == 3
