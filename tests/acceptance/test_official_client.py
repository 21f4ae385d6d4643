"""The official client, unmodified but for its base URL, does every call of the resources Tallybook has; so does its async form."""

import asyncio
import time
from collections.abc import Awaitable, Generator
from typing import Any, cast

import pytest
from commet import (
    AsyncCommet,
    Commet,
    CommetAPIError,
    CommetValidationError,
    _async_http,  # pyright: ignore[reportPrivateUsage] - the base URL is in there
    _http,  # pyright: ignore[reportPrivateUsage] - the base URL is in there
)
from commet import types as wire

from tests.support.service import Account


@pytest.fixture
def base_url(account: Account, monkeypatch: pytest.MonkeyPatch) -> str:
    """Point the client at this service: the only thing about it that is changed."""
    monkeypatch.setattr(_http, "_BASE_URL", account.service.url)
    monkeypatch.setattr(_async_http, "_BASE_URL", account.service.url)
    return account.service.url


@pytest.fixture
def client(account: Account, base_url: str) -> Generator[Commet]:
    assert base_url
    client = Commet(account.key)
    yield client
    client.close()


def checked(answer: object) -> dict[str, Any]:
    """What `usage.check` returns: a dict, because 9.7.0 looks for its discriminator in camelCase among keys in snake_case."""
    assert isinstance(answer, dict)
    return cast("dict[str, Any]", answer)


def make_ai_plan(client: Commet) -> wire.Plan:
    client.features.create(name="AI chat", code="ai_chat", type="usage")
    plan = client.plans.create(name="AI", code="ai", consumption_model="balance", block_on_exhaustion=False)
    client.plans.add_price(plan.id, billing_interval="monthly", price=5000, is_default=True, included_balance=500_000)
    client.plans.add_feature(plan.id, feature_id="ai_chat", pricing_mode="ai_model", margin=20)
    return client.plans.get(plan.id)


def test_api_keys(client: Commet) -> None:
    made = client.api_keys.create(
        name="reader", expires_in_days=30, permissions=wire.CreateApiKeyParamsPermissions(customer=["read"])
    )
    assert made.api_key.startswith("ck_")
    listed = client.api_keys.list()
    assert made.id in {key.id for key in listed.data}
    restricted = Commet(made.api_key)
    assert restricted.customers.list().data == []
    with pytest.raises(CommetAPIError) as refused:
        restricted.customers.create(email="a@example.com")
    assert (refused.value.status_code, refused.value.code) == (403, "forbidden")
    assert client.api_keys.delete(made.id).deleted is True
    restricted.close()


def test_customers(client: Commet) -> None:
    first = client.customers.create(email="ada@example.com", id="user_1", full_name="Ada", metadata={"tier": "gold"})
    again = client.customers.create(email="ada@example.com", id="user_1")
    assert (again.id, again.external_id, first.metadata) == (first.id, "user_1", {"tier": "gold"})
    assert client.customers.get("user_1").id == client.customers.get(first.id).id
    assert client.customers.update(first.id, full_name="Ada L.").full_name == "Ada L."
    batch = client.customers.create_batch(
        customers=[
            wire.BatchCreateCustomersParamsCustomersItem(email=f"user{number}@example.com", id=f"batch_{number}")
            for number in range(3)
        ]
        + [wire.BatchCreateCustomersParamsCustomersItem(email="not an address", id="broken")]
    )
    assert (len(batch.successful), [failed.index for failed in batch.failed]) == (3, [3])
    page = client.customers.list(limit=2)
    assert page.has_more
    rest = client.customers.list(limit=10, cursor=page.next_cursor)
    assert len(page.data) + len(rest.data) == 4
    assert [found.id for found in client.customers.list(external_id="user_1").data] == [first.id]
    with pytest.raises(CommetAPIError) as missing:
        client.customers.get("nobody")
    assert (missing.value.status_code, missing.value.code) == (404, "customer_not_found")
    with pytest.raises(CommetValidationError) as invalid:
        client.customers.create(email="nope")
    assert "email" in invalid.value.validation_errors


def test_features(client: Commet) -> None:
    made = client.features.create(name="API calls", code="api_calls", type="usage", unit_name="calls")
    assert client.features.get("api_calls").id == made.id
    assert client.features.update("api_calls", name="API requests").name == "API requests"
    assert [feature.code for feature in client.features.list().data] == ["api_calls"]
    with pytest.raises(CommetAPIError) as twice:
        client.features.create(name="API calls", code="api_calls", type="usage")
    assert twice.value.code == "feature_already_exists"
    assert client.features.delete("api_calls").deleted is True


