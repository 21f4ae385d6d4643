"""AI models end to end: an unknown one is refused and never free; what an organization sets holds in every process at once."""

import concurrent.futures
import dataclasses

import httpx
import pytest

from tests.support.service import Account, Answer, Json

TOKENS: Json = {"inputTokens": 10_000, "outputTokens": 2_000, "cacheReadTokens": 7_000, "cacheWriteTokens": 1_000}
CALLERS = 12


@pytest.fixture
def chatting(account: Account) -> Account:
    """A customer with $50 for a feature that is priced by model, at 20 %."""
    account.feature("ai_chat")
    terms: Json = {"pricingMode": "ai_model", "margin": 20}
    account.plan("ai", "balance", price={"price": 5000, "includedBalance": 500_000}, features={"ai_chat": terms})
    account.subscribe("user_1", "ai")
    return account


def event(model: str, event_id: str = "e1") -> Json:
    return {"featureCode": "ai_chat", "customerId": "user_1", "eventId": event_id, "model": model, **TOKENS}


def balance(account: Account) -> float:
    [subscription] = account.done("GET", "/subscriptions?customerId=user_1")["data"]
    return account.done("GET", f"/subscriptions/{subscription['id']}")["balance"]["remaining"]


def send_from_many_connections(account: Account, model: str, prefix: str) -> list[Answer]:
    """The same kind of event over connections of their own, so that every API process gets some."""

    def send(number: int) -> Answer:
        with httpx.Client(timeout=60.0) as http:
            own = dataclasses.replace(account, service=dataclasses.replace(account.service, http=http))
            return own.track(**event(model, f"{prefix}{number}"))

    with concurrent.futures.ThreadPoolExecutor(4) as callers:
        return list(callers.map(send, range(CALLERS)))


def test_an_unknown_model_is_refused_and_taken_after_an_alias_is_added(chatting: Account) -> None:
    refused = chatting.track(**event("claude-sonet-4.6"))
    assert (refused.status, refused.error["code"], refused.error["param"]) == (404, "model_not_found", "model")
    assert refused.error["details"]["nearest"][0] == "anthropic/claude-sonnet-4.6"
    assert balance(chatting) == 500_000
    chatting.done("POST", "/ai-models/aliases", {"alias": "claude-sonet-4.6", "model": "anthropic/claude-sonnet-4.6"})
    taken = chatting.track(**event("claude-sonet-4.6"))
    assert (taken.status, taken.body["consumption"]["deducted"]) == (200, 502.2)
    assert balance(chatting) == 499_497.8


def test_in_a_batch_an_unknown_model_costs_no_other_event(chatting: Account) -> None:
    batch = chatting.batch([event("gpt-4o", "e1"), event("no-such-model", "e2"), event("gpt-4o", "e3")])
    assert [result["status"] for result in batch["results"]] == ["accepted", "invalid", "accepted"]
    assert batch["results"][1]["error"]["code"] == "model_not_found"


def test_an_alias_and_an_own_price_hold_in_every_process_at_once(chatting: Account) -> None:
    assert {answer.status for answer in send_from_many_connections(chatting, "our-best", "a")} == {404}
    chatting.done("POST", "/ai-models/aliases", {"alias": "our-best", "model": "claude-sonnet-4-6"})
    taken = send_from_many_connections(chatting, "our-best", "a")
    assert {answer.body["consumption"]["deducted"] for answer in taken} == {502.2}
    price = {"standard": [{"input": "1.5", "output": "7.5", "cacheRead": "0.15", "cacheWrite": "1.875"}]}
    chatting.done("POST", "/ai-models/overrides", {"model": "anthropic/claude-sonnet-*", "price": price})
    halved = send_from_many_connections(chatting, "our-best", "b")
    assert {answer.body["consumption"]["deducted"] for answer in halved} == {251.1}


def test_a_customers_own_margin_holds_in_every_process_at_once(chatting: Account) -> None:
    assert chatting.track(**event("claude-sonnet-4.6")).body["consumption"]["deducted"] == 502.2
    chatting.done("PUT", "/customers/user_1/ai-margin", {"margin": 0})
    taken = send_from_many_connections(chatting, "claude-sonnet-4.6", "m")
    assert {answer.body["consumption"]["deducted"] for answer in taken} == {418.5}


def test_the_state_of_the_catalog_is_in_the_metrics_and_the_api(chatting: Account) -> None:
    state = chatting.done("GET", "/ai-models/sync")
    assert (state["last"]["status"], state["last"]["source"], state["last"]["priced"] >= 180) == ("published", "packaged", True)
    text = chatting.service.http.get(f"{chatting.service.url}/metrics").text
    assert 'tallybook_catalog_sync_status{status="published"} 1.0' in text
    assert "tallybook_catalog_version " in text
