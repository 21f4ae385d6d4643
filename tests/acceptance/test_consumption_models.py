"""HTTP in, invoice out: the three consumption models, paid, free and in trial, as the business rules say."""

import concurrent.futures

import pytest

from tests.support.service import Account, Json

SONNET: Json = {
    "model": "anthropic/claude-sonnet-4.6",
    "inputTokens": 10_000,
    "outputTokens": 2_000,
    "cacheReadTokens": 7_000,
    "cacheWriteTokens": 1_000,
}


def lines(invoice: Json) -> list[tuple[str, int]]:
    return [(line["lineType"], line["amount"]) for line in invoice["lineItems"]]


def balance(account: Account, subscription: Json) -> float:
    return account.done("GET", f"/subscriptions/{subscription['id']}")["balance"]["remaining"]


def test_metered_usage_past_what_is_included_is_billed_at_the_period_end(account: Account) -> None:
    account.feature("api_calls")
    account.plan(
        "pro",
        "metered",
        price={"price": 9900},
        features={"api_calls": {"includedAmount": 1000, "overage": {"enabled": True, "unitPrice": 100}}},
    )
    account.subscribe("user_1", "pro")
    assert account.track(featureCode="api_calls", customerId="user_1", value=3500, eventId="a").status == 200
    access = account.done("GET", "/feature-access/api_calls?customerId=user_1")
    assert access["consumption"]["overage"]["units"] == 2500
    assert access["consumption"]["remainingUnits"] == 0
    account.advance(advanceDays=32)
    first, second = account.invoices("user_1")
    assert lines(first) == [("plan_base", 9900)]
    assert sorted(lines(second)) == [("feature_overage", 2500), ("plan_base", 9900)]
    assert second["total"] == 12_400
    assert account.done("GET", "/feature-access/api_calls?customerId=user_1")["consumption"]["unitsUsed"] == 0


def test_metered_usage_without_overage_stops_at_what_is_included_to_the_unit(account: Account) -> None:
    account.feature("api_calls")
    account.plan("capped", "metered", price={"price": 1000}, features={"api_calls": {"includedAmount": 10}})
    account.subscribe("user_1", "capped")
    assert account.track(featureCode="api_calls", customerId="user_1", value=9.5, eventId="a").status == 200
    refused = account.track(featureCode="api_calls", customerId="user_1", value=0.6, eventId="b")
    assert (refused.status, refused.error["code"]) == (402, "included_limit_reached")
    assert account.track(featureCode="api_calls", customerId="user_1", value=0.5, eventId="b").status == 200


def test_unlimited_metered_usage_is_counted_and_never_billed(account: Account) -> None:
    account.feature("api_calls")
    account.plan("open", "metered", price={"price": 1000}, features={"api_calls": {"unlimited": True}})
    account.subscribe("user_1", "open")
    assert account.track(featureCode="api_calls", customerId="user_1", value=1_000_000).status == 200
    account.advance(advanceDays=32)
    assert [lines(invoice) for invoice in account.invoices("user_1")] == [[("plan_base", 1000)], [("plan_base", 1000)]]


def test_credits_are_spent_from_the_plan_first_then_from_what_was_bought_then_refused(account: Account) -> None:
    account.feature("images")
    account.plan("studio", "credits", price={"price": 4900, "includedCredits": 100}, features={"images": {"creditsPerUnit": 10}})
    subscription = account.subscribe("user_1", "studio")
    spent = account.track(featureCode="images", customerId="user_1", value=9, eventId="a")
    assert spent.body["consumption"] == {"model": "credits", "deducted": 90, "remaining": 10, "blocked": False}
    refused = account.track(featureCode="images", customerId="user_1", value=2, eventId="b")
    assert (refused.status, refused.error["code"]) == (402, "insufficient_credits")
    adjusted = account.done("POST", f"/subscriptions/{subscription['id']}/balance/adjust", {"amount": 50, "type": "credits"})
    assert adjusted["newBalance"] == 60
    again = account.track(featureCode="images", customerId="user_1", value=2, eventId="b")
    assert again.body["consumption"]["remaining"] == 40
    account.advance(advanceDays=32)
    shown = account.done("GET", f"/subscriptions/{subscription['id']}")["credits"]
    assert (shown["remaining"], shown["purchased"]) == (100, 40)


def test_the_documented_ai_example_costs_exactly_what_the_documentation_says(account: Account) -> None:
    account.feature("ai_chat")
    account.plan(
        "ai",
        "balance",
        price={"price": 5000, "includedBalance": 500_000},
        features={"ai_chat": {"pricingMode": "ai_model", "margin": 20}},
    )
    account.subscribe("user_1", "ai")
    tracked = account.track(featureCode="ai_chat", customerId="user_1", eventId="doc", **SONNET)
    assert tracked.body["consumption"]["deducted"] == 502.2
    assert tracked.body["consumption"]["remaining"] == 500_000 - 502.2