def test_plans(client: Commet) -> None:
    client.features.create(name="API calls", code="api_calls", type="usage")
    plan = client.plans.create(name="Pro", code="pro", consumption_model="metered", is_public=False)
    monthly = client.plans.add_price(plan.id, billing_interval="monthly", price=9900, is_default=True)
    yearly = client.plans.add_price(plan.id, billing_interval="yearly", price=99_000, trial_days=14)
    added = client.plans.add_feature(
        plan.id,
        feature_id="api_calls",
        included_amount=1000,
        overage=wire.AddPlanFeatureParamsOverage(enabled=True, unit_price=100),
    )
    assert (added.included_amount, added.overage) == (1000, wire.PlanFeatureOverage(enabled=True, unit_price=100))
    assert client.plans.update_feature(plan.id, "api_calls", included_amount=2000).included_amount == 2000
    assert client.plans.update_price(plan.id, monthly.id, price=10_900).price == 10_900
    assert client.plans.set_default_price(plan.id, yearly.id).is_default
    assert client.plans.update(plan.id, description="For teams").description == "For teams"
    assert client.plans.list().data == []
    assert client.plans.set_visibility(plan.id, is_public=True).is_public
    found = client.plans.get(plan.id)
    assert ([price.price for price in found.prices], [feature.code for feature in found.features]) == (
        [10_900, 99_000],
        ["api_calls"],
    )
    assert [listed.code for listed in client.plans.list(include_private=True).data] == ["pro"]
    assert client.plans.delete_price(plan.id, monthly.id).deleted is True
    assert client.plans.remove_feature(plan.id, "api_calls").removed is True
    assert client.plans.delete(plan.id).deleted is True


def test_subscriptions(client: Commet) -> None:
    plan = make_ai_plan(client)
    customer = client.customers.create(email="ada@example.com", id="user_1")
    assert client.subscriptions.get_active(customer_id="user_1") is None
    made = client.subscriptions.create(customer_id="user_1", plan_code="ai")
    assert (made.status, made.customer_id, made.plan) == (
        wire.SubscriptionStatus.ACTIVE,
        customer.id,
        wire.CreatedSubscriptionPlan(plan.id, "AI"),
    )
    found = client.subscriptions.get(made.id)
    assert found.balance is not None
    assert found.balance.remaining == 500_000
    active = client.subscriptions.get_active(customer_id=customer.id)
    assert active is not None
    assert active.id == made.id
    adjusted = client.subscriptions.adjust_balance(made.id, amount=5000, reason="goodwill")
    assert (adjusted.amount, adjusted.new_balance) == (5000, 505_000)
    canceled = client.subscriptions.cancel(made.id, reason="too dear")
    assert canceled.cancel_at_period_end
    assert client.subscriptions.uncancel(made.id).cancel_at_period_end is False
    assert [listed.id for listed in client.subscriptions.list(customer_id="user_1").data] == [made.id]
    assert client.subscriptions.cancel(made.id, immediate=True).status is wire.SubscriptionStatus.CANCELED
    with pytest.raises(CommetAPIError) as over:
        client.usage.track(feature_code="ai_chat", customer_id="user_1", model="gpt-4o", input_tokens=1, output_tokens=1)
    assert over.value.code == "no_active_subscription"


def test_usage_and_access(client: Commet) -> None:
    make_ai_plan(client)
    client.customers.create(email="ada@example.com", id="user_1")
    client.subscriptions.create(customer_id="user_1", plan_code="ai")
    event = client.usage.track(
        feature_code="ai_chat",
        customer_id="user_1",
        event_id="evt_1",
        model="anthropic/claude-sonnet-4.6",
        input_tokens=10_000,
        output_tokens=2_000,
        cache_read_tokens=7_000,
        cache_write_tokens=1_000,
        properties=[wire.TrackUsageParamsPropertiesItem(property="project", value="apollo")],
    )
    assert event.consumption is not None
    assert (event.consumption.deducted, event.consumption.remaining) == (502.2, 499_497.8)
    assert event.properties[0].value == "apollo"
    with pytest.raises(CommetAPIError) as repeated:
        client.usage.track(
            feature_code="ai_chat",
            customer_id="user_1",
            event_id="evt_1",
            model="anthropic/claude-sonnet-4.6",
            input_tokens=10_000,
            output_tokens=2_000,
            cache_read_tokens=7_000,
            cache_write_tokens=1_000,
            properties=[wire.TrackUsageParamsPropertiesItem(property="project", value="apollo")],
        )
    assert (repeated.value.status_code, repeated.value.code) == (409, "duplicate")
    with pytest.raises(CommetAPIError) as unknown:
        client.usage.track(feature_code="ai_chat", customer_id="user_1", model="gpt-9", input_tokens=1, output_tokens=1)
    assert (unknown.value.status_code, unknown.value.code) == (404, "model_not_found")
    access = client.feature_access.get("ai_chat", customer_id="user_1")
    assert isinstance(access, wire.FeatureAccessVariant2)
    assert access.allowed
    assert [one.code for one in client.feature_access.list(customer_id="user_1").data] == ["ai_chat"]


