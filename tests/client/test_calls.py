"""The calls of both clients: every operation against a started service, and how failures are tried again and told."""

import asyncio
import time
from collections.abc import Generator
from datetime import UTC, datetime, timedelta

import pytest

from tallybook.client import (
    AsyncTallybook,
    Conflict,
    ConnectionFailed,
    Duplicate,
    Forbidden,
    NewCustomer,
    NotFound,
    Overage,
    RateLimited,
    Refused,
    ServiceError,
    Tallybook,
    Unauthorized,
    ValidationError,
)
from tests.client.stub_service import Reply, StubService
from tests.support.service import Account


@pytest.fixture
def tallybook(account: Account) -> Generator[Tallybook]:
    with Tallybook(account.key, url=account.service.url) as client:
        yield client


def ai_plan(tallybook: Tallybook) -> None:
    tallybook.features.create(name="AI chat", code="ai_chat", type="usage")
    plan = tallybook.plans.create(name="AI", code="ai", consumption_model="balance", block_on_exhaustion=False)
    tallybook.plans.add_price(plan.id, billing_interval="monthly", price=5000, is_default=True, included_balance=500_000)
    tallybook.plans.add_feature(plan.id, feature_id="ai_chat", pricing_mode="ai_model", margin=20)
    tallybook.customers.create(email="ada@example.com", id="user_1")


def test_customers(tallybook: Tallybook) -> None:
    first = tallybook.customers.create(email="ada@example.com", id="user_1", full_name="Ada", metadata={"tier": "gold"})
    assert (first.external_id, first.metadata) == ("user_1", {"tier": "gold"})
    assert tallybook.customers.get("user_1") == tallybook.customers.get(first.id)
    assert tallybook.customers.update("user_1", full_name=None).full_name is None
    batch = tallybook.customers.create_batch(
        customers=[NewCustomer(email="b@example.com", id="b"), NewCustomer(email="not an address", id="broken")]
    )
    assert ([made.external_id for made in batch.successful], [failed.index for failed in batch.failed]) == (["b"], [1])
    page = tallybook.customers.list(limit=1)
    assert (len(page.data), page.has_more) == (1, True)
    assert len(tallybook.customers.list(cursor=page.next_cursor).data) == 1


def test_features_and_plans(tallybook: Tallybook) -> None:
    feature = tallybook.features.create(name="API calls", code="api_calls", type="usage", unit_name="calls")
    assert tallybook.features.update("api_calls", unit_name=None).unit_name is None
    assert [each.id for each in tallybook.features.list().data] == [tallybook.features.get("api_calls").id] == [feature.id]
    plan = tallybook.plans.create(name="Pro", code="pro", consumption_model="metered", is_public=False)
    monthly = tallybook.plans.add_price(plan.id, billing_interval="monthly", price=9900, is_default=True)
    yearly = tallybook.plans.add_price("pro", billing_interval="yearly", price=99_000, trial_days=14)
    added = tallybook.plans.add_feature(
        "pro", feature_id="api_calls", included_amount=1000, overage=Overage(enabled=True, unit_price=100)
    )
    assert (added.included_amount, added.overage) == (1000, Overage(enabled=True, unit_price=100))
    assert tallybook.plans.update_feature("pro", "api_calls", included_amount=2000).included_amount == 2000
    assert tallybook.plans.update_price("pro", monthly.id, price=10_900).price == 10_900
    assert tallybook.plans.set_default_price("pro", yearly.id).is_default
    assert tallybook.plans.update("pro", description="For teams").description == "For teams"
    assert (tallybook.plans.list().data, len(tallybook.plans.list(include_private=True).data)) == ([], 1)
    assert tallybook.plans.set_visibility("pro", is_public=True).is_public
    found = tallybook.plans.get("pro")
    assert ([price.price for price in found.prices], [each.code for each in found.features]) == ([10_900, 99_000], ["api_calls"])
    assert tallybook.plans.delete_price("pro", monthly.id).deleted
    assert tallybook.plans.remove_feature("pro", "api_calls").removed
    assert tallybook.plans.delete("pro").deleted
    assert tallybook.features.delete("api_calls").deleted


