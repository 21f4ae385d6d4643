"""Clients 5.5 and 7.10 as they speak on the wire: each request below is one that they send, each field one that they read.

Both were run against the service when this was written; they are not installed for the tests.
"""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any

import pytest

from tallybook.storage import postgres
from tallybook.storage.redis import Redis
from tests.support import billing
from tests.support.billing import Json, World

V5_5 = "2026-05-25"
V7_10 = "2026-07-11"


@pytest.fixture
async def world(database: postgres.Pool, redis_client: Redis) -> AsyncGenerator[World]:
    async with billing.world(database, redis_client) as made:
        await made.metered()
        yield made


async def older(
    world: World, version: str, method: str, path: str, body: object = None, *, key: str | None = None, **params: str
) -> Any:  # noqa: ANN401 - JSON
    """What a client of a version reads of an answer that it takes for a success."""
    headers = {"commet-version": version} | ({} if key is None else {"Idempotency-Key": key})
    answer = await world.api.send(method, f"/api/v1{path}", body, headers=headers, params=params)
    assert (answer.status, answer.body.get("success")) == (200, True), (method, path, answer)
    return answer.body["data"]


async def test_customers_of_5_5_have_a_billing_email(world: World) -> None:
    made = await older(world, V5_5, "POST", "/customers", {"billingEmail": "a@b.co", "id": "old_1", "metadata": {"n": 0.1}})
    assert (made["billingEmail"], made["metadata"]) == ("a@b.co", {"n": 0.1})
    changed = await older(world, V5_5, "PUT", "/customers/old_1", {"billingEmail": "c@d.co", "fullName": "Ada"})
    assert (changed["billingEmail"], changed["fullName"]) == ("c@d.co", "Ada")
    assert (await older(world, V5_5, "GET", "/customers"))[0]["billingEmail"] == "c@d.co"
    batch = {"customers": [{"billingEmail": "x@b.co", "id": "old_2"}, {"billingEmail": "nope", "id": "old_3"}]}
    created = await older(world, V5_5, "POST", "/customers/batch", batch)
    assert ([one["billingEmail"] for one in created["successful"]], [one["index"] for one in created["failed"]]) == (
        ["x@b.co"],
        [1],
    )


@pytest.mark.parametrize("version", [V5_5, V7_10])
async def test_features_and_plans_are_managed_under_their_older_paths(world: World, version: str) -> None:
    code, plan = f"scans_{version[5:7]}", f"flex_{version[5:7]}"
    await older(world, version, "POST", "/features/manage", {"name": "Scans", "code": code, "type": "usage"})
    assert (await older(world, version, "PUT", f"/features/{code}/manage", {"name": "Scan"}))["name"] == "Scan"
    await older(world, version, "POST", "/plans/manage", {"name": "Flex", "code": plan, "consumptionModel": "metered"})
    assert (await older(world, version, "PUT", f"/plans/{plan}/manage", {"description": "d"}))["description"] == "d"
    price = await older(world, version, "POST", f"/plans/{plan}/prices", {"billingInterval": "monthly", "price": 100})
    assert (await older(world, version, "PUT", f"/plans/{plan}/prices/{price['id']}", {"price": 200}))["price"] == 200
    await older(world, version, "POST", f"/plans/{plan}/features", {"featureId": code, "includedAmount": 3})
    assert (await older(world, version, "PUT", f"/plans/{plan}/features/{code}", {"includedAmount": 4}))["includedAmount"] == 4
    assert (await older(world, version, "DELETE", f"/plans/{plan}/features/{code}"))["removed"] is True
    assert (await older(world, version, "DELETE", f"/features/{code}/manage"))["deleted"] is True
    assert (await older(world, version, "DELETE", f"/plans/{plan}/manage"))["deleted"] is True


async def test_overage_of_5_5_stands_flat_in_a_plans_feature(world: World) -> None:
    await world.ask("POST", "/features", {"name": "Scans", "code": "flat_scans", "type": "usage"})
    wanted = {"featureId": "flat_scans", "overageEnabled": True, "overageUnitPrice": 100}
    added = await older(world, V5_5, "POST", "/plans/pro/features", wanted)
    assert (added["overageEnabled"], added["overageUnitPrice"], added["overage"]) == (
        True,
        100,
        {"enabled": True, "unitPrice": 100},
    )
    changed = await older(world, V5_5, "PUT", "/plans/pro/features/flat_scans", {"overageUnitPrice": 200})
    assert (changed["overageEnabled"], changed["overageUnitPrice"]) == (True, 200)


async def test_a_new_subscription_of_5_5_has_its_plan_and_period_flat(world: World) -> None:
    customer = await world.customer()
    made = await older(world, V5_5, "POST", "/subscriptions", {"customerId": customer, "planCode": "pro"})
    assert (made["planId"], made["planName"]) == (made["plan"]["id"], made["plan"]["name"])
    assert made["currentPeriodStart"] == made["currentPeriod"]["start"]
    assert (await older(world, V5_5, "GET", "/subscriptions"))[0]["planName"] == made["planName"]


