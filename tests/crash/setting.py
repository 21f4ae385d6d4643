"""The organization under load: plans of all three models, some that block and some that do not, and customers on each."""

from collections.abc import Sequence
from datetime import timedelta

from tallybook.core import clock, money
from tallybook.storage.postgres import Connection
from tallybook.tenancy import actions as tenancy
from tests.crash.load import Customer
from tests.support.service import Account, Json, Service

CUSTOMERS_EACH = 6
"""Customers on each plan."""
NEVER_REFUSED = ("open_", "flex_")
"""How references of customers begin whose plans go on beyond what they include; the others' run dry."""
_AI: Json = {"pricingMode": "ai_model", "margin": 20}


async def make_account(connection: Connection, service: Service) -> tuple[int, Account]:
    """A sandbox tenant and a key for it."""
    async with connection.transaction():
        _live, sandbox = await tenancy.create_organization(connection, "Crash test")
        made = await tenancy.create_api_key(connection, sandbox, clock.real_clock(), "load", expires_in_days=None)
    return sandbox.id, Account(service, sandbox.organization_id, made.text)


def make_plans(account: Account) -> None:
    """One plan a model and manner of ending."""
    for code in ("calls", "images", "chat", "exports"):
        account.feature(code)
    account.plan(
        "open",
        "metered",
        price={"price": 900},
        features={"calls": {"includedAmount": 50, "overage": {"enabled": True, "unitPrice": 37}}},
    )
    account.plan("capped", "metered", price={"price": 900}, features={"calls": {"includedAmount": 400}})
    account.plan("studio", "credits", price={"price": 900, "includedCredits": 900}, features={"images": {"creditsPerUnit": 3}})
    balance: Json = {"price": 900, "includedBalance": 20_000}
    account.plan("flex", "balance", price=balance, features={"chat": _AI, "exports": {"overage": {"unitPrice": 3}}})
    account.plan("strict", "balance", price=balance, features={"chat": _AI}, blockOnExhaustion=True)


def make_customers(account: Account, each: int) -> list[tuple[str, str]]:
    """So many customers on each plan, whose periods all end at the same moment. Returns (reference, plan)."""
    began = clock.iso(clock.real_clock() - timedelta(minutes=1))
    made: list[tuple[str, str]] = []
    for plan in ("open", "capped", "studio", "flex", "strict"):
        for number in range(each):
            reference = f"{plan}_{number}"
            account.subscribe(reference, plan, startDate=began)
            made.append((reference, plan))
    return made


async def customers(connection: Connection, tenant_id: int, made: Sequence[tuple[str, str]]) -> list[Customer]:
    """The customers as the load client needs them."""
    rows = await connection.fetch("SELECT id, external_id FROM customers WHERE tenant_id = $1", tenant_id)
    ids = {row["external_id"]: row["id"] for row in rows}
    found: list[Customer] = []
    for reference, plan in made:
        is_ai = plan in ("flex", "strict")
        feature = "chat" if is_ai else {"studio": "images"}.get(plan, "calls")
        scale = money.NANO_PER_RATE if is_ai else {"studio": money.NANO}.get(plan, 0)
        found.append(Customer(ids[reference], reference, feature, is_ai, scale))
        if plan == "flex":
            found.append(Customer(ids[reference], reference, "exports", is_ai=False, amount_scale=money.NANO_PER_RATE))
    return found