def test_metered_check_and_set(client: Commet) -> None:
    client.features.create(name="API calls", code="api_calls", type="usage")
    plan = client.plans.create(name="Free", code="free", consumption_model="metered", is_free=True)
    client.plans.add_feature(plan.id, feature_id="api_calls", included_amount=100)
    client.customers.create(email="ada@example.com", id="user_1")
    client.subscriptions.create(customer_id="user_1", plan_code="free")
    client.usage.track(feature_code="api_calls", customer_id="user_1", value=0.5)
    check = checked(client.usage.check(customer_id="user_1", feature_code="api_calls", quantity=99))
    assert (check["allowed"], check["consumption_model"], check["current"], check["remaining"]) == (True, "metered", 0.5, 99.5)
    assert set(wire.UsageCheckVariant1.__dataclass_fields__) - set(check) == {"reason", "message"}
    assert checked(client.usage.check(customer_id="user_1", feature_code="api_calls", quantity=100))["allowed"] is False
    adjusted = client.usage.set(customer_id="user_1", feature_code="api_calls", value=90, reason="recount")
    assert (adjusted.value, adjusted.previous_value, adjusted.adjustment) == (90, 0.5, 89.5)
    assert checked(client.usage.check(customer_id="user_1", feature_code="api_calls", quantity=11))["allowed"] is False


def test_invoices_and_the_test_clock(client: Commet) -> None:
    make_ai_plan(client)
    client.customers.create(email="ada@example.com", id="user_1")
    made = client.subscriptions.create(customer_id="user_1", plan_code="ai")
    run = client.test_clock.advance(advance_days=32)
    assert run.status in ("pending", "running", "completed")
    while client.test_clock.get().latest_run.status != "completed":  # type: ignore[union-attr] - a run was started
        time.sleep(0.02)
    listed = client.invoices.list(customer_id="user_1", subscription_id=made.id)
    assert [invoice.total for invoice in listed.data] == [5000, 5000]
    invoice = client.invoices.get(listed.data[0].id)
    assert [line.line_type for line in invoice.line_items] == ["plan_base"]
    with pytest.raises(CommetAPIError) as gone:
        client.test_clock.process_billing()
    assert (gone.value.status_code, gone.value.code) == (410, "endpoint_deprecated")


async def together(*calls: Awaitable[object]) -> list[object]:
    return list(await asyncio.gather(*calls))


async def test_the_async_client_does_the_same(account: Account, base_url: str) -> None:
    assert base_url
    client = AsyncCommet(account.key)
    try:
        await client.features.create(name="Images", code="images", type="usage")
        plan = await client.plans.create(name="Studio", code="studio", consumption_model="credits")
        await client.plans.add_price(plan.id, billing_interval="monthly", price=4900, is_default=True, included_credits=10)
        await client.plans.add_feature(plan.id, feature_id="images", credits_per_unit=1)
        await client.customers.create(email="ada@example.com", id="user_1")
        subscription = await client.subscriptions.create(customer_id="user_1", plan_code="studio")
        tracked = [client.usage.track(feature_code="images", customer_id="user_1", event_id=f"e{number}") for number in range(10)]
        assert len(await together(*tracked)) == 10
        with pytest.raises(CommetAPIError) as refused:
            await client.usage.track(feature_code="images", customer_id="user_1")
        assert (refused.value.status_code, refused.value.code) == (402, "insufficient_credits")
        assert (await client.subscriptions.adjust_balance(subscription.id, amount=5)).new_balance == 5
        check = checked(await client.usage.check(customer_id="user_1", feature_code="images", quantity=5))
        assert (check["allowed"], check["total_credits"]) == (True, 5)
        assert (await client.feature_access.get("images", customer_id="user_1")).allowed  # type: ignore[union-attr] - usage
        assert len((await client.invoices.list(customer_id="user_1")).data) == 1
        assert (await client.test_clock.get()).is_active is False
    finally:
        await client.close()