def test_subscriptions_usage_and_access(tallybook: Tallybook) -> None:
    ai_plan(tallybook)
    customer = tallybook.customer("user_1")
    assert customer.subscriptions.get_active() is None
    made = customer.subscriptions.create(plan_code="ai")
    assert (made.status, made.plan.name) == ("active", "AI")
    event = customer.usage.track(
        "ai_chat",
        event_id="evt_1",
        model="anthropic/claude-sonnet-4.6",
        input_tokens=10_000,
        output_tokens=2_000,
        cache_read_tokens=7_000,
        cache_write_tokens=1_000,
        properties={"project": "apollo"},
        timestamp=datetime.now(UTC),
    )
    assert event.consumption is not None
    assert (event.consumption.deducted, event.consumption.remaining, event.properties[0].value) == (502.2, 499_497.8, "apollo")
    check = customer.usage.check("ai_chat", model="gpt-4o", input_tokens=1000, output_tokens=10)
    assert (check.allowed, check.estimated_amount, check.current_balance) == (True, 31.2, 499_497.8)
    assert (customer.features.get("ai_chat").allowed, tallybook.feature_access.get("ai_chat", customer_id="user_1").type) == (
        True,
        "usage",
    )
    assert [each.code for each in customer.features.list().data] == ["ai_chat"]
    adjusted = tallybook.subscriptions.adjust_balance(made.id, amount=5000, reason="goodwill")
    assert (adjusted.amount, adjusted.new_balance) == (5000, 504_497.8)
    found = tallybook.subscriptions.get(made.id)
    assert found.balance is not None
    assert found.balance.remaining == 504_497.8
    assert [each.id for each in tallybook.subscriptions.list(customer_id="user_1").data] == [made.id]
    assert tallybook.subscriptions.cancel(made.id, reason="too dear").cancel_at_period_end
    assert tallybook.subscriptions.uncancel(made.id).cancel_at_period_end is False


def test_a_batch_has_a_result_for_each_event(tallybook: Tallybook) -> None:
    ai_plan(tallybook)
    tallybook.subscriptions.create("user_1", plan_code="ai")
    wanted = {"customer_id": "user_1", "feature_code": "ai_chat", "input_tokens": 1000, "output_tokens": 0}
    batch = tallybook.usage.track_batch(
        events=[
            {**wanted, "event_id": "e1", "model": "gpt-4o"},  # type: ignore[typeddict-item] - a union of dicts is no TypedDict
            {"customer_id": "user_1", "feature_code": "ai_chat", "model": "gpt-9", "input_tokens": 1, "output_tokens": 1},
        ]
    )
    assert [result.status for result in batch.results] == ["accepted", "invalid"]
    assert (batch.accepted, batch.results[1].error and batch.results[1].error.code) == (1, "model_not_found")


def test_metered_usage_can_be_set(tallybook: Tallybook) -> None:
    tallybook.features.create(name="API calls", code="api_calls", type="usage")
    tallybook.plans.create(name="Free", code="free", consumption_model="metered", is_free=True)
    tallybook.plans.add_feature("free", feature_id="api_calls", included_amount=100)
    tallybook.customers.create(email="ada@example.com", id="user_1")
    tallybook.subscriptions.create("user_1", plan_code="free")
    tallybook.usage.track("user_1", "api_calls", 0.5)
    adjusted = tallybook.usage.set("user_1", "api_calls", 90, reason="recount")
    assert (adjusted.value, adjusted.previous_value, adjusted.adjustment) == (90, 0.5, 89.5)
    refused = tallybook.usage.check("user_1", "api_calls", quantity=11)
    assert (refused.allowed, refused.reason) == (False, "included_limit_reached")
    with pytest.raises(Refused) as limit:
        tallybook.usage.track(customer_id="user_1", feature_code="api_calls", value=11)
    assert limit.value.code == "included_limit_reached"


def test_invoices_keys_models_and_the_test_clock(tallybook: Tallybook) -> None:
    ai_plan(tallybook)
    made = tallybook.subscriptions.create("user_1", plan_code="ai")
    assert tallybook.test_clock.get().is_active is False
    assert tallybook.test_clock.advance(advance_days=32).status in ("pending", "running", "completed")
    while (run := tallybook.test_clock.get().latest_run) is None or run.status != "completed":
        time.sleep(0.02)
    listed = tallybook.invoices.list(customer_id="user_1", subscription_id=made.id)
    assert [invoice.total for invoice in listed.data] == [5000, 5000]
    assert [line.line_type for line in tallybook.invoices.get(listed.data[0].id).line_items] == ["plan_base"]
    key = tallybook.api_keys.create(name="reader", permissions={"customer": ["read"]})
    assert key.id in {each.id for each in tallybook.api_keys.list().data}
    assert tallybook.api_keys.delete(key.id).deleted
    quote = tallybook.ai_models.quote(
        model="anthropic/claude-sonnet-4.6",
        input_tokens=10_000,
        output_tokens=2_000,
        cache_read_tokens=7_000,
        cache_write_tokens=1_000,
        margin=20,
    )
    assert (quote.charge_usd, quote.charge) == ("0.05022", 502.2)
    assert tallybook.ai_models.get("openai/gpt-4o").prices
    assert len(tallybook.ai_models.list(provider="openai", limit=3).data) == 3


