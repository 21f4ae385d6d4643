"""Reports of a running service: what was sent is what is reported."""

import time
from decimal import Decimal

import pytest

from tests.support.service import Account, Json


@pytest.fixture
def sent(account: Account) -> Account:
    """Ten AI events of one customer, three calls of another, and one of them taken back."""
    account.feature("ai_chat")
    account.feature("api_calls")
    account.plan("ai", "balance", price={"price": 5000}, features={"ai_chat": {"pricingMode": "ai_model", "margin": 20}})
    account.plan("pro", "metered", price={"price": 9900}, features={"api_calls": {"includedAmount": 1000}})
    account.subscribe("asker", "ai")
    account.subscribe("caller", "pro")
    for number in range(10):
        tokens = {"model": "claude-sonnet-4-6", "inputTokens": 1000 + number, "outputTokens": 10}
        account.done(
            "POST", "/usage/events", {"featureCode": "ai_chat", "customerId": "asker", "eventId": f"a{number}", **tokens}
        )
    calls = [
        account.done(
            "POST", "/usage/events", {"featureCode": "api_calls", "customerId": "caller", "eventId": f"c{number}", "value": 2.5}
        )
        for number in range(3)
    ]
    while account.done("GET", "/reports/usage?groupBy=")["totals"]["events"] < 13:
        time.sleep(0.05)
    account.done("POST", f"/usage/events/{calls[0]['id']}/void", {"reason": "twice"})
    while account.done("GET", "/reports/usage?groupBy=")["totals"]["events"] > 12:
        time.sleep(0.05)
    return account


def rows(account: Account, path: str) -> list[Json]:
    return account.done("GET", path)["data"]


def test_reports_of_a_running_service_say_what_was_sent(sent: Account) -> None:
    by_customer = {row["externalId"]: row for row in rows(sent, "/reports/usage?groupBy=customerId&timeZone=Asia/Kolkata")}
    assert (by_customer["caller"]["quantity"], by_customer["caller"]["events"]) == ("5", 2)
    [costs] = rows(sent, "/reports/ai-costs")
    assert (costs["model"], costs["events"]) == ("anthropic/claude-sonnet-4.6", 10)
    assert (costs["inputTokens"], costs["outputTokens"]) == (10_045, 100)
    cost = Decimal(10_045 * 3 + 100 * 15) / 10**6
    assert (Decimal(costs["cost"]), Decimal(costs["charge"]), costs["markupPercent"]) == (cost, cost * 12 / 10, "20")
    events = rows(sent, "/usage/events?customerId=asker")
    assert sum(Decimal(event["charge"]) for event in events) == Decimal(costs["charge"])
    kinds = [event["kind"] for event in rows(sent, "/usage/events?customerId=caller")]
    assert sorted(kinds) == ["usage", "usage", "usage", "void"]


def test_revenue_of_a_running_service_is_what_its_invoices_ask_for(sent: Account) -> None:
    revenue = sent.done("GET", "/reports/revenue")
    invoiced = sum(invoice["total"] for invoice in rows(sent, "/invoices"))
    assert Decimal(revenue["totals"]["revenue"]) * 100 == invoiced == 14_900
    assert {row["planCode"]: row["revenue"] for row in revenue["data"]} == {"ai": "50", "pro": "99"}
    assert rows(sent, "/reports/top-customers?by=revenue")[0]["externalId"] == "caller"
    assert {row["planCode"] for row in rows(sent, "/reports/forecast")} == {"ai", "pro"}
