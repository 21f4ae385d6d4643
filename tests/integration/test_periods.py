"""Usage periods on real stores, over HTTP: what a boundary bills, what it leaves, and what holds when closing is interrupted."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from tallybook.core import errors
from tallybook.entrypoints.workers import periods as worker
from tallybook.flows import period
from tallybook.storage import postgres
from tallybook.storage.redis import Redis
from tallybook.subscriptions import period_store
from tests.support import api, billing, waiting
from tests.support.api import Api
from tests.support.billing import HandClock, Json, World, line


@pytest.fixture
async def world(database: postgres.Pool, redis_client: Redis) -> AsyncGenerator[World]:
    clock = HandClock(billing.at("2026-11-20T09:00:00"))
    services = await billing.make_services(database, redis_client, clock)
    account = await api.make_account(database)
    async with billing.rolling(services), api.serving(services) as client:
        yield World(services, account, Api(client, account.key), clock)


async def metered(world: World, interval: str = "monthly", price: int = 9900) -> None:
    """1000 calls included, a cent each beyond."""
    await world.plan("pro", price, interval)
    await world.feature("pro", "api_calls", includedAmount=1000, overage={"enabled": True, "unitPrice": 100})


async def test_a_month_bills_its_base_in_advance_and_its_overage_afterwards(world: World) -> None:
    await world.stand_at("2026-01-31T10:00:00")
    await metered(world)
    subscription = await world.subscribe("pro")
    await world.use(subscription["customer"], "api_calls", 3000)
    run = await world.advance_to("2026-03-01T00:00:00")
    first, second = await world.invoices(subscription)
    assert (first["invoiceType"], first["total"], first["periodEnd"]) == ("recurring", 9900, "2026-02-28T10:00:00.000Z")
    assert (second["invoiceType"], second["total"]) == ("recurring", 9900 + 2000)
    assert (second["periodStart"], second["periodEnd"]) == ("2026-02-28T10:00:00.000Z", "2026-03-31T10:00:00.000Z")
    overage = line(second, "feature_overage")
    assert (overage["quantity"], overage["unitAmount"], overage["amount"]) == (2000, 100, 2000)
    assert (overage["includedAmount"], overage["usedAmount"], overage["overageAmount"]) == (1000, 3000, 2000)
    assert run["estimatedDeadlineCount"] == run["completedDeadlineCount"] == 1
    [item] = run["items"]
    assert (item["outcome"], item["invoiceNumber"], item["customerName"]) == ("invoiced", second["invoiceNumber"], "Ada")
    assert await world.periods(subscription) == [("2026-01-31", "2026-02-28", "closed"), ("2026-02-28", "2026-03-31", "open")]


async def test_a_shorter_run_that_reaches_no_boundary_bills_nothing(world: World) -> None:
    await world.stand_at("2026-01-31T10:00:00")
    await metered(world)
    subscription = await world.subscribe("pro")
    run = await world.advance_to("2026-02-28T09:59:59")
    assert (run["estimatedDeadlineCount"], run["items"]) == (0, [])
    assert len(await world.invoices(subscription)) == 1


async def test_a_subscription_from_31_january_renews_on_the_last_day_of_short_months(world: World) -> None:
    await world.stand_at("2028-01-31")
    await metered(world)
    subscription = await world.subscribe("pro")
    await world.advance_to("2028-05-01")
    starts = [invoice["periodStart"][:10] for invoice in await world.invoices(subscription)]
    assert starts == ["2028-01-31", "2028-02-29", "2028-03-31", "2028-04-30"]


async def test_between_renewals_of_a_yearly_price_only_overage_is_invoiced(world: World) -> None:
    await world.stand_at("2026-03-15")
    await metered(world, "yearly", 89_900)
    subscription = await world.subscribe("pro")
    await world.use(subscription["customer"], "api_calls", 1500)
    await world.advance_to("2026-04-20")
    await world.use(subscription["customer"], "api_calls", 1000)
    await world.advance_to("2027-03-20")
    found = [
        (invoice["invoiceType"], invoice["total"], invoice["periodStart"][:10]) for invoice in await world.invoices(subscription)
    ]
    assert found == [("recurring", 89_900, "2026-03-15"), ("overage", 500, "2026-03-15"), ("recurring", 89_900, "2027-03-15")]


async def test_a_weekly_price_resets_and_bills_every_seven_days(world: World) -> None:
    await world.stand_at("2026-03-02")
    await metered(world, "weekly", 2500)
    subscription = await world.subscribe("pro")
    await world.advance_to("2026-03-16")
    assert [invoice["periodEnd"][:10] for invoice in await world.invoices(subscription)] == [
        "2026-03-09",
        "2026-03-16",
        "2026-03-23",
    ]


async def test_a_one_time_price_is_billed_once_and_overage_goes_on(world: World) -> None:
    await world.stand_at("2026-03-15")
    await metered(world, "one_time", 29_900)
    subscription = await world.subscribe("pro")
    await world.use(subscription["customer"], "api_calls", 1100)
    await world.advance_to("2026-07-01")
    assert [invoice["total"] for invoice in await world.invoices(subscription)] == [29_900, 100]
    assert (subscription["billingInterval"], subscription["nextBillingDate"]) == ("one_time", None)


async def test_a_free_plan_resets_monthly_and_is_never_invoiced(world: World) -> None:
    await world.stand_at("2026-03-15")
    await world.plan("hobby", None, isFree=True)
    await world.feature("hobby", "api_calls", includedAmount=10)
    subscription = await world.subscribe("hobby")
    await world.use(subscription["customer"], "api_calls", 10)
    refused = await world.use(subscription["customer"], "api_calls", 1, status=402)
    assert refused["error"]["code"] == "included_limit_reached"
    await world.advance_to("2026-04-15")
    await world.use(subscription["customer"], "api_calls", 10)
    assert await world.invoices(subscription) == []
    assert (subscription["status"], subscription["billingInterval"], subscription["checkoutUrl"]) == ("active", None, None)


async def test_a_trial_bills_nothing_blocks_overage_and_turns_active_with_its_first_invoice(world: World) -> None:
    await world.stand_at("2026-01-17")
    await world.plan("pro", 9900, price_trialDays=14)
    await world.feature("pro", "api_calls", includedAmount=1000, overage={"enabled": True, "unitPrice": 100})
    subscription = await world.subscribe("pro")
    assert (subscription["status"], subscription["trialEndsAt"][:10]) == ("trialing", "2026-01-31")
    await world.use(subscription["customer"], "api_calls", 1000)
    await world.use(subscription["customer"], "api_calls", 1, status=402)
    assert await world.invoices(subscription) == []
    run = await world.advance_to("2026-02-01")
    [invoice] = await world.invoices(subscription)
    assert (invoice["total"], invoice["periodStart"][:10], invoice["periodEnd"][:10]) == (9900, "2026-01-31", "2026-02-28")
    assert (await world.ask("GET", f"/subscriptions/{subscription['id']}"))["status"] == "active"
    assert run["items"][0]["outcome"] == "trial_ended"
    assert await world.topics("subscription", "invoice") == ["subscription.created", "invoice.created", "subscription.activated"]
    await world.use(subscription["customer"], "api_calls", 1001)


async def test_the_balance_of_a_trial_longer_than_a_month_is_granted_once(world: World) -> None:
    await world.stand_at("2026-01-10")
    await world.plan("payg", 1000, consumptionModel="balance", price_trialDays=45)
    await world.feature("payg", "api_calls", overage={"unitPrice": 100})
    subscription = await world.subscribe("payg")
    await world.use(subscription["customer"], "api_calls", 600)
    await world.advance_to("2026-02-15")
    shown = await world.ask("GET", f"/subscriptions/{subscription['id']}")
    assert (shown["status"], shown["balance"]["remaining"]) == ("trialing", 40_000)
    await world.use(subscription["customer"], "api_calls", 401, status=402)
    await world.advance_to("2026-02-24T01:00:00")
    shown = await world.ask("GET", f"/subscriptions/{subscription['id']}")
    assert (shown["status"], shown["balance"]["remaining"]) == ("active", 100_000)


async def test_an_overdrawn_balance_is_billed_when_its_period_ends_and_starts_anew(world: World) -> None:
    await world.stand_at("2026-03-01")
    await world.plan("payg", 1000, consumptionModel="balance", price_includedBalance=100_000)
    await world.feature("payg", "api_calls", overage={"unitPrice": 125})
    subscription = await world.subscribe("payg")
    await world.use(subscription["customer"], "api_calls", 999)
    await world.advance_to("2026-04-01")
    last = (await world.invoices(subscription))[-1]
    overage = line(last, "balance_overage")
    assert (overage["amount"], overage["unitAmount"], last["total"]) == (249, 24_875, 1249)  # $2.4875, half to even on the cent
    shown = await world.ask("GET", f"/subscriptions/{subscription['id']}")
    assert shown["balance"] == {"remaining": 100_000, "included": 100_000, "currency": "usd"}


async def test_plan_credits_reset_and_purchased_ones_stay(world: World) -> None:
    await world.stand_at("2026-03-01")
    await world.plan("studio", 1000, consumptionModel="credits", price_includedCredits=100)
    await world.feature("studio", "images", creditsPerUnit=10)
    subscription = await world.subscribe("studio")
    added = await world.ask("POST", f"/subscriptions/{subscription['id']}/balance/adjust", {"amount": 50, "reason": "sorry"})
    assert (added["newBalance"], added["reason"]) == (150, "sorry")
    await world.use(subscription["customer"], "images", 12)
    shown = await world.ask("GET", f"/subscriptions/{subscription['id']}")
    assert shown["credits"] == {"remaining": 0, "included": 100, "purchased": 30}
    await world.advance_to("2026-04-01")
    shown = await world.ask("GET", f"/subscriptions/{subscription['id']}")
    assert shown["credits"] == {"remaining": 100, "included": 100, "purchased": 30}
    assert (await world.invoices(subscription))[-1]["total"] == 1000


async def test_a_balance_is_corrected_within_its_period_only(world: World) -> None:
    await world.stand_at("2026-03-01")
    await world.plan("payg", 1000, consumptionModel="balance")
    await world.feature("payg", "api_calls", overage={"unitPrice": 100})
    subscription = await world.subscribe("payg")
    adjust = f"/subscriptions/{subscription['id']}/balance/adjust"
    assert (await world.ask("POST", adjust, {"amount": 50_000, "type": "balance"}))["newBalance"] == 150_000
    await world.use(subscription["customer"], "api_calls", 1400)
    assert (await world.ask("POST", adjust, {"amount": -5000}))["newBalance"] == 5000
    await world.advance_to("2026-04-01")
    shown = await world.ask("GET", f"/subscriptions/{subscription['id']}")
    assert shown["balance"]["remaining"] == 100_000
    assert [invoice["total"] for invoice in await world.invoices(subscription)] == [1000, 1000]


async def test_a_correction_is_made_once_for_an_idempotency_key_and_refused_where_it_does_not_fit(world: World) -> None:
    await world.stand_at("2026-03-01")
    await world.plan("studio", 1000, consumptionModel="credits", price_includedCredits=100)
    await world.plan("pro", 9900)
    subscription = await world.subscribe("studio")
    path = f"/api/v1/subscriptions/{subscription['id']}/balance/adjust"
    key = {"Idempotency-Key": "once"}
    answers = [await world.api.send("POST", path, {"amount": 5}, headers=key) for _ in range(3)]
    assert [answer.body["newBalance"] for answer in answers] == [105, 105, 105]
    mismatch = await world.api.send("POST", path, {"amount": 6}, headers=key)
    assert (mismatch.status, mismatch.code) == (409, "idempotency_key_mismatch")
    plain = path.removeprefix("/api/v1")
    assert await world.refused("POST", plain, {"amount": -6}) == (402, "insufficient_credits")
    assert await world.refused("POST", plain, {"amount": 0}) == (400, "validation_error")
    assert await world.refused("POST", plain, {"amount": 10**15}) == (400, "validation_error")
    assert await world.refused("POST", plain, {"amount": 1, "type": "balance"}) == (400, "validation_error")
    other = await world.subscribe("pro")
    assert await world.refused("POST", f"/subscriptions/{other['id']}/balance/adjust", {"amount": 1}) == (400, "validation_error")
    await world.ask("POST", f"/subscriptions/{subscription['id']}/cancel", {"immediate": True})
    assert await world.refused("POST", plain, {"amount": 1}) == (409, "subscription_not_active")


async def test_a_cancellation_at_period_end_bills_the_last_overage_and_no_further_base(world: World) -> None:
    await world.stand_at("2026-03-15")
    await metered(world)
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
    assert (await world.topics("subscription"))[2:] == ["subscription.updated", "subscription.canceled"]
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
    await metered(world)
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
    await metered(world)
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
    await metered(world)
    subscription = await world.subscribe("pro")
    await world.ask("POST", f"/subscriptions/{subscription['id']}/cancel", {"immediate": True})
    await world.close_due()
    assert [invoice["total"] for invoice in await world.invoices(subscription)] == [9900]
    assert [state for _, _, state in await world.periods(subscription)] == ["closed"]


async def test_an_immediate_cancellation_while_an_ended_period_waits_still_bills_both_periods(world: World) -> None:
    await metered(world)
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
    await metered(world, "one_time", 29_900)
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
    await metered(world, "quarterly", 29_700)
    subscription = await world.subscribe("pro", cancelAtPeriodEnd=True)
    assert (subscription["cancelAtPeriodEnd"], subscription["endDate"][:10]) == (True, "2026-06-15")
    await world.advance_to("2026-09-01")
    assert [invoice["total"] for invoice in await world.invoices(subscription)] == [29_700]
    assert len(await world.periods(subscription)) == 3


async def test_a_new_price_is_charged_from_the_next_renewal_on(world: World) -> None:
    await world.stand_at("2026-03-15")
    plan = await world.plan("pro", None)
    price = await world.add_price("pro", 9900, "monthly")
    subscription = await world.subscribe("pro")
    await world.stand_at("2026-03-20")
    await world.ask("PATCH", f"/plans/{plan['id']}/prices/{price['id']}", {"price": 12_900})
    await world.advance_to("2026-04-20")
    assert [invoice["total"] for invoice in await world.invoices(subscription)] == [9900, 12_900]


async def test_a_late_event_of_a_closed_period_is_paid_by_the_open_one(world: World) -> None:
    await world.stand_at("2026-03-15")
    await metered(world)
    subscription = await world.subscribe("pro")
    await world.advance_to("2026-04-16")
    await world.use(subscription["customer"], "api_calls", 1600, timestamp="2026-04-10T00:00:00Z")
    await world.advance_to("2026-05-16")
    assert [invoice["total"] for invoice in await world.invoices(subscription)] == [9900, 9900, 9900 + 600]
    late = await world.services.database.fetchrow(
        "SELECT period_start, belongs_to FROM usage_events WHERE tenant_id = $1 AND belongs_to IS NOT NULL", world.tenant.id
    )
    assert late is not None
    assert (f"{late['period_start']:%Y-%m-%d}", f"{late['belongs_to']:%Y-%m}") == ("2026-04-15", "2026-04")


async def test_real_clocks_wait_for_the_grace_before_a_period_closes(world: World) -> None:
    world.services.settings = replace(world.services.settings, period_grace_s=60)
    await metered(world)
    subscription = await world.subscribe("pro")
    world.clock.shows = billing.at("2026-12-20T09:00:59")
    await world.close_due()
    assert len(await world.invoices(subscription)) == 1
    world.clock.shows = billing.at("2026-12-20T09:01:00")
    await world.close_due()
    assert len(await world.invoices(subscription)) == 2


async def test_periods_that_nobody_closed_for_months_are_closed_one_after_the_other(world: World) -> None:
    await metered(world)
    subscription = await world.subscribe("pro")
    world.clock.shows = billing.at("2027-02-21T09:00:00")
    while await world.close_due():
        pass
    assert [invoice["total"] for invoice in await world.invoices(subscription)] == [9900] * 4
    assert (await world.periods(subscription))[-1] == ("2027-02-20", "2027-03-20", "open")


async def test_five_closers_at_once_make_one_invoice(world: World) -> None:
    await metered(world)
    subscriptions = [await world.subscribe("pro") for _ in range(3)]
    for subscription in subscriptions:
        await world.use(subscription["customer"], "api_calls", 1500)
    world.clock.shows = billing.at("2026-12-20T10:00:00")
    await asyncio.gather(*(world.close_due() for _ in range(5)))
    for subscription in subscriptions:
        assert [invoice["total"] for invoice in await world.invoices(subscription)] == [9900, 10_400]
        assert [state for _, _, state in await world.periods(subscription)] == ["closed", "open"]
    assert (await world.topics("invoice")).count("invoice.created") == 6


async def test_invoice_numbers_have_no_gaps_when_many_are_issued_at_once(world: World) -> None:
    await metered(world)
    customers = [await world.customer() for _ in range(12)]
    await asyncio.gather(*(world.subscribe("pro", customer) for customer in customers))
    assert await world.refused("POST", "/subscriptions", {"customerId": customers[0], "planCode": "pro"}) == (
        409,
        "already_has_active_subscription",
    )
    world.clock.shows = billing.at("2026-12-20T10:00:00")
    await asyncio.gather(world.close_due(), world.close_due())
    listed = await world.ask("GET", "/invoices", params={"limit": "100"})
    assert sorted(item["invoiceNumber"] for item in listed["data"]) == [f"INV-{number:06d}" for number in range(1, 25)]


class CrashError(Exception):
    """Stands for a process that was killed at this point."""


_STEPS = ("begin", "mark", "catch_up", "settle", "expire")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", _STEPS)
async def test_closing_goes_on_wherever_it_was_interrupted(
    world: World, monkeypatch: pytest.MonkeyPatch, step: str, when: str
) -> None:
    await metered(world)
    subscription = await world.subscribe("pro")
    await world.use(subscription["customer"], "api_calls", 1500)
    world.clock.shows = billing.at("2026-12-20T10:00:00")
    with monkeypatch.context() as patch:
        patch.setattr(period, step, _crashing(getattr(period, step), when))
        await _until_crash(world)
    await world.close_due()
    await period.expire_leftovers(world.services)
    assert [invoice["total"] for invoice in await world.invoices(subscription)] == [9900, 10_400]
    assert [state for _, _, state in await world.periods(subscription)] == ["closed", "open"]
    async with world.services.database.acquire() as connection:
        assert await period_store.unexpired(connection, 10) == []
    assert await _pools(world, subscription) == {"f": (1, 0)}


def _crashing(step: Callable[..., Awaitable[Any]], when: str) -> Callable[..., Awaitable[Any]]:
    async def crash(*arguments: object) -> object:
        if when == "after":
            await step(*arguments)
        raise CrashError

    return crash


async def _until_crash(world: World) -> None:
    """A crash in `settle` rolls its transaction back and is a value; anywhere else it flies."""
    try:
        results = await period.close_due(world.services)
    except CrashError:
        return
    assert all(isinstance(result, period.Unsettled) for result in results)


async def _pools(world: World, subscription: Json) -> dict[str, tuple[int, int]]:
    """By kind: how many pools the subscription has in the book, and how many of the closed period the till still holds."""
    rows = await world.services.database.fetch(
        "SELECT b.pool, b.customer_id FROM pool_balances AS b JOIN subscriptions AS s ON s.customer_id = b.customer_id "
        "WHERE s.public_id = $1",
        subscription["id"],
    )
    found: dict[str, tuple[int, int]] = {}
    for row in rows:
        view = await world.services.till.read(world.tenant.id, row["customer_id"])
        kind = row["pool"].split(".")[1][0]
        total, held = found.get(kind, (0, 0))
        found[kind] = (total + 1, held + (row["pool"] in view.pools))
    return found


async def test_nothing_is_billed_before_the_book_has_read_what_the_till_took(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await metered(world)
    subscription = await world.subscribe("pro")
    monkeypatch.setattr(period, "CATCH_UP_S", 0.1)
    async with world.services.database.acquire() as held, held.transaction():
        await held.execute("LOCK TABLE log_offsets IN EXCLUSIVE MODE")  # the rollup can't commit
        await world.use(subscription["customer"], "api_calls", 1500)
        world.clock.shows = billing.at("2026-12-20T10:00:00")
        [result] = await period.close_due(world.services)
        assert isinstance(result, period.Unsettled)
        assert isinstance(result.error, errors.Unavailable)
        assert len(await world.invoices(subscription)) == 1
    monkeypatch.undo()
    await world.close_due()
    assert (await world.invoices(subscription))[-1]["total"] == 10_400


async def test_usage_under_way_while_a_period_closes_is_billed_once_in_one_period_or_the_other(world: World) -> None:
    await metered(world)
    subscription = await world.subscribe("pro")
    world.clock.shows = billing.at("2026-12-20T08:59:59")

    async def send() -> None:
        for _ in range(40):
            await world.use(subscription["customer"], "api_calls", 100, timestamp="2026-12-20T08:00:00Z")

    async def close() -> None:
        await asyncio.sleep(0.05)
        world.clock.shows = billing.at("2026-12-20T09:00:01")
        await world.close_due()

    await asyncio.gather(send(), send(), close())
    world.clock.shows = billing.at("2027-01-20T09:00:01")
    await world.close_due()
    billed = sum(
        item["usedAmount"]
        for invoice in await world.invoices(subscription)
        for item in invoice["lineItems"]
        if item["usedAmount"]
    )
    within = await world.services.database.fetchval(
        "SELECT coalesce(sum(charged), 0) FROM pool_balances WHERE tenant_id = $1 AND pool LIKE '%.f%' AND charged <= opening",
        world.tenant.id,
    )
    assert billed + int(within) // 10**9 == 80 * 100


async def test_one_period_that_can_not_be_billed_does_not_hold_up_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await metered(world)
    broken, good = await world.subscribe("pro"), await world.subscribe("pro")
    world.clock.shows = billing.at("2026-12-20T10:00:00")
    bill = period.billing.bill

    async def bill_all_but_one(connection: postgres.Connection, subscription: Any, *arguments: Any) -> Any:  # noqa: ANN401 - passed on
        if subscription.public_id == broken["id"]:
            raise CrashError
        return await bill(connection, subscription, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(period.billing, "bill", bill_all_but_one)
        results = await period.close_due(world.services)
    assert sorted(type(result).__name__ for result in results) == ["Settled", "Unsettled"]
    assert len(await world.invoices(good)) == 2
    assert len(await world.invoices(broken)) == 1
    await world.close_due()
    assert len(await world.invoices(broken)) == 2


async def test_the_worker_closes_periods_until_it_is_told_to_stop(world: World) -> None:
    await metered(world)
    subscription = await world.subscribe("pro")
    world.clock.shows = billing.at("2026-12-20T10:00:00")
    stop = asyncio.Event()
    task = asyncio.create_task(worker.run(world.services, stop))

    async def invoiced() -> bool:
        assert not task.done()
        return len(await world.invoices(subscription)) == 2

    await waiting.until(invoiced)
    stop.set()
    await task


async def test_a_partition_whose_log_is_stuck_does_not_hold_up_the_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await metered(world)
    subscriptions = [await world.subscribe("pro") for _ in range(12)]
    world.clock.shows = billing.at("2026-12-20T10:00:00")
    monkeypatch.setattr(period, "CATCH_UP_S", 0.1)
    rolled_up_to = period.invoice_store.rolled_up_to

    async def stuck_in_partition_2(connection: postgres.Connection, partition: int) -> int:
        return 0 if partition == 2 else await rolled_up_to(connection, partition)

    with monkeypatch.context() as patch:
        patch.setattr(period.invoice_store, "rolled_up_to", stuck_in_partition_2)
        results = await period.close_due(world.services)
    places = {period.partition_of(world.services, world.tenant, result.period.customer_id) for result in results}
    assert places == {0, 1, 2, 3}
    for result in results:
        is_stuck = period.partition_of(world.services, world.tenant, result.period.customer_id) == 2
        assert isinstance(result, period.Unsettled) is is_stuck
    await world.close_due()
    assert [len(await world.invoices(subscription)) for subscription in subscriptions] == [2] * 12