def test_errors_have_classes(tallybook: Tallybook, account: Account) -> None:
    ai_plan(tallybook)
    tallybook.subscriptions.create("user_1", plan_code="ai")
    with pytest.raises(NotFound) as missing:
        tallybook.customers.get("nobody")
    assert (missing.value.status, missing.value.code) == (404, "customer_not_found")
    assert missing.value.request_id
    assert str(missing.value.doc_url).endswith("customer_not_found")
    with pytest.raises(ValidationError) as invalid:
        tallybook.customers.create(email="nope")
    assert invalid.value.param == "email"
    with pytest.raises(Conflict):
        tallybook.features.create(name="AI chat", code="ai_chat", type="usage")
    tallybook.usage.track("user_1", "ai_chat", event_id="evt_1", model="gpt-4o", input_tokens=1, output_tokens=1)
    with pytest.raises(Duplicate) as repeated:
        tallybook.usage.track("user_1", "ai_chat", event_id="evt_1", model="gpt-4o", input_tokens=1, output_tokens=1)
    assert repeated.value.details["eventId"] == "evt_1"
    reader = tallybook.api_keys.create(name="reader", permissions={"customer": ["read"]})
    with Tallybook(reader.api_key, url=account.service.url) as restricted, pytest.raises(Forbidden):
        restricted.customers.create(email="a@example.com")
    with Tallybook("ck_wrong", url=account.service.url) as wrong, pytest.raises(Unauthorized):
        wrong.customers.list()


async def test_the_async_client_does_the_same(account: Account) -> None:
    async with AsyncTallybook(account.key, url=account.service.url) as tallybook:
        await tallybook.features.create(name="Images", code="images", type="usage")
        plan = await tallybook.plans.create(name="Studio", code="studio", consumption_model="credits")
        await tallybook.plans.add_price(plan.id, billing_interval="monthly", price=4900, is_default=True, included_credits=10)
        await tallybook.plans.add_feature(plan.id, feature_id="images", credits_per_unit=1)
        await tallybook.customers.create(email="ada@example.com", id="user_1")
        customer = tallybook.customer("user_1")
        await customer.subscriptions.create(plan_code="studio")
        events = await asyncio.gather(*(customer.usage.track("images", event_id=f"e{number}") for number in range(10)))
        assert sorted(event.consumption.remaining for event in events if event.consumption) == list(range(10))
        with pytest.raises(Refused) as refused:
            await customer.usage.track("images")
        assert refused.value.code == "insufficient_credits"
        assert (await tallybook.feature_access.get("images", customer_id="user_1")).code == "images"


def test_a_call_is_tried_again_with_the_same_key(stub: StubService) -> None:
    replies = [Reply(503, {}), Reply(0), Reply(429, {}, {"retry-after": "0.01"}), Reply(200, {"id": "feat_1", "deleted": True})]
    stub.decide = lambda _request, number: replies[number - 1]
    with Tallybook("ck_test", url=stub.url) as tallybook:
        assert tallybook.features.delete("images").deleted
    keys = {request.key for request in stub.requests}
    assert (len(stub.requests), len(keys), None in keys) == (4, 1, False)


async def test_the_async_client_tries_again_with_the_same_key(stub: StubService) -> None:
    replies = [Reply(500, {}), Reply(200, {"id": "feat_1", "deleted": True})]
    stub.decide = lambda _request, number: replies[number - 1]
    async with AsyncTallybook("ck_test", url=stub.url) as tallybook:
        assert (await tallybook.features.delete("images")).deleted
    assert len({request.key for request in stub.requests}) == 1


@pytest.mark.parametrize(("status", "kind"), [(429, RateLimited), (500, ServiceError), (502, ServiceError)])
def test_the_last_failure_is_raised(stub: StubService, status: int, kind: type[Exception]) -> None:
    stub.decide = lambda _request, _number: Reply(status, "<html>", {"retry-after": "0"})
    with Tallybook("ck_test", url=stub.url, retries=2) as tallybook, pytest.raises(kind):
        tallybook.customers.list()
    assert len(stub.requests) == 3


def test_no_answer_is_an_error_of_its_own() -> None:
    with (
        Tallybook("ck_test", url="http://127.0.0.1:9", retries=1) as tallybook,
        pytest.raises(ConnectionFailed, match="no answer from"),
    ):
        tallybook.customers.list()


def test_what_is_wrong_with_the_arguments_is_said_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch, stub: StubService
) -> None:
    monkeypatch.delenv("TALLYBOOK_API_KEY", raising=False)
    with pytest.raises(ValueError, match="TALLYBOOK_API_KEY"):
        Tallybook()
    naive = datetime.now(UTC).replace(tzinfo=None) - timedelta(days=1)
    with Tallybook("ck_test", url=stub.url) as tallybook, pytest.raises(ValueError, match="time zone"):
        tallybook.usage.track("user_1", "api_calls", timestamp=naive)
    assert stub.requests == []


def test_the_address_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, account: Account) -> None:
    monkeypatch.setenv("TALLYBOOK_API_KEY", account.key)
    monkeypatch.setenv("TALLYBOOK_URL", account.service.url + "/")
    with Tallybook() as tallybook:
        assert tallybook.customers.list().data == []
