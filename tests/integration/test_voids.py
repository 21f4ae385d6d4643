"""Taking one event back, over HTTP and on real stores: where its amount goes, what the sums say, and that it happens once.

Each test names the mutant that it kills.
"""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from tallybook.core.usage_log import Kind
from tallybook.flows import reconcile
from tallybook.rollup import events
from tallybook.storage import postgres
from tallybook.storage.redis import Redis
from tests.support import api, billing
from tests.support.api import Api
from tests.support.billing import Json, World, line

REASON = {"reason": "sent for the wrong customer"}


@pytest.fixture
async def world(database: postgres.Pool, redis_client: Redis) -> AsyncGenerator[World]:
    async with billing.world(database, redis_client) as made:
        yield made


async def void(world: World, event: Json, *, status: int = 200) -> Json:
    return await world.ask("POST", f"/usage/events/{event['id']}/void", REASON, status=status)


async def sums_agree(world: World) -> None:
    await world.caught_up()
    report = await reconcile.reconcile(world.services.database, world.services.redis, api.PARTITIONS)
    assert report.is_clean, report


async def used(world: World, customer: str, feature: str = "api_calls") -> float:
    return (await world.ask("GET", f"/feature-access/{feature}", params={"customerId": customer}))["consumption"]["unitsUsed"]


async def totals(world: World, customer_of: Json) -> tuple[int, int, int]:
    """events, quantity and amount of the customer's hourly totals, summed."""
    await world.caught_up()
    row = await world.services.database.fetchrow(
        "SELECT sum(h.events)::bigint AS events, sum(h.quantity_nano)::bigint AS quantity, sum(h.amount)::bigint AS amount "
        "FROM usage_hourly AS h JOIN customers AS c ON c.id = h.customer_id WHERE c.external_id = $1 AND h.tenant_id = $2",
        customer_of["customer"],
        world.tenant.id,
    )
    assert row is not None
    return row["events"], row["quantity"], row["amount"]


async def test_a_void_gives_units_back_and_the_event_stays_with_its_reason(world: World) -> None:
    """Mutants: the row is deleted; the pool is not refunded; the hourly totals keep the event."""
    await world.metered()
    subscription = await world.subscribe("pro")
    customer = subscription["customer"]
    kept, taken = await world.use(customer, "api_calls", 30), await world.use(customer, "api_calls", 12.5)
    done = await void(world, taken)
    assert (done["id"], done["value"], done["void"]["reason"]) == (taken["id"], 12.5, REASON["reason"])
    assert await used(world, customer) == 30
    assert await totals(world, subscription) == (1, 30 * 10**9, 30 * 10**9)
    shown = await world.ask("GET", f"/usage/events/{taken['id']}")
    assert shown == done
    assert (await world.ask("GET", f"/usage/events/{kept['id']}"))["void"] is None
    rows = await world.services.database.fetch(
        "SELECT kind, quantity_nano, reason FROM usage_events WHERE event_id = $1 AND tenant_id = $2 ORDER BY seq",
        taken["eventId"],
        world.tenant.id,
    )
    assert [(row["kind"], row["quantity_nano"], row["reason"]) for row in rows] == [
        (Kind.USAGE, 12_500_000_000, None),
        (Kind.VOID, -12_500_000_000, REASON["reason"]),
    ]
    await sums_agree(world)


async def test_plan_credits_and_purchased_ones_each_get_their_own_part_back(world: World) -> None:
    """Mutant: the whole amount goes to the plan's pool."""
    await world.plan("studio", 1000, consumptionModel="credits", price_includedCredits=100)
    await world.feature("studio", "images", creditsPerUnit=10)
    subscription = await world.subscribe("studio")
    await world.ask("POST", f"/subscriptions/{subscription['id']}/balance/adjust", {"amount": 50, "reason": "gift"})
    await world.use(subscription["customer"], "images", 7)
    mixed = await world.use(subscription["customer"], "images", 5)
    assert mixed["consumption"]["remaining"] == 30
    done = await void(world, mixed)
    assert done["consumption"] == {"model": "credits", "deducted": 50, "remaining": 30}
    shown = await world.ask("GET", f"/subscriptions/{subscription['id']}")
    assert shown["credits"] == {"remaining": 30, "included": 100, "purchased": 50}
    await sums_agree(world)


