"""Usage that arrives after its period was closed, and the total of a period set by hand: over HTTP, on real stores."""

from collections.abc import AsyncGenerator

import pytest

from tallybook.flows import reconcile
from tallybook.storage import postgres
from tallybook.storage.redis import Redis
from tests.support import api, billing
from tests.support.billing import Json, World, line

MARCH = {"periodStart": "2026-03-15T00:00:00.000Z", "periodEnd": "2026-04-15T00:00:00.000Z"}


@pytest.fixture
async def world(database: postgres.Pool, redis_client: Redis) -> AsyncGenerator[World]:
    async with billing.world(database, redis_client) as made:
        yield made


async def set_total(
    world: World, customer: str, value: float, key: str | None = None, reason: str | None = "recount"
) -> api.Answer:
    body = {"customerId": customer, "featureCode": "api_calls", "value": value, "reason": reason}
    return await world.api.send("PUT", "/api/v1/usage", body, headers={} if key is None else {"idempotency-key": key})


async def history(world: World) -> list[tuple[float, str | None]]:
    """What each correction took from the pool, in units, and why; oldest first."""
    await world.caught_up()
    rows = await world.services.database.fetch(
        "SELECT amount, reason FROM usage_events WHERE tenant_id = $1 AND kind = 2 ORDER BY accepted_at, seq, position",
        world.tenant.id,
    )
    return [(row["amount"] / 10**9, row["reason"]) for row in rows]


async def test_late_usage_is_on_the_next_invoice_which_names_where_it_belongs_and_the_issued_one_stays(world: World) -> None:
    """Mutants: the issued invoice is computed anew; late usage is dropped; the invoice does not say where it belongs."""
    await world.stand_at("2026-03-15")
    await world.metered()
    subscription = await world.subscribe("pro")
    customer = subscription["customer"]
    await world.use(customer, "api_calls", 1100)
    await world.advance_to("2026-04-16")
    issued = await world.invoices(subscription)
    late = await world.use(customer, "api_calls", 700.5, timestamp="2026-04-10T00:00:00Z")
    await world.use(customer, "api_calls", 800, timestamp="2026-04-15T12:00:00Z")
    shown = await world.ask("GET", f"/usage/events/{late['id']}")
    assert (shown["periodStart"], shown["belongsTo"]) == ("2026-04-15T00:00:00.000Z", "2026-04-10T00:00:00.000Z")
    await world.advance_to("2026-05-16")
    invoices = await world.invoices(subscription)
    assert invoices[: len(issued)] == issued
    assert [invoice["total"] for invoice in invoices] == [9900, 9900 + 100, 9900 + 500]
    assert line(invoices[2], "feature_overage")["usedAmount"] == 1500.5
    assert [invoice["metadata"] for invoice in invoices] == [
        {},
        {},
        {"lateUsage": [{"featureCode": "api_calls", **MARCH, "events": 1, "quantity": 700.5}]},
    ]
    report = await reconcile.reconcile(world.services.database, world.services.redis, api.PARTITIONS)
    assert report.is_clean, report


async def test_late_usage_that_was_taken_back_is_not_named(world: World) -> None:
    """Mutant: the invoice counts late events without their voids."""
    await world.stand_at("2026-03-15")
    await world.metered()
    subscription = await world.subscribe("pro")
    await world.advance_to("2026-04-16")
    kept, taken = [
        await world.use(subscription["customer"], "api_calls", 600, timestamp="2026-04-10T00:00:00Z") for _ in range(2)
    ]
    await world.ask("POST", f"/usage/events/{taken['id']}/void", {"reason": "twice"})
    await world.advance_to("2026-05-16")
    last = (await world.invoices(subscription))[-1]
    assert kept["id"] != taken["id"]
    assert (last["total"], last["metadata"]["lateUsage"][0]["events"], last["metadata"]["lateUsage"][0]["quantity"]) == (
        9900,
        1,
        600,
    )


async def test_usage_from_before_the_subscription_is_named_without_a_period(world: World) -> None:
    """Mutant: usage that no period holds is lost from the invoice's word about late usage."""
    await world.stand_at("2026-03-15")
    await world.metered()
    subscription = await world.subscribe("pro")
    await world.use(subscription["customer"], "api_calls", 5, timestamp="2026-03-10T00:00:00Z")
    await world.advance_to("2026-04-16")
    last = (await world.invoices(subscription))[-1]
    assert last["metadata"] == {
        "lateUsage": [{"featureCode": "api_calls", "periodStart": None, "periodEnd": None, "events": 1, "quantity": 5}]
    }


async def test_each_correction_leaves_a_row_with_its_reason(world: World) -> None:
    """Mutants: the reason is not stored; a correction overwrites the one before."""
    await world.metered()
    subscription = await world.subscribe("pro")
    customer = subscription["customer"]
    await world.use(customer, "api_calls", 100)
    for value, reason in ((40, "recount"), (70.5, None), (70.5, "again")):
        answer = await set_total(world, customer, value, reason=reason)
        assert answer.status == 200, answer
    assert await history(world) == [(-60, "recount"), (30.5, None), (0, "again")]
    access: Json = await world.ask("GET", "/feature-access/api_calls", params={"customerId": customer})
    assert access["consumption"]["unitsUsed"] == 70.5
    report = await reconcile.reconcile(world.services.database, world.services.redis, api.PARTITIONS)
    assert report.is_clean, report


async def test_a_correction_is_made_once_for_its_key_also_after_more_usage(world: World) -> None:
    """Mutant: the repeat sets the total again and so takes back what was used in between."""
    await world.metered()
    customer = (await world.subscribe("pro"))["customer"]
    await world.use(customer, "api_calls", 100)
    first = await set_total(world, customer, 40, "set-1")
    await world.use(customer, "api_calls", 7)
    again = await set_total(world, customer, 40, "set-1")
    assert (again.status, again.body) == (200, first.body)
    other = await set_total(world, customer, 41, "set-1")
    assert (other.status, other.code) == (409, "idempotency_key_mismatch")
    access: Json = await world.ask("GET", "/feature-access/api_calls", params={"customerId": customer})
    assert access["consumption"]["unitsUsed"] == 47
    assert await history(world) == [(-60, "recount")]
