"""Who sends the usage: one organization with a plan that every check applies to, and its customers."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import aiohttp

from tallybook.core import clock
from tallybook.core.tenant import Tenant
from tallybook.customers import actions as customer_actions
from tallybook.customers.model import NewCustomer
from tallybook.flows import billing
from tallybook.storage import postgres
from tallybook.storage.postgres import Pool
from tallybook.subscriptions.schedule import Order
from tallybook.tenancy import actions as tenancy

_AT_ONCE = 200
_STARTED_AGO = timedelta(days=4)
"""Before the oldest event that is sent."""
_PLAN = {"code": "flex", "name": "Flex", "consumptionModel": "balance", "blockOnExhaustion": True}
_PRICE = {"billingInterval": "monthly", "isDefault": True, "price": 0, "includedBalance": 50_000_000_000}
"""A balance of $5 million: the till asks for every event whether it covers it, and it always does."""
_FEATURES = {"chat": {"pricingMode": "ai_model", "margin": 20}, "exports": {"overage": {"unitPrice": 3}}}


@dataclass(frozen=True, slots=True)
class Account:
    """The organization's live mode, a key for it, and references of its customers."""

    tenant: Tenant
    key: str
    customers: Sequence[str]


async def make(database: Pool, url: str, customers: int) -> Account:
    """Make the organization over HTTP as anyone would, its many customers by the same actions in fewer transactions."""
    now = clock.real_clock()
    async with postgres.transaction(database) as connection:
        tenant, _sandbox = await tenancy.create_organization(connection, "Benchmark")
        key = (await tenancy.create_api_key(connection, tenant, now, "load", expires_in_days=None)).text
    await _make_plan(url, key)
    references = [f"customer_{number:07d}" for number in range(customers)]
    for start in range(0, customers, _AT_ONCE):
        await _subscribe(database, tenant, references[start : start + _AT_ONCE], now)
    return Account(tenant, key, references)


async def _make_plan(url: str, key: str) -> None:
    headers = {"x-api-key": key, "commet-version": "2026-08-27"}
    async with aiohttp.ClientSession(url, headers=headers, raise_for_status=True) as http:
        for code in _FEATURES:
            await http.post("/api/v1/features", json={"code": code, "name": code.title(), "type": "usage"})
        async with http.post("/api/v1/plans", json=_PLAN) as made:
            plan = (await made.json())["id"]
        await http.post(f"/api/v1/plans/{plan}/prices", json=_PRICE)
        for code, terms in _FEATURES.items():
            await http.post(f"/api/v1/plans/{plan}/features", json={"featureId": code, **terms})


async def _subscribe(database: Pool, tenant: Tenant, references: Sequence[str], now: datetime) -> None:
    async with postgres.transaction(database) as connection:
        for reference in references:
            new = NewCustomer(email=f"{reference}@example.com", external_id=reference)
            await customer_actions.create(connection, tenant, now, new)
            await billing.subscribe(connection, tenant, now, Order(reference, "flex", start_at=now - _STARTED_AGO))