async def test_an_overdrawn_balance_is_not_billed_for_what_was_taken_back(world: World) -> None:
    """Mutant: a void leaves `charged` of the pool, which the invoice is made from."""
    await world.stand_at("2026-03-01")
    await world.plan("payg", 1000, consumptionModel="balance", price_includedBalance=100_000)
    await world.feature("payg", "api_calls", overage={"unitPrice": 100})
    subscription = await world.subscribe("payg")
    await world.use(subscription["customer"], "api_calls", 1100)
    await void(world, await world.use(subscription["customer"], "api_calls", 500))
    await world.advance_to("2026-04-01")
    last = (await world.invoices(subscription))[-1]
    assert (line(last, "balance_overage")["amount"], last["total"]) == (100, 1100)
    await sums_agree(world)


async def test_a_void_is_made_once(world: World) -> None:
    """Mutants: no check in the book; no identity in the till."""
    await world.metered()
    subscription = await world.subscribe("pro")
    event = await world.use(subscription["customer"], "api_calls", 10)
    answers = await asyncio.gather(
        *(world.api.send("POST", f"/api/v1/usage/events/{event['id']}/void", REASON) for _ in range(5))
    )
    assert sorted(answer.status for answer in answers) == [200, 409, 409, 409, 409]
    assert {answer.code for answer in answers if answer.status == 409} == {"already_voided"}
    await world.caught_up()
    await world.forget_ids()
    assert (await void(world, event, status=409))["error"]["code"] == "already_voided"
    assert await used(world, subscription["customer"]) == 0
    assert await totals(world, subscription) == (0, 0, 0)
    await sums_agree(world)


@pytest.mark.parametrize("memory", ["till", "book"])
async def test_a_repeat_with_the_same_key_is_the_same_void_even_when_its_answer_was_never_stored(
    world: World, monkeypatch: pytest.MonkeyPatch, memory: str
) -> None:
    """Mutants: only the stored response knows the key, so a crash between till and commit turns a success into a conflict."""

    async def not_there_yet(*_arguments: object) -> None:
        return

    await world.metered()
    subscription = await world.subscribe("pro")
    event = await world.use(subscription["customer"], "api_calls", 10)
    path, key = f"/api/v1/usage/events/{event['id']}/void", {"idempotency-key": "void-1"}
    first = await world.api.send("POST", path, REASON, headers=key)
    await world.services.database.execute("DELETE FROM idempotency_keys")
    if memory == "book":
        await world.caught_up()
        await world.forget_ids()
    else:
        monkeypatch.setattr(events, "void_of", not_there_yet)
    again = await world.api.send("POST", path, REASON, headers=key)
    assert (again.status, again.body) == (200, first.body)
    await world.services.database.execute("DELETE FROM idempotency_keys")
    other = await world.api.send("POST", path, REASON, headers={"idempotency-key": "void-2"})
    assert (other.status, other.code) == (409, "already_voided")
    assert await used(world, subscription["customer"]) == 0


async def test_an_event_of_another_organization_or_of_nobody_is_not_found(world: World) -> None:
    """Mutant: the tenant is left out of the query."""
    await world.metered()
    subscription = await world.subscribe("pro")
    event = await world.use(subscription["customer"], "api_calls", 10)
    stranger = Api(world.api.client, (await api.make_account(world.services.database)).key)
    for caller, name in ((stranger, event["id"]), (world.api, "evt_" + "0" * 32), (world.api, "evt_zz"), (world.api, "x")):
        for method, path, body in (("GET", "", None), ("POST", "/void", REASON)):
            answer = await caller.send(method, f"/api/v1/usage/events/{name}{path}", body)
            assert (answer.status, answer.code) == (404, "usage_event_not_found")
    assert await used(world, subscription["customer"]) == 10


