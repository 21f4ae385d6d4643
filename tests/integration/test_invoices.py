"""Subscriptions and invoices over HTTP: shapes, filters, refusals, other organizations, and the official client."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import commet
import pytest
from commet import types

from tallybook.core import ids
from tallybook.flows import test_clock
from tallybook.storage import postgres
from tallybook.storage.redis import Redis
from tests.support import api, billing, waiting
from tests.support.api import Api
from tests.support.billing import Json, World, line


@pytest.fixture
async def world(database: postgres.Pool, redis_client: Redis) -> AsyncGenerator[World]:
    async with billing.world(database, redis_client) as made:
        yield made


async def test_an_invoice_shows_every_field_of_the_wire(world: World) -> None:
    await world.plan("pro", 9900)
    subscription = await world.subscribe("pro")
    [invoice] = await world.invoices(subscription)
    [item] = invoice.pop("lineItems")
    assert invoice.pop("id").startswith("inv_")
    moment, end = "2026-11-20T09:00:00.000Z", "2026-12-20T09:00:00.000Z"
    assert invoice == {
        "object": "invoice",
        "livemode": False,
        "customerId": subscription["customerId"],
        "subscriptionId": subscription["id"],
        "invoiceNumber": "INV-000001",
        "status": "outstanding",
        "invoiceType": "recurring",
        "currency": "usd",
        "subtotal": 9900,
        "discountAmount": 0,
        "taxAmount": 0,
        "total": 9900,
        "periodStart": moment,
        "periodEnd": end,
        "issueDate": moment,
        "dueDate": moment,
        "memo": None,
        "metadata": {},
        "createdAt": moment,
        "updatedAt": moment,
        "creditApplied": 0,
        "planName": "Pro",
        "poNumber": None,
        "reference": None,
    }
    assert item == {
        "lineType": "plan_base",
        "featureName": None,
        "description": "Pro (month)",
        "quantity": 1,
        "unitAmount": 9900,
        "amount": 9900,
        "includedAmount": None,
        "usedAmount": None,
        "overageAmount": None,
        "discountType": None,
        "discountValue": None,
        "discountName": None,
        "chargeType": "advance",
    }


async def test_a_subscription_shows_every_field_of_the_wire(world: World) -> None:
    plan = await world.plan("pro", 9900)
    await world.feature("pro", "api_calls", includedAmount=1000, overage={"enabled": True, "unitPrice": 100})
    created = await world.subscribe("pro", name="Acme")
    await world.use(created["customer"], "api_calls", 1250)
    shown = await world.ask("GET", f"/subscriptions/{created['id']}")
    moment, end = "2026-11-20T09:00:00.000Z", "2026-12-20T09:00:00.000Z"
    common: Json = {
        "object": "subscription",
        "livemode": False,
        "id": created["id"],
        "customerId": created["customerId"],
        "name": "Acme",
        "description": None,
        "status": "active",
        "billingInterval": "monthly",
        "trialEndsAt": None,
        "currentPeriod": {"start": moment, "end": end, "daysRemaining": 30},
        "cancellation": None,
        "cancelAtPeriodEnd": False,
        "scheduledPlanChange": None,
        "startDate": moment,
        "endDate": None,
        "billingDayOfMonth": 20,
        "nextBillingDate": end,
        "checkoutUrl": None,
        "createdAt": moment,
        "updatedAt": moment,
        "offerApplications": [],
        "pause": None,
        "priceId": created["priceId"],
    }
    name = {"id": plan["id"], "name": "Pro"}
    assert created == {**common, "plan": name, "checkoutProvider": None, "customer": created["customer"]}
    assert (await world.ask("GET", "/subscriptions"))["data"] == [{**common, "plan": name}]
    usage = {"current": 1250, "included": 1000, "overageQuantity": 250, "overageUnitPrice": 100, "unlimited": False}
    assert shown == {
        **common,
        "plan": {**name, "basePrice": 9900},
        "consumptionModel": None,
        "features": [{"code": "api_calls", "name": "api_calls", "type": "usage", "usage": usage}],
        "credits": None,
        "balance": None,
    }


async def test_quantities_of_features_that_share_a_balance_come_from_the_book(world: World) -> None:
    await world.plan("payg", 1000, consumptionModel="balance")
    await world.feature("payg", "api_calls", overage={"unitPrice": 100})
    subscription = await world.subscribe("payg")
    await world.use(subscription["customer"], "api_calls", 7)
    path = f"/subscriptions/{subscription['id']}"

    async def booked() -> bool:
        return (await world.ask("GET", path))["features"][0]["usage"]["current"] == 7

    await waiting.until(booked)
    shown = await world.ask("GET", path)
    assert shown["balance"] == {"remaining": 99_300, "included": 100_000, "currency": "usd"}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"offerId": "off_1"}, "offerId"),
        ({"promoCode": "SAVE"}, "promoCode"),
        ({"initialSeats": {"seat": 3}}, "initialSeats"),
        ({"prepaidPeriods": 6}, "prepaidPeriods"),
        ({"cardPromotionId": "cp_1"}, "cardPromotionId"),
        ({"provider": "stripe"}, "provider"),
        ({"startDate": "2026-12-01"}, "startDate"),
        ({"startDate": "soon"}, "startDate"),
        ({"customTrialDays": 0}, "customTrialDays"),
        ({"customTrialDays": 7, "skipTrial": True}, "customTrialDays"),
        ({"billingInterval": "daily"}, "billingInterval"),
        ({"planId": "plan_1"}, "planCode"),
        ({"colour": "red"}, "colour"),
    ],
)
async def test_what_can_not_be_ordered_is_refused_by_name(world: World, fields: dict[str, Any], field: str) -> None:
    await world.plan("pro", 9900)
    order = {"customerId": await world.customer(), "planCode": "pro", **fields}
    answer = await world.api.send("POST", "/api/v1/subscriptions", order)
    assert (answer.status, answer.code, answer.body["error"]["param"]) == (400, "validation_error", field)
    assert (await world.ask("GET", "/subscriptions"))["data"] == []


async def test_orders_that_name_nothing_or_find_no_price_are_refused(world: World) -> None:
    await world.plan("pro", 9900)
    await world.plan("empty", None)
    customer = await world.customer()
    for order, expected in (
        ({"customerId": "nobody", "planCode": "pro"}, (404, "customer_not_found")),
        ({"customerId": customer, "planCode": "nothing"}, (404, "plan_not_found")),
        ({"customerId": customer, "planCode": "pro", "priceId": "price_0"}, (404, "price_not_found")),
        ({"customerId": customer, "planCode": "pro", "billingInterval": "yearly"}, (409, "no_prices_configured")),
        ({"customerId": customer, "planCode": "empty"}, (409, "no_prices_configured")),
        ({"customerId": customer}, (400, "validation_error")),
    ):
        assert await world.refused("POST", "/subscriptions", order) == expected


async def test_of_many_subscriptions_of_one_customer_at_once_one_is_made(world: World) -> None:
    await world.plan("pro", 9900)
    customer = await world.customer()
    order = {"customerId": customer, "planCode": "pro"}
    answers = await asyncio.gather(*(world.api.send("POST", "/api/v1/subscriptions", order) for _ in range(6)))
    assert sorted(answer.status for answer in answers) == [200, 409, 409, 409, 409, 409]
    assert len((await world.ask("GET", "/invoices"))["data"]) == 1


async def test_an_idempotency_key_makes_one_subscription_and_one_invoice(world: World) -> None:
    await world.plan("pro", 9900)
    order = {"customerId": await world.customer(), "planCode": "pro"}
    key = {"Idempotency-Key": ids.new("key")}
    answers = [await world.api.send("POST", "/api/v1/subscriptions", order, headers=key) for _ in range(2)]
    assert answers[0].body == answers[1].body
    assert len((await world.ask("GET", "/invoices"))["data"]) == 1


async def test_a_start_in_the_past_bills_the_cycle_that_runs_now(world: World) -> None:
    await world.plan("pro", 9900)
    subscription = await world.subscribe("pro", startDate="2026-01-31")
    [invoice] = await world.invoices(subscription)
    assert (invoice["periodStart"][:10], invoice["periodEnd"][:10]) == ("2026-10-31", "2026-11-30")
    assert await world.periods(subscription) == [("2026-10-31", "2026-11-30", "open")]


async def test_a_paid_plan_whose_price_is_zero_starts_without_an_invoice(world: World) -> None:
    await world.plan("beta", 0)
    subscription = await world.subscribe("beta")
    assert subscription["status"] == "active"
    assert await world.invoices(subscription) == []


async def test_lists_are_filtered_and_paged(world: World) -> None:
    await world.plan("pro", 9900)
    subscriptions = [await world.subscribe("pro") for _ in range(3)]
    await world.ask("POST", f"/subscriptions/{subscriptions[0]['id']}/cancel", {"immediate": True})

    async def listed(path: str, **params: str) -> list[str]:
        key = "subscriptionId" if path == "/invoices" else "id"
        return [item[key] for item in (await world.ask("GET", path, params=params))["data"]]

    one, two, three = (subscription["id"] for subscription in subscriptions)
    for path in ("/subscriptions", "/invoices"):
        assert await listed(path) == [three, two, one]
        assert await listed(path, customerId=subscriptions[1]["customer"]) == [two]
        page = await world.ask("GET", path, params={"limit": "2"})
        assert page["hasMore"]
        assert await listed(path, limit="2", cursor=page["nextCursor"]) == [one]
        assert await world.refused("GET", path, params={"customerId": "nobody"}) == (404, "customer_not_found")
    assert await listed("/subscriptions", status="canceled") == [one]
    assert await listed("/subscriptions", status="paused") == []
    assert await listed("/invoices", status="paid") == []
    assert await listed("/invoices", subscriptionId=two) == [two]
    assert await world.refused("GET", "/invoices", params={"subscriptionId": "sub_0"}) == (404, "subscription_not_found")
    assert await world.refused("GET", "/subscriptions", params={"status": "odd"}) == (400, "validation_error")


async def test_another_organization_finds_nothing(world: World) -> None:
    await world.plan("pro", 9900)
    subscription = await world.subscribe("pro")
    [invoice] = await world.invoices(subscription)
    stranger = Api(world.api.client, (await api.make_account(world.services.database)).key)
    subscription_path = f"/api/v1/subscriptions/{subscription['id']}"
    for method, path, body in (
        ("GET", subscription_path, None),
        ("POST", f"{subscription_path}/cancel", {}),
        ("POST", f"{subscription_path}/uncancel", None),
        ("POST", f"{subscription_path}/balance/adjust", {"amount": 1}),
    ):
        answer = await stranger.send(method, path, body)
        assert (answer.status, answer.code) == (404, "subscription_not_found")
    answer = await stranger.send("GET", f"/api/v1/invoices/{invoice['id']}")
    assert (answer.status, answer.code) == (404, "invoice_not_found")
    for path in ("subscriptions", "invoices"):
        assert (await stranger.send("GET", f"/api/v1/{path}")).body["data"] == []


async def test_what_was_announced_tells_the_same_as_the_invoice(world: World) -> None:
    await world.plan("pro", 9900)
    subscription = await world.subscribe("pro")
    [invoice] = await world.invoices(subscription)
    rows = await world.services.database.fetch("SELECT topic, payload FROM outbox WHERE tenant_id = $1", world.tenant.id)
    payloads = {row["topic"]: row["payload"] for row in rows}
    assert payloads["invoice.created"]["invoiceNumber"] == invoice["invoiceNumber"]
    assert payloads["invoice.created"]["customerId"] == subscription["customer"]
    assert payloads["subscription.activated"]["invoiceId"] == invoice["id"]
    assert payloads["subscription.activated"]["invoiceTotal"] == 9900
    assert payloads["subscription.created"]["subscriptionId"] == subscription["id"]


async def test_the_official_client_subscribes_bills_and_cancels(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.plan("pro", 9900)
    await world.feature("pro", "api_calls", includedAmount=1000, overage={"enabled": True, "unitPrice": 100})
    customer = await world.customer()
    monkeypatch.setattr("commet._http._BASE_URL", str(world.api.client.make_url("")).rstrip("/"))
    client = commet.Commet(world.account.key)

    def sell() -> types.CreatedSubscription:
        return client.subscriptions.create(customer_id=customer, plan_code="pro")

    created = await asyncio.to_thread(sell)
    assert (created.status, created.checkout_url) == (types.SubscriptionStatus.ACTIVE, None)
    await world.use(customer, "api_calls", 1500)
    run = await asyncio.to_thread(lambda: client.test_clock.advance(advance_days=31))
    assert run.status == "pending"
    await test_clock.carry_on(world.services)
    clock = await asyncio.to_thread(client.test_clock.get)
    assert clock.latest_run is not None
    assert [item.outcome for item in clock.latest_run.items] == ["invoiced"]
    listed = await asyncio.to_thread(lambda: client.invoices.list(customer_id=customer))
    assert [invoice.total for invoice in listed.data] == [10_400, 9900]
    latest = await asyncio.to_thread(lambda: client.invoices.get(listed.data[0].id))
    assert [item.line_type for item in latest.line_items] == ["plan_base", "feature_overage"]
    shown = await asyncio.to_thread(lambda: client.subscriptions.get(created.id))
    assert shown.current_period is not None
    assert await asyncio.to_thread(lambda: client.subscriptions.get_active(customer_id=customer)) == shown
    canceled = await asyncio.to_thread(lambda: client.subscriptions.cancel(created.id, reason="enough"))
    assert canceled.cancel_at_period_end
    kept = await asyncio.to_thread(lambda: client.subscriptions.uncancel(created.id))
    assert not kept.cancel_at_period_end
    assert [entry.id for entry in (await asyncio.to_thread(client.subscriptions.list)).data] == [created.id]
    with pytest.raises(commet.CommetError):
        await asyncio.to_thread(client.test_clock.process_billing)
    client.close()


async def test_overage_of_fractions_is_billed_exactly(world: World) -> None:
    await world.stand_at("2026-03-01")
    await world.plan("pro", 9900)
    await world.feature("pro", "api_calls", includedAmount=0, overage={"enabled": True, "unitPrice": 5000})
    subscription = await world.subscribe("pro")
    await world.use(subscription["customer"], "api_calls", 0.03)
    await world.advance_to("2026-04-01")
    overage = line((await world.invoices(subscription))[-1], "feature_overage")
    assert (overage["quantity"], overage["amount"]) == (0.03, 2)  # 1.5 cents go to the even neighbour