def test_a_balance_plan_that_does_not_block_bills_the_overdraft(account: Account) -> None:
    account.feature("exports")
    account.plan(
        "flex", "balance", price={"price": 5000, "includedBalance": 10_000}, features={"exports": {"overage": {"unitPrice": 500}}}
    )
    subscription = account.subscribe("user_1", "flex")
    assert account.track(featureCode="exports", customerId="user_1", value=30).status == 200
    assert balance(account, subscription) == -5_000
    account.advance(advanceDays=32)
    _, second = account.invoices("user_1")
    assert sorted(lines(second)) == [("balance_overage", 50), ("plan_base", 5000)]
    assert balance(account, subscription) == 10_000


def test_a_balance_plan_that_blocks_refuses_what_it_can_not_pay(account: Account) -> None:
    account.feature("exports")
    features: dict[str, Json] = {"exports": {"overage": {"unitPrice": 500}}}
    account.plan("strict", "balance", price={"price": 5000, "includedBalance": 1_000}, features=features, blockOnExhaustion=True)
    account.subscribe("user_1", "strict")
    assert account.track(featureCode="exports", customerId="user_1", value=2).status == 200
    refused = account.track(featureCode="exports", customerId="user_1", value=0.000000001)
    assert refused.status == 200, "half a millionth of a cent rounds to nothing"
    refused = account.track(featureCode="exports", customerId="user_1", value=0.01)
    assert (refused.status, refused.error["code"]) == (402, "insufficient_balance")


def test_a_free_plan_stops_at_what_is_included_resets_monthly_and_never_invoices(account: Account) -> None:
    account.feature("api_calls")
    account.plan("free", "metered", features={"api_calls": {"includedAmount": 5}}, isFree=True)
    assert account.subscribe("user_1", "free")["status"] == "active"
    assert account.track(featureCode="api_calls", customerId="user_1", value=5).status == 200
    assert account.track(featureCode="api_calls", customerId="user_1", value=1).error["code"] == "included_limit_reached"
    account.advance(advanceDays=32)
    assert account.track(featureCode="api_calls", customerId="user_1", value=5).status == 200
    assert account.invoices("user_1") == []


def test_a_trial_blocks_overage_until_it_ends_and_is_then_charged(account: Account) -> None:
    account.feature("api_calls")
    overage: Json = {"includedAmount": 5, "overage": {"enabled": True, "unitPrice": 100}}
    account.plan("pro", "metered", price={"price": 9900, "trialDays": 14}, features={"api_calls": overage})
    assert account.subscribe("user_1", "pro")["status"] == "trialing"
    assert account.track(featureCode="api_calls", customerId="user_1", value=6).error["code"] == "included_limit_reached"
    account.advance(advanceDays=15)
    assert account.track(featureCode="api_calls", customerId="user_1", value=6).status == 200
    assert [lines(invoice) for invoice in account.invoices("user_1")] == [[("plan_base", 9900)]]


def test_eight_clients_get_exactly_a_thousand_events_out_of_a_thousand_credits(account: Account) -> None:
    account.feature("images")
    account.plan("studio", "credits", price={"price": 4900, "includedCredits": 1000}, features={"images": {"creditsPerUnit": 1}})
    account.subscribe("user_1", "studio")

    def client(name: int) -> int:
        batches = [
            [{"featureCode": "images", "customerId": "user_1", "eventId": f"{name}-{i}-{j}"} for j in range(25)] for i in range(7)
        ]
        singles = [
            account.track(featureCode="images", customerId="user_1", eventId=f"{name}-s{i}").status == 200 for i in range(15)
        ]
        return sum(account.batch(events)["accepted"] for events in batches) + sum(singles)

    with concurrent.futures.ThreadPoolExecutor(8) as clients:
        assert sum(clients.map(client, range(8))) == 1000


@pytest.mark.parametrize("days", [91])
def test_a_quarterly_plan_bills_overage_monthly_and_its_base_every_three_months(account: Account, days: int) -> None:
    account.feature("api_calls")
    overage: Json = {"includedAmount": 10, "overage": {"enabled": True, "unitPrice": 100}}
    account.plan("quarter", "metered", price={"price": 30_000, "billingInterval": "quarterly"}, features={"api_calls": overage})
    account.advance(frozenTime="2027-01-31T00:00:00Z")
    account.subscribe("user_1", "quarter")
    account.advance(frozenTime="2027-03-01T00:00:00Z")
    assert account.track(featureCode="api_calls", customerId="user_1", value=510).status == 200
    account.advance(advanceDays=days)
    invoices = account.invoices("user_1")
    assert [(invoice["invoiceType"], lines(invoice)) for invoice in invoices] == [
        ("recurring", [("plan_base", 30_000)]),
        ("overage", [("feature_overage", 500)]),
        ("recurring", [("plan_base", 30_000)]),
    ]
    assert [invoice["periodStart"][:10] for invoice in invoices] == ["2027-01-31", "2027-02-28", "2027-04-30"]