async def test_a_correction_is_no_usage_event(world: World) -> None:
    """Mutant: any row of the book may be voided by its id."""
    await world.metered()
    subscription = await world.subscribe("pro")
    set_to = await world.ask("PUT", "/usage", {"customerId": subscription["customer"], "featureCode": "api_calls", "value": 5})
    assert (await void(world, set_to, status=404))["error"]["code"] == "usage_event_not_found"


async def test_an_event_of_a_closed_period_comes_off_the_open_one_and_the_invoice_stays(world: World) -> None:
    """Mutants: the closed pool is opened anew; the issued invoice or the closed period's totals change."""
    await world.stand_at("2026-03-01")
    await world.metered()
    subscription = await world.subscribe("pro")
    customer = subscription["customer"]
    event = await world.use(customer, "api_calls", 1600)
    await world.advance_to("2026-04-02")
    before = await world.invoices(subscription)
    assert [invoice["total"] for invoice in before] == [9900, 9900 + 600]
    await void(world, event)
    await world.use(customer, "api_calls", 3000)
    assert await used(world, customer) == 1400
    await world.advance_to("2026-05-02")
    after = await world.invoices(subscription)
    assert after[:2] == before
    assert after[2]["total"] == 9900 + 400
    rows = await world.services.database.fetch(
        "SELECT to_char(period_start, 'YYYY-MM') AS period, sum(events)::int AS events, (sum(quantity_nano) / 1000000000)::int AS units "
        "FROM usage_hourly WHERE tenant_id = $1 GROUP BY 1 ORDER BY 1",
        world.tenant.id,
    )
    assert [(row["period"], row["events"], row["units"]) for row in rows] == [("2026-03", 1, 1600), ("2026-04", 0, 1400)]
    taken_back = await world.services.database.fetchrow(
        "SELECT belongs_to FROM usage_events WHERE tenant_id = $1 AND kind = 5", world.tenant.id
    )
    assert taken_back is not None
    assert f"{taken_back['belongs_to']:%Y-%m-%d}" == "2026-03-01"
    await sums_agree(world)


async def test_without_an_open_period_nothing_can_be_given_back(world: World) -> None:
    """Mutant: the pool of an ended subscription comes to life again."""
    await world.metered()
    subscription = await world.subscribe("pro")
    event = await world.use(subscription["customer"], "api_calls", 10)
    await world.ask("POST", f"/subscriptions/{subscription['id']}/cancel", {"immediate": True})
    assert (await void(world, event, status=409))["error"]["code"] == "no_open_period"
    await sums_agree(world)


async def test_an_event_can_be_taken_back_as_soon_as_it_was_answered(world: World) -> None:
    """Mutant: an event that the book has not read yet is not found."""
    await world.metered()
    subscription = await world.subscribe("pro")
    for _ in range(10):
        await void(world, await world.use(subscription["customer"], "api_calls", 10))
    assert await used(world, subscription["customer"]) == 0


async def test_the_id_of_an_event_that_was_taken_back_is_not_free_again(world: World) -> None:
    """Mutant: a void frees the identity, and a client's late retry is counted."""
    await world.metered()
    subscription = await world.subscribe("pro")
    event = await world.use(subscription["customer"], "api_calls", 10)
    await void(world, event)
    again = await world.use(subscription["customer"], "api_calls", 10, eventId=event["eventId"], status=409)
    assert again["error"]["code"] == "duplicate"
    assert await used(world, subscription["customer"]) == 0


@pytest.mark.parametrize("body", [{}, {"reason": ""}, {"reason": "x" * 501}, {"reason": "a\0b"}, {"reason": 5}, {"because": "x"}])
async def test_a_void_without_a_reason_that_can_be_kept_is_refused(world: World, body: Json) -> None:
    """Mutant: the reason is optional or unbounded."""
    await world.metered()
    subscription = await world.subscribe("pro")
    event = await world.use(subscription["customer"], "api_calls", 10)
    assert await world.refused("POST", f"/usage/events/{event['id']}/void", body) == (400, "validation_error")
