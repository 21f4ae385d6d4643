"""An organization that has something of everything, so that operations find what they are asked for."""

import time
import uuid
from collections.abc import Mapping, Sequence

from tests.support.service import Account, Json

Known = Mapping[str, Sequence[str]]
"""Ids of things that exist, by collection: the segment of the path that stands before them. First the system's, last the caller's own."""

MODEL = "anthropic/claude-sonnet-4.6"
_AI: Json = {"pricingMode": "ai_model", "margin": 20}
_OK = 200
_PAUSE_S = 0.1
_PLANS = ("metered", "credits", "balance")


def furnish(account: Account, name: str = "our", *, has_clock: bool = True) -> Known:
    """Plans of all models, customers on each, usage, alerts, hooks, and (with a test clock) invoices of a month that is over.

    Whatever the caller may name is named after `name`.
    """
    for code in ("calls", "images", "chat"):
        account.feature(f"{name}_{code}")
    account.feature(f"{name}_sso", type="boolean")
    overage = {"includedAmount": 5, "overage": {"enabled": True, "unitPrice": 37}}
    features: Mapping[str, dict[str, Json]] = {
        "metered": {f"{name}_calls": overage, f"{name}_sso": {}},
        "credits": {f"{name}_images": {"creditsPerUnit": 3}},
        "balance": {f"{name}_chat": _AI},
    }
    included: Mapping[str, Json] = {"metered": {}, "credits": {"includedCredits": 90}, "balance": {"includedBalance": 20_000}}
    for plan in _PLANS:
        price = {"price": 900, **included[plan]}
        account.plan(f"{name}_{plan}", plan, price=price, features=features[plan])
        account.subscribe(f"{name}_customer_{plan}", f"{name}_{plan}")
    account.done("POST", "/customers", {"id": f"{name}_customer_alone", "email": "alone@example.com"})
    account.done("POST", "/ai-models/aliases", {"alias": f"zz-{name}-best", "model": MODEL})
    account.done("POST", "/ai-models/overrides", {"model": MODEL, "price": {"standard": [{"input": "2.4", "output": "12"}]}})
    account.done("POST", "/alerts", {"metric": "spend", "threshold": 90_000, "unit": "amount", "name": name})
    hook = account.done("POST", "/webhooks", {"url": "https://hooks.invalid/", "events": ["invoice.created"]})
    account.done("POST", f"/webhooks/{hook['id']}/test")
    use(account, name)
    if has_clock:
        account.advance(advanceDays=32)
        use(account, name)
    return _known(account, name)


def use(account: Account, name: str) -> None:
    """An event on each plan; what the month before had stands on an invoice by now."""
    ids = [f"{name}-event-{uuid.uuid4()}" for _ in _PLANS]
    tokens = {"model": MODEL, "inputTokens": 900, "outputTokens": 80}
    made = [
        account.track(featureCode=f"{name}_calls", customerId=f"{name}_customer_metered", value=7, eventId=ids[0]),
        account.track(featureCode=f"{name}_images", customerId=f"{name}_customer_credits", value=2, eventId=ids[1]),
        account.track(featureCode=f"{name}_chat", customerId=f"{name}_customer_balance", eventId=ids[2], **tokens),
    ]
    assert [answer.status for answer in made] == [200, 200, 200], made


def _known(account: Account, name: str) -> Known:
    def ids(path: str, field: str = "id") -> list[str]:
        return [str(one[field]) for one in account.done("GET", path)["data"]]

    plans = ids("/plans?includePrivate=true")
    hooks = ids("/webhooks")
    while len(events := ids("/usage/events")) < len(_PLANS):
        time.sleep(_PAUSE_S)
    invoices = ids("/invoices")
    billed = [(invoice, line) for invoice in invoices for line in _billed_lines(account, invoice)]
    return {
        "ai-models": [MODEL, "openai/gpt-4o"],
        "alerts": ids("/alerts"),
        "aliases": [f"zz-{name}-best"],
        "api-keys": ids("/api-keys"),
        "customers": [*ids("/customers"), *(f"{name}_customer_{plan}" for plan in _PLANS)],
        "deliveries": ids(f"/webhooks/{hooks[0]}/deliveries"),
        "events": events,
        "features": [*ids("/features"), *(f"{name}_{code}" for code in ("sso", "calls", "images", "chat"))],
        "invoices": [*invoices, *(invoice for invoice, _ in billed[-1:])],
        "lines": [line for _, line in billed],
        "loners": [f"{name}_customer_alone"],
        "overrides": ids("/ai-models/overrides"),
        "plans": [*plans, *(f"{name}_{plan}" for plan in _PLANS)],
        "prices": [price["id"] for plan in plans for price in account.done("GET", f"/plans/{plan}")["prices"]],
        "subscriptions": ids("/subscriptions"),
        "webhooks": hooks,
    }


def _billed_lines(account: Account, invoice: str) -> list[str]:
    """Positions of lines that usage stands behind."""
    positions = [str(number) for number in range(1, len(account.done("GET", f"/invoices/{invoice}")["lineItems"]) + 1)]
    return [one for one in positions if account.call("GET", f"/invoices/{invoice}/lines/{one}/usage").status == _OK]
