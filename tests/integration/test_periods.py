"""Usage periods on real stores, over HTTP: what a boundary of each interval bills, and what is granted anew."""

from collections.abc import AsyncGenerator

import pytest

from tallybook.storage import postgres, queries
from tallybook.storage.redis import Redis
from tests.support import billing
from tests.support.billing import World, line


@pytest.fixture
async def world(database: postgres.Pool, redis_client: Redis) -> AsyncGenerator[World]:
    async with billing.world(database, redis_client) as made:
        yield made


async def test_a_month_bills_its_base_in_advance_and_its_overage_afterwards(world: World) -> None:
    await world.stand_at("2026-01-31T10:00:00")
    await world.metered()
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


async def test_looking_for_what_has_ended_costs_the_same_however_many_periods_are_open(world: World) -> None:
    """It is looked for several times a second. Mutant: all open periods are read and compared with their tenants' clocks."""
    statement = queries.load("tallybook.subscriptions")["due_periods"]
    async with world.services.database.acquire() as connection, connection.transaction():
        await connection.execute("SET LOCAL enable_seqscan = off")
        rows = await connection.fetch(f"EXPLAIN (COSTS OFF) {statement}", world.services.clock(), 100, None)
    plan = "\n".join(row[0] for row in rows)
    assert "billing_periods_closing" in plan
    assert "Index Cond: ((tenant_id = clocks.id) AND (ends_at <=" in plan


async def test_a_shorter_run_that_reaches_no_boundary_bills_nothing(world: World) -> None:
    await world.stand_at("2026-01-31T10:00:00")
    await world.metered()
    subscription = await world.subscribe("pro")
    run = await world.advance_to("2026-02-28T09:59:59")
    assert (run["estimatedDeadlineCount"], run["items"]) == (0, [])
    assert len(await world.invoices(subscription)) == 1


async def test_a_subscription_from_31_january_renews_on_the_last_day_of_short_months(world: World) -> None:
    await world.stand_at("2028-01-31")
    await world.metered()
    subscription = await world.subscribe("pro")
    await world.advance_to("2028-05-01")
    starts = [invoice["periodStart"][:10] for invoice in await world.invoices(subscription)]
    assert starts == ["2028-01-31", "2028-02-29", "2028-03-31", "2028-04-30"]


async def test_between_renewals_of_a_yearly_price_only_overage_is_invoiced(world: World) -> None:
    await world.stand_at("2026-03-15")
    await world.metered("yearly", 89_900)
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
    await world.metered("weekly", 2500)
    subscription = await world.subscribe("pro")
    await world.advance_to("2026-03-16")
    assert [invoice["periodEnd"][:10] for invoice in await world.invoices(subscription)] == [
        "2026-03-09",
        "2026-03-16",
        "2026-03-23",
    ]


async def test_a_one_time_price_is_billed_once_and_overage_goes_on(world: World) -> None:
    await world.stand_at("2026-03-15")
    await world.metered("one_time", 29_900)
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
    assert await world.refused("POST", plain, {"amount": -106}) == (402, "insufficient_credits")
    assert await world.refused("POST", plain, {"amount": 0}) == (400, "validation_error")
    assert await world.refused("POST", plain, {"amount": 10**15}) == (400, "validation_error")
    assert await world.refused("POST", plain, {"amount": 1, "type": "balance"}) == (400, "validation_error")
    other = await world.subscribe("pro")
    assert await world.refused("POST", f"/subscriptions/{other['id']}/balance/adjust", {"amount": 1}) == (400, "validation_error")
    await world.ask("POST", f"/subscriptions/{subscription['id']}/cancel", {"immediate": True})
    assert await world.refused("POST", plain, {"amount": 1}) == (409, "subscription_not_active")


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
    await world.metered()
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