async def test_features_with_a_customer_are_its_access_for_5_5_only(world: World) -> None:
    customer = (await world.subscribe("pro"))["customer"]
    await world.use(customer, "api_calls", 1200)
    [listed] = await older(world, V5_5, "GET", "/features", customerId=customer)
    got = await older(world, V5_5, "GET", "/features/api_calls", customerId=customer)
    assert listed.items() <= got.items()
    shown = [
        got[name] for name in ("current", "included", "remaining", "overage", "overageUnitPrice", "overageEnabled", "unlimited")
    ]
    assert shown == [1200, 1000, 0, 200, 100, True, False]
    asked = await older(world, V5_5, "GET", "/features/api_calls", customerId=customer, action="canUse")
    assert (asked["allowed"], asked["willBeCharged"]) == (True, True)
    assert "createdAt" in await older(world, V7_10, "GET", "/features/api_calls")
    assert await world.refused("GET", "/features", params={"customerId": customer}) == (400, "validation_error")


async def test_access_of_7_10_is_flat_too(world: World) -> None:
    customer = (await world.subscribe("pro"))["customer"]
    got = await older(world, V7_10, "GET", "/feature-access/api_calls", customerId=customer, action="canUse")
    assert (got["current"], got["remaining"], got["overageQuantity"], got["willBeCharged"]) == (0, 1000, 0, False)


def stamped(customer: str, seconds: int, **fields: object) -> Json:
    """An event as 5.5 and 7.10 write it: dated with the moment it is sent, by them."""
    sent_at = datetime(2026, 11, 20, 8, 59, seconds, tzinfo=UTC)
    return {"feature": "api_calls", "customerId": customer, "timestamp": sent_at.isoformat(), **fields}


@pytest.mark.parametrize("version", [V5_5, V7_10])
async def test_an_event_that_is_sent_again_later_with_its_key_is_the_same_event(world: World, version: str) -> None:
    customer = (await world.subscribe("pro"))["customer"]
    first = await older(world, version, "POST", "/usage/events", stamped(customer, 1, value=2, idempotencyKey="e1"), key="e1")
    again = await older(world, version, "POST", "/usage/events", stamped(customer, 7, value=2, idempotencyKey="e1"), key="e1")
    assert (first["feature"], first["idempotencyKey"], again["id"]) == ("api_calls", "e1", first["id"])
    checked = await older(
        world, version, "POST", "/usage/check", {"customerId": customer, "featureCode": "api_calls", "quantity": 1}
    )
    assert (checked["feature"], checked["current"]) == ("api_calls", 2)


async def test_another_value_with_the_same_key_is_still_a_conflict(world: World) -> None:
    customer = (await world.subscribe("pro"))["customer"]
    headers = {"commet-version": V7_10, "Idempotency-Key": "e2"}
    statuses = [
        (await world.api.send("POST", "/api/v1/usage/events", stamped(customer, 1, value=value), headers=headers)).status
        for value in (2, 3)
    ]
    assert statuses == [200, 409]


async def test_a_newer_client_that_dates_an_event_anew_says_another_event(world: World) -> None:
    customer = (await world.subscribe("pro"))["customer"]
    events = [stamped(customer, seconds, value=2, eventId="dated") for seconds in (1, 2)]
    answers = [await world.api.send("POST", "/api/v1/usage/events", event) for event in events]
    assert [answer.status for answer in answers] == [200, 409]
    assert answers[1].code == "conflict"


async def test_a_total_is_set_with_the_key_in_the_body(world: World) -> None:
    customer = (await world.subscribe("pro"))["customer"]
    wanted = {"customerId": customer, "feature": "api_calls", "value": 5, "idempotencyKey": "s1"}
    first = await older(world, V7_10, "PUT", "/usage", wanted, key="s1")
    await world.use(customer, "api_calls", 1)
    assert (first["feature"], first["idempotencyKey"], first["previousValue"]) == ("api_calls", "s1", 0)
    assert await older(world, V7_10, "PUT", "/usage", wanted) == first


async def test_newer_clients_never_see_what_is_for_older_ones(world: World) -> None:
    customer = (await world.subscribe("pro"))["customer"]
    for method, path in (("POST", "/features/manage"), ("PUT", f"/customers/{customer}"), ("DELETE", "/plans/pro/manage")):
        status, code = await world.refused(method, path, {})
        assert (status, code) in ((405, "method_not_allowed"), (404, "not_found")), (method, path)
    put = await world.api.send("PUT", f"/api/v1/customers/{customer}", {})
    assert "PUT" not in put.headers["Allow"]
    assert await world.refused("POST", "/customers", {"billingEmail": "a@b.co"}) == (400, "validation_error")
    assert "billingEmail" not in await world.ask("GET", f"/customers/{customer}")
    assert "feature" not in await world.use(customer, "api_calls")


async def test_an_older_name_beside_todays_is_refused(world: World) -> None:
    both = {"billingEmail": "a@b.co", "email": "c@d.co"}
    answer = await world.api.send("POST", "/api/v1/customers", both, headers={"commet-version": V5_5})
    assert (answer.status, answer.body["error"]["param"]) == (400, "billingEmail")


async def test_a_write_that_is_repeated_under_its_older_path_is_done_once(world: World) -> None:
    body = {"name": "Once", "code": "once", "consumptionModel": "metered"}
    made = await older(world, V7_10, "POST", "/plans/manage", body, key="plan-once")
    assert await older(world, V7_10, "POST", "/plans/manage", body, key="plan-once") == made
