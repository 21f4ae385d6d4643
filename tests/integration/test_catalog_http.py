"""Customers, features and plans over HTTP, by hand and by the official client."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer
from commet import AsyncCommet, CommetAPIError, CommetValidationError
from commet.types import BillingInterval

from tallybook import app
from tallybook.core.clock import real_clock
from tallybook.entrypoints.http import routing, server
from tallybook.entrypoints.http.resources import customers, features, plans
from tallybook.settings import Settings
from tallybook.storage import postgres
from tallybook.tenancy import actions as tenancy

PLAIN = {"commet-version": "2026-08-27"}
OPERATIONS = routing.collect((customers, features, plans))


@pytest.fixture(scope="module")
async def running(postgres_url: str, redis_url: str) -> AsyncIterator[tuple[str, str]]:
    """The URL of a server on real stores, and the text of a sandbox key."""
    settings = Settings(postgres_url=postgres_url, redis_url=redis_url, partitions=4)
    async with app.services(settings, name="test") as services:
        async with postgres.transaction(services.database) as connection:
            _, sandbox = await tenancy.create_organization(connection, "Acme")
            key = await tenancy.create_api_key(connection, sandbox, real_clock(), "test")
        started = TestServer(server.make_application(services, OPERATIONS))
        await started.start_server()
        yield str(started.make_url("")).rstrip("/"), key.text
        await started.close()


@pytest.fixture
async def http(running: tuple[str, str]) -> AsyncIterator[ClientSession]:
    url, key = running
    async with ClientSession(url, headers={"x-api-key": key, **PLAIN}) as client:
        yield client


@pytest.fixture
async def commet(running: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AsyncCommet]:
    """The official client, unmodified but for its base URL."""
    url, key = running
    monkeypatch.setattr("commet._async_http._BASE_URL", url)
    async with AsyncCommet(key) as client:
        yield client


async def send(http: ClientSession, method: str, path: str, body: object = None) -> tuple[int, Any]:
    async with http.request(method, f"/api/v1{path}", json=body) as response:
        return response.status, await response.json()


async def refused(http: ClientSession, method: str, path: str, body: object = None) -> tuple[int, str, str | None]:
    status, answer = await send(http, method, path, body)
    return status, answer["error"]["code"], answer["error"]["param"]


async def add_plan(http: ClientSession, code: str, **fields: object) -> Mapping[str, Any]:
    status, plan = await send(http, "POST", "/plans", {"name": code.title(), "code": code, **fields})
    assert status == 200
    return plan


async def add_feature(http: ClientSession, code: str, kind: str = "usage") -> None:
    status, _ = await send(http, "POST", "/features", {"name": code, "code": code, "type": kind})
    assert status == 200


# ── the official client ──────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_official_client_works_with_customers(commet: AsyncCommet) -> None:
    made = await commet.customers.create(
        email="ada@example.com",
        id="sdk_1",
        full_name="Ada",
        tax_document="DE1",
        metadata={"tier": "gold"},
        timezone="Europe/Berlin",  # pyright: ignore[reportArgumentType]
    )
    assert (made.external_id, made.full_name, made.livemode, made.object) == ("sdk_1", "Ada", False, "customer")
    assert await commet.customers.create(email="other@example.com", id="sdk_1") == made
    assert await commet.customers.get(made.id) == await commet.customers.get("sdk_1") == made
    changed = await commet.customers.update("sdk_1", full_name="Ada L.", metadata={"tier": "silver"})
    assert (changed.full_name, changed.email, changed.metadata) == ("Ada L.", "ada@example.com", {"tier": "silver"})
    assert [customer.id for customer in (await commet.customers.list(external_id="sdk_1")).data] == [made.id]
    with pytest.raises(CommetAPIError) as refusal:
        await commet.customers.get("nobody")
    assert (refusal.value.status_code, refusal.value.code) == (404, "customer_not_found")


async def test_the_official_client_pages_through_customers(commet: AsyncCommet) -> None:
    for number in range(3):
        await commet.customers.create(email="page@example.com", id=f"page_{number}")
    first = await commet.customers.list(limit=2)
    assert [customer.external_id for customer in first.data] == ["page_2", "page_1"]
    assert first.has_more
    second = await commet.customers.list(limit=2, cursor=first.next_cursor)
    assert second.data[0].external_id == "page_0"


async def test_the_official_client_works_with_features(commet: AsyncCommet) -> None:
    made = await commet.features.create(name="Calls", code="sdk_calls", type="usage", unit_name="call")
    assert (made.code, made.unit_name, made.description, made.object) == ("sdk_calls", "call", None, "feature")
    assert await commet.features.get("sdk_calls") == made
    assert (await commet.features.update("sdk_calls", description="Of the API")).description == "Of the API"
    assert "sdk_calls" in [feature.code for feature in (await commet.features.list()).data]
    with pytest.raises(CommetAPIError) as refusal:
        await commet.features.create(name="Calls", code="sdk_calls", type="usage")
    assert (refusal.value.status_code, refusal.value.code) == (409, "feature_already_exists")
    deleted = await commet.features.delete("sdk_calls")
    assert (deleted.id, deleted.deleted, deleted.object) == (made.id, True, "feature")
    with pytest.raises(CommetAPIError) as refusal:
        await commet.features.get("sdk_calls")
    assert refusal.value.code == "feature_not_found"


async def test_the_official_client_works_with_plans(commet: AsyncCommet) -> None:
    await commet.features.create(name="Chat", code="sdk_chat", type="usage")
    plan = await commet.plans.create(
        name="Pro", code="sdk_pro", consumption_model="balance", block_on_exhaustion=True, is_public=True
    )
    added = await commet.plans.add_feature(plan.id, feature_id="sdk_chat", pricing_mode="ai_model", margin=20)
    assert (added.plan_id, added.pricing_mode, added.margin, added.included_amount) == (plan.id, "ai_model", 20, 0)
    assert added.overage is not None
    assert (added.overage.enabled, added.overage.unit_price) == (False, 0)
    updated = await commet.plans.update_feature(plan.id, added.feature_id, unlimited=True)
    assert (updated.unlimited, updated.margin) == (True, 20)
    price = await commet.plans.add_price(plan.id, billing_interval="monthly", price=2900, included_balance=290_000, trial_days=14)
    assert (price.price, price.included_balance, price.trial_days, price.is_default) == (2900, 290_000, 14, True)
    assert (price.billing_interval, price.offer_id, price.market_prices, price.metadata) == (
        BillingInterval.MONTHLY,
        None,
        [],
        {},
    )
    assert (await commet.plans.update_price(plan.id, price.id, price=3900, metadata={"name": "List"})).metadata == {
        "name": "List"
    }
    yearly = await commet.plans.add_price(plan.id, billing_interval="yearly", price=29_000)
    assert (await commet.plans.set_default_price(plan.id, yearly.id)).is_default
    shown = await commet.plans.get("sdk_pro")
    assert [feature.code for feature in shown.features] == ["sdk_chat"]
    assert [(price.price, price.is_default) for price in shown.prices] == [(3900, False), (29_000, True)]
    assert (shown.exchange_rates, shown.plan_group_id, shown.is_default, shown.sort_order) == ([], None, False, 0)
    assert (await commet.plans.update(plan.id, name="Pro plus", metadata={"a": 1})).name == "Pro plus"
    assert not (await commet.plans.set_visibility(plan.id, is_public=False)).is_public
    assert "sdk_pro" not in [plan.code for plan in (await commet.plans.list()).data]
    assert "sdk_pro" in [plan.code for plan in (await commet.plans.list(include_private=True)).data]
    assert (await commet.plans.delete_price(plan.id, price.id)).object == "plan_price"
    assert (await commet.plans.remove_feature(plan.id, "sdk_chat")).removed
    assert (await commet.plans.delete(plan.id)).object == "plan"
    with pytest.raises(CommetAPIError) as refusal:
        await commet.plans.get(plan.id)
    assert refusal.value.code == "plan_not_found"


async def test_the_official_client_is_told_which_field_is_wrong(commet: AsyncCommet) -> None:
    with pytest.raises(CommetValidationError) as refusal:
        await commet.customers.create(email="ada")
    assert list(refusal.value.validation_errors) == ["email"]


# ── by hand ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_id_and_external_id_are_the_same_thing(http: ClientSession) -> None:
    _, by_id = await send(http, "POST", "/customers", {"email": "a@b.de", "id": "hand_1"})
    _, by_external_id = await send(http, "POST", "/customers", {"email": "a@b.de", "externalId": "hand_1"})
    _, by_both = await send(http, "POST", "/customers", {"email": "a@b.de", "id": "hand_1", "externalId": "hand_1"})
    assert by_id == by_external_id == by_both
    body = {"email": "a@b.de", "id": "hand_1", "externalId": "hand_2"}
    assert await refused(http, "POST", "/customers", body) == (400, "validation_error", "externalId")


async def test_null_removes_a_field_of_a_customer_and_absence_keeps_it(http: ClientSession) -> None:
    await send(http, "POST", "/customers", {"email": "a@b.de", "id": "hand_3", "fullName": "Ada", "metadata": {"a": 1}})
    status, changed = await send(http, "PATCH", "/customers/hand_3", {"metadata": None})
    assert (status, changed["fullName"], changed["metadata"]) == (200, "Ada", None)
    assert await refused(http, "PATCH", "/customers/hand_3", {"email": None}) == (400, "validation_error", "email")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "email"),
        ({"email": "a@b.de", "addressId": "addr_1"}, "addressId"),
        ({"email": "a@b.de", "timezone": "Mars/Olympus"}, "timezone"),
        ({"email": "a@b.de", "fullName": ""}, "fullName"),
        ({"email": "a@b.de", "fullName": "x" * 201}, "fullName"),
        ({"email": "a@b.de", "id": "x" * 129}, "id"),
        ({"email": "a@b.de", "metadata": {str(n): n for n in range(51)}}, "metadata"),
        ({"email": "a@b.de", "metadata": {"note": "x" * 17_000}}, "metadata"),
        ({"email": "a@b.de", "address": {"line1": "Street 1", "postalCode": "1", "country": "DE"}}, "address.city"),
        ({"email": "a@b.de", "nickname": "A"}, "nickname"),
    ],
)
async def test_each_bound_of_a_customer_names_its_field(http: ClientSession, body: object, field: str) -> None:
    assert await refused(http, "POST", "/customers", body) == (400, "validation_error", field)


async def test_a_broken_item_of_a_batch_fails_alone_and_is_shown_as_sent(http: ClientSession) -> None:
    items: list[object] = [
        {"email": "a@b.de", "id": "batch_1", "address": {"line1": "S 1", "city": "B", "postalCode": "1", "country": "DE"}},
        {"email": "nonsense", "id": "batch_2"},
        {"id": "batch_3"},
        "nonsense",
        {"email": "a@b.de", "id": "batch_1"},
        {"email": "a@b.de", "shoeSize": 43},
        {"email": "a@b.de", "id": "batch_4"},
    ]
    status, batch = await send(http, "POST", "/customers/batch", {"customers": items})
    assert (status, batch["object"], batch["livemode"]) == (200, "customer_batch", False)
    assert [item["externalId"] for item in batch["successful"]] == ["batch_1", "batch_1", "batch_4"]
    assert batch["successful"][0]["id"] == batch["successful"][1]["id"]
    assert [failed["index"] for failed in batch["failed"]] == [1, 2, 3, 5]
    assert [failed["data"] for failed in batch["failed"]] == [items[1], {"email": "", "id": "batch_3"}, {"email": ""}, items[5]]
    for failed, word in zip(batch["failed"], ["nonsense", "email", "object", "shoeSize"], strict=True):
        assert word in failed["error"]
    assert (await send(http, "GET", "/customers/batch_2"))[0] == 404


async def test_a_batch_has_1_to_100_customers(http: ClientSession) -> None:
    item = {"email": "a@b.de"}
    assert await refused(http, "POST", "/customers/batch", {"customers": []}) == (400, "validation_error", "customers")
    assert await refused(http, "POST", "/customers/batch", {"customers": [item] * 101}) == (400, "validation_error", "customers")
    status, batch = await send(http, "POST", "/customers/batch", {"customers": [item] * 100})
    assert (status, len(batch["successful"])) == (200, 100)


async def test_customers_are_searched_and_unknown_filters_refused(http: ClientSession) -> None:
    await send(http, "POST", "/customers", {"email": "grace@navy.example", "id": "search_1"})
    _, found = await send(http, "GET", "/customers?search=NAVY")
    assert [customer["externalId"] for customer in found["data"]] == ["search_1"]
    assert (found["hasMore"], found["nextCursor"]) == (False, None)
    assert (await refused(http, "GET", "/customers?colour=red"))[0] == 400
    assert await refused(http, "GET", "/customers?cursor=%21") == (400, "validation_error", "cursor")


@pytest.mark.parametrize("code", ["", "Calls", "a-b", "a b", "calls\n", "ü", "x" * 129])
async def test_a_feature_code_is_lowercase_letters_digits_and_underscores(http: ClientSession, code: str) -> None:
    body = {"name": "Calls", "code": code, "type": "usage"}
    assert await refused(http, "POST", "/features", body) == (400, "validation_error", "code")


async def test_a_feature_has_one_of_four_types(http: ClientSession) -> None:
    body = {"name": "Calls", "code": "odd", "type": "odd"}
    assert await refused(http, "POST", "/features", body) == (400, "validation_error", "type")


async def test_a_change_of_no_field_of_a_feature_is_refused(http: ClientSession) -> None:
    await add_feature(http, "unchanged")
    assert (await refused(http, "PATCH", "/features/unchanged", {}))[:2] == (400, "validation_error")


async def test_lists_of_the_catalog_are_whole_unless_a_limit_is_given(http: ClientSession) -> None:
    for number in range(30):
        await add_feature(http, f"list_{number}")
        await add_plan(http, f"list_{number}")
    for path in ("/features", "/plans"):
        _, whole = await send(http, "GET", path)
        assert len(whole["data"]) >= 30
        assert not whole["hasMore"]
        _, first = await send(http, "GET", f"{path}?limit=2")
        assert [item["code"] for item in first["data"]] == ["list_29", "list_28"]
        _, second = await send(http, "GET", f"{path}?limit=1&cursor={first['nextCursor']}")
        assert [item["code"] for item in second["data"]] == ["list_27"]
        assert (await send(http, "GET", f"{path}?cursor=OTIyMzM3MjAzNjg1NDc3NTgwNw"))[0] == 200


async def test_a_plan_shows_its_features_with_every_documented_field(http: ClientSession) -> None:
    await add_feature(http, "shown_calls")
    await add_feature(http, "shown_sso", "boolean")
    plan = await add_plan(http, "shown", consumptionModel="metered")
    overage = {"enabled": True, "unitPrice": 25}
    await send(
        http, "POST", f"/plans/{plan['id']}/features", {"featureId": "shown_calls", "includedAmount": 1000, "overage": overage}
    )
    await send(http, "POST", f"/plans/{plan['id']}/features", {"featureId": "shown_sso"})
    _, shown = await send(http, "GET", "/plans/shown")
    calls, sso = shown["features"]
    assert calls == {
        "featureId": calls["featureId"],
        "code": "shown_calls",
        "name": "shown_calls",
        "type": "usage",
        "unitName": None,
        "enabled": True,
        "includedAmount": 1000,
        "unlimited": False,
        "overage": {"enabled": True, "model": "per_unit", "unitPrice": 25},
        "creditsPerUnit": None,
        "pricingMode": "fixed",
        "margin": None,
        "regionalPrices": [],
    }
    assert (sso["includedAmount"], sso["overage"], sso["enabled"]) == (None, None, True)


@pytest.mark.parametrize(
    ("model", "is_free", "body", "field"),
    [
        ("metered", True, {"overage": {"enabled": True, "unitPrice": 1}}, "overage.enabled"),
        ("metered", False, {"pricingMode": "ai_model"}, "pricingMode"),
        ("metered", False, {"creditsPerUnit": 2}, "creditsPerUnit"),
        ("balance", False, {"overage": {"unitPrice": 1}, "margin": 20}, "margin"),
        ("balance", False, {}, "overage.unitPrice"),
        ("credits", False, {}, "creditsPerUnit"),
        ("metered", False, {"includedAmount": -1}, "includedAmount"),
        ("metered", False, {"includedAmount": 1_000_000_001}, "includedAmount"),
        ("metered", False, {"overage": {"unitPrice": 0.5}}, "overage.unitPrice"),
        ("metered", False, {"overage": {"price": 1}}, "overage.price"),
    ],
)
async def test_each_rule_of_a_feature_on_a_plan_names_its_field(
    http: ClientSession, model: str, *, is_free: bool, body: dict[str, object], field: str
) -> None:
    await send(http, "POST", "/features", {"name": "Ruled", "code": "ruled", "type": "usage"})
    await send(
        http, "POST", "/plans", {"name": "R", "code": f"r_{model}_{is_free}", "consumptionModel": model, "isFree": is_free}
    )
    path = f"/plans/r_{model}_{is_free}/features"
    assert await refused(http, "POST", path, {"featureId": "ruled", **body}) == (400, "validation_error", field)


async def test_an_unknown_feature_or_plan_is_not_found(http: ClientSession) -> None:
    await add_plan(http, "lonely")
    assert (await refused(http, "POST", "/plans/lonely/features", {"featureId": "nothing"}))[:2] == (404, "feature_not_found")
    assert (await refused(http, "POST", "/plans/nothing/features", {"featureId": "nothing"}))[:2] == (404, "plan_not_found")
    assert (await refused(http, "PATCH", "/plans/lonely/prices/price_1", {"price": 1}))[:2] == (404, "price_not_found")
    assert (await refused(http, "PUT", "/plans/lonely/prices/price_1/default"))[:2] == (404, "price_not_found")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"billingInterval": "monthly"}, "price"),
        ({"billingInterval": "daily", "price": 1}, "billingInterval"),
        ({"billingInterval": "monthly", "price": -1}, "price"),
        ({"billingInterval": "monthly", "price": 29.5}, "price"),
        ({"billingInterval": "monthly", "price": 1, "includedCredits": 1}, "includedCredits"),
        ({"billingInterval": "monthly", "price": 1, "includedBalance": 1}, "includedBalance"),
        ({"billingInterval": "monthly", "price": 1, "trialDays": 731}, "trialDays"),
        ({"billingInterval": "monthly", "inheritsFromPriceId": "price_1"}, "inheritsFromPriceId"),
        ({"billingInterval": "monthly", "price": 1, "marketPrices": [{"marketGroupId": "m"}]}, "marketPrices"),
        ({"billingInterval": "monthly", "price": 1, "introOfferEnabled": True}, "introOfferEnabled"),
    ],
)
async def test_each_rule_of_a_price_names_its_field(http: ClientSession, body: object, field: str) -> None:
    await send(http, "POST", "/plans", {"name": "Priced", "code": "priced"})
    assert await refused(http, "POST", "/plans/priced/prices", body) == (400, "validation_error", field)


async def test_what_is_not_supported_yet_is_said_by_name(http: ClientSession) -> None:
    body = {"name": "P", "code": "grouped", "planGroupId": "pg_1"}
    _, answer = await send(http, "POST", "/plans", body)
    assert answer["error"]["param"] == "planGroupId"
    assert "not supported yet" in answer["error"]["message"]
    assert (await send(http, "GET", "/plans/grouped"))[0] == 404


async def test_a_write_sent_again_with_its_key_changes_nothing(http: ClientSession) -> None:
    await add_plan(http, "again")
    headers = {"Idempotency-Key": "add-price-1"}
    answers: list[Any] = []
    for _ in range(2):
        async with http.post(
            "/api/v1/plans/again/prices", json={"billingInterval": "monthly", "price": 5}, headers=headers
        ) as response:
            answers.append(await response.json())
    assert answers[0] == answers[1]
    _, plan = await send(http, "GET", "/plans/again")
    assert len(plan["prices"]) == 1


async def test_every_operation_is_in_the_generated_document(http: ClientSession) -> None:
    status, document = await send(http, "GET", "/openapi.json")
    assert status == 200
    described = {operation["operationId"] for path in document["paths"].values() for operation in path.values()}
    assert {operation.id for operation in OPERATIONS} <= described
