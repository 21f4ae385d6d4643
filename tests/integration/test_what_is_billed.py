"""What an invoice bills is what the customer was shown, and overage that is on no invoice is accounted for."""

from collections.abc import AsyncGenerator

import pytest

from tallybook.flows import reconcile
from tallybook.storage import postgres
from tallybook.storage.redis import Redis
from tests.support import billing
from tests.support.billing import Json, World

_OVERAGE = "feature overage of closed periods = invoiced + waived (nano-units)"


@pytest.fixture
async def world(database: postgres.Pool, redis_client: Redis) -> AsyncGenerator[World]:
    await billing.forget_everything(database, redis_client)
    async with billing.world(database, redis_client) as made:
        yield made


async def shown(world: World, subscription: Json, feature: str = "api_calls") -> Json:
    found = await world.ask("GET", f"/feature-access/{feature}", params={"customerId": subscription["customer"]})
    return found["consumption"]


async def differing(world: World) -> set[str]:
    await world.caught_up()
    partitions = world.services.settings.partitions
    report = await reconcile.reconcile(world.services.database, world.services.redis, partitions)
    assert not report.differences
    return {one.what for one in report.sums if not one.is_equal}


async def decisions(world: World, subscription: Json) -> list[tuple[str, int]]:
    rows = await world.services.database.fetch(
        "SELECT d.verdict, d.overage_nano FROM overage_decisions AS d JOIN customers AS c ON c.id = d.customer_id "
        "WHERE c.external_id = $1 ORDER BY d.pool",
        subscription["customer"],
    )
    return [(row["verdict"], int(row["overage_nano"]) // 10**9) for row in rows]


# ── an allowance that was raised within the period ───────────────────────────────────────────────────────────────────


async def test_a_raised_allowance_is_billed_as_it_is_shown_although_no_event_followed(world: World) -> None:
    await world.stand_at("2026-01-31T10:00:00")
    await world.metered()
    subscription = await world.subscribe("pro")
    await world.use(subscription["customer"], "api_calls", 3000)
    await world.stand_at("2026-02-01T10:00:00")
    await world.ask("PATCH", "/plans/pro/features/api_calls", {"includedAmount": 2500})
    assert (await shown(world, subscription))["includedUnits"] == 2500
    await world.advance_to("2026-03-01T00:00:00")
    invoice = (await world.invoices(subscription))[-1]
    assert invoice["total"] == 9900 + 500
    assert "2,500 included" in billing.line(invoice, "feature_overage")["description"]
    assert await differing(world) == set()


async def test_a_raised_allowance_that_covers_everything_leaves_no_overage(world: World) -> None:
    await world.stand_at("2026-01-31T10:00:00")
    await world.metered()
    subscription = await world.subscribe("pro")
    await world.use(subscription["customer"], "api_calls", 3000)
    await world.stand_at("2026-02-01T10:00:00")
    await world.ask("PATCH", "/plans/pro/features/api_calls", {"includedAmount": 5000})
    await world.advance_to("2026-03-01T00:00:00")
    assert (await world.invoices(subscription))[-1]["total"] == 9900
    assert await decisions(world, subscription) == []
    assert await differing(world) == set()


async def test_a_pool_that_nothing_was_taken_from_stays_unopened_when_its_period_closes(world: World) -> None:
    await world.stand_at("2026-01-31T10:00:00")
    await world.metered()
    subscription = await world.subscribe("pro")
    await world.stand_at("2026-02-01T10:00:00")
    await world.ask("PATCH", "/plans/pro/features/api_calls", {"includedAmount": 5000})
    await world.advance_to("2026-03-01T00:00:00")
    await world.caught_up()
    pools = "SELECT count(*) FROM pool_balances AS p JOIN customers AS c ON c.id = p.customer_id WHERE c.external_id = $1"
    assert await world.services.database.fetchval(pools, subscription["customer"]) == 0


async def test_a_raise_after_the_period_has_ended_is_not_given_to_it(world: World) -> None:
    await world.metered()
    subscription = await world.subscribe("pro")
    await world.use(subscription["customer"], "api_calls", 3000)
    world.clock.shows = billing.at("2026-12-21T09:00:00")
    await world.ask("PATCH", "/plans/pro/features/api_calls", {"includedAmount": 5000})
    await world.close_due()
    assert [invoice["total"] for invoice in await world.invoices(subscription)] == [9900, 9900 + 2000]


# ── a code given anew ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_overage_of_a_feature_whose_code_was_given_to_another_one_is_billed(world: World) -> None:
    await world.stand_at("2026-01-31T10:00:00")
    await world.metered()
    subscription = await world.subscribe("pro")
    await world.use(subscription["customer"], "api_calls", 3000)
    await world.stand_at("2026-02-01T10:00:00")
    await world.ask("DELETE", "/plans/pro/features/api_calls")
    await world.ask("DELETE", "/features/api_calls")
    await world.feature("pro", "api_calls", includedAmount=10, overage={"enabled": True, "unitPrice": 300})
    await world.use(subscription["customer"], "api_calls", 11)
    await world.advance_to("2026-03-01T00:00:00")
    invoice = (await world.invoices(subscription))[-1]
    lines = [line["amount"] for line in invoice["lineItems"] if line["lineType"] == "feature_overage"]
    assert sorted(lines) == [3, 2000]
    assert await differing(world) == set()


# ── overage that is on no invoice ────────────────────────────────────────────────────────────────────────────────────

_DELETE_LINE = """
WITH gone AS (DELETE FROM invoice_lines WHERE line_type = 'feature_overage' RETURNING invoice_id, amount_cents)
UPDATE invoices SET total_cents = total_cents - gone.amount_cents FROM gone WHERE invoices.id = gone.invoice_id
"""
_TAMPERED = [
    _DELETE_LINE,
    "DELETE FROM overage_decisions",
    "UPDATE overage_decisions SET verdict = 'unlimited'",
    "UPDATE overage_decisions SET overage_nano = overage_nano - 1",
]


@pytest.mark.parametrize("statement", _TAMPERED)
async def test_closed_overage_that_is_neither_invoiced_nor_waived_is_a_difference(world: World, statement: str) -> None:
    await world.stand_at("2026-01-31T10:00:00")
    await world.metered()
    subscription = await world.subscribe("pro")
    await world.use(subscription["customer"], "api_calls", 3000)
    await world.advance_to("2026-03-01T00:00:00")
    assert await decisions(world, subscription) == [("billed", 2000)]
    assert await differing(world) == set()
    await world.services.database.execute(statement)
    assert await differing(world) == {_OVERAGE}


async def test_overage_of_an_unlimited_feature_is_waived_by_name(world: World) -> None:
    await world.stand_at("2026-01-31T10:00:00")
    await world.plan("pro")
    await world.feature("pro", "api_calls", unlimited=True)
    subscription = await world.subscribe("pro")
    await world.use(subscription["customer"], "api_calls", 7)
    await world.advance_to("2026-03-01T00:00:00")
    assert await decisions(world, subscription) == [("unlimited", 7)]
    assert (await world.invoices(subscription))[-1]["total"] == 9900
    assert await differing(world) == set()


# ── a clock that stands still ────────────────────────────────────────────────────────────────────────────────────────


async def test_a_worse_plan_waits_for_the_next_period_also_when_the_clock_stands_still(world: World) -> None:
    await world.stand_at("2026-01-31T10:00:00")
    await world.metered()
    subscription = await world.subscribe("pro")
    await world.use(subscription["customer"], "api_calls", 500)
    await world.ask("PATCH", "/plans/pro/features/api_calls", {"includedAmount": 10})
    await world.use(subscription["customer"], "api_calls", 1)
    assert (await shown(world, subscription))["includedUnits"] == 1000
    await world.advance_to("2026-03-01T00:00:00")
    assert (await world.invoices(subscription))[-1]["total"] == 9900
    assert (await shown(world, subscription))["includedUnits"] == 10


async def test_a_worse_overage_price_is_not_billed_to_a_begun_period_also_when_the_clock_stands_still(world: World) -> None:
    await world.stand_at("2026-01-31T10:00:00")
    await world.metered()
    subscription = await world.subscribe("pro")
    await world.use(subscription["customer"], "api_calls", 1500)
    await world.ask("PATCH", "/plans/pro/features/api_calls", {"overage": {"enabled": True, "unitPrice": 300}})
    await world.advance_to("2026-03-01T00:00:00")
    assert (await world.invoices(subscription))[-1]["total"] == 9900 + 500


async def test_a_plan_made_worse_before_a_subscription_begins_in_the_same_moment_is_what_it_begins_with(world: World) -> None:
    await world.stand_at("2026-01-31T10:00:00")
    await world.metered()
    await world.ask("PATCH", "/plans/pro/features/api_calls", {"includedAmount": 10})
    subscription = await world.subscribe("pro")
    assert (await shown(world, subscription))["includedUnits"] == 10


async def test_a_smaller_balance_waits_for_the_next_period_also_when_the_clock_stands_still(world: World) -> None:
    await world.stand_at("2026-01-31T10:00:00")
    plan = await world.plan("flex", None, consumptionModel="balance")
    price = await world.add_price(plan["id"], 5000, "monthly", includedBalance=100_000)
    await world.feature("flex", "exports", overage={"enabled": True, "unitPrice": 100})
    subscription = await world.subscribe("flex")
    await world.use(subscription["customer"], "exports", 1)
    await world.ask("PATCH", f"/plans/flex/prices/{price['id']}", {"includedBalance": 500})
    await world.use(subscription["customer"], "exports", 1)
    assert (await world.ask("GET", f"/subscriptions/{subscription['id']}"))["balance"]["remaining"] == 100_000 - 200
    await world.advance_to("2026-03-01T00:00:00")
    assert (await world.ask("GET", f"/subscriptions/{subscription['id']}"))["balance"]["remaining"] == 500


async def test_a_trial_keeps_the_balance_it_began_with_also_when_the_clock_stands_still(world: World) -> None:
    await world.stand_at("2026-01-31T10:00:00")
    plan = await world.plan("flex", None, consumptionModel="balance")
    price = await world.add_price(plan["id"], 5000, "monthly", includedBalance=100_000, trialDays=45)
    await world.feature("flex", "exports", overage={"enabled": True, "unitPrice": 100})
    subscription = await world.subscribe("flex")
    await world.ask("PATCH", f"/plans/flex/prices/{price['id']}", {"includedBalance": 500})
    await world.advance_to("2026-03-05T00:00:00")
    await world.use(subscription["customer"], "exports", 1)
    assert (await world.ask("GET", f"/subscriptions/{subscription['id']}"))["balance"]["remaining"] == 100_000 - 100
