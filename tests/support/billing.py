"""A sandbox with plans, customers and a clock that stands where the test puts it, for tests of periods and invoices."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from tallybook.core.clock import real_clock
from tallybook.core.tenant import Tenant
from tallybook.flows import alerting, period, terms, test_clock
from tallybook.flows.services import Services
from tallybook.flows.terms_cache import TermsCache
from tallybook.rollup import actions as rollup
from tallybook.rollup import store as rollup_store
from tallybook.rollup.model import OffsetMovedError, UnknownLogError
from tallybook.storage import postgres
from tallybook.storage.redis import Redis, RedisError
from tallybook.subscriptions import clock_store
from tallybook.tenancy import actions as tenancy
from tests.support import api, waiting
from tests.support.api import Account, Api

Json = dict[str, Any]
_numbers = itertools.count(1)
_AWAY = (*postgres.TRANSIENT_ERRORS, postgres.PostgresError, RedisError, UnknownLogError, OffsetMovedError)


def at(text: str) -> datetime:
    """A moment in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@dataclass(slots=True)
class HandClock:
    """A real clock that a test sets."""

    shows: datetime

    def __call__(self) -> datetime:
        return self.shows


@dataclass(frozen=True, slots=True)
class World:
    """One organization of a served API, whose log is rolled up in the background."""

    services: Services
    account: Account
    api: Api
    clock: HandClock
    events: Iterator[int] = field(default_factory=itertools.count)

    @property
    def tenant(self) -> Tenant:
        """The sandbox."""
        return self.account.tenant

    async def ask(
        self, method: str, path: str, body: object = None, *, status: int = 200, params: Mapping[str, str] | None = None
    ) -> Any:  # noqa: ANN401 - JSON
        """The body of an answer that has the expected status."""
        answer = await self.api.send(method, f"/api/v1{path}", body, params=params)
        assert answer.status == status, (method, path, answer.status, answer.body)
        return answer.body

    async def refused(
        self, method: str, path: str, body: object = None, *, params: Mapping[str, str] | None = None
    ) -> tuple[int, str]:
        """Status and code of an error."""
        answer = await self.api.send(method, f"/api/v1{path}", body, params=params)
        return answer.status, answer.code

    async def stand_at(self, text: str) -> None:
        """Put the sandbox's clock somewhere without billing anything."""
        async with postgres.transaction(self.services.database) as connection:
            await tenancy.set_simulated_time(connection, self.tenant, at(text))
        await terms.publish(self.services, self.tenant)

    async def advance_to(self, text: str) -> Json:
        """Turn the test clock over the API, carry the run out, and return it."""
        await self.ask("POST", "/test-clock", {"frozenTime": at(text).isoformat()}, status=202)
        await test_clock.carry_on(self.services)
        clock = await self.ask("GET", "/test-clock")
        assert clock["latestRun"]["status"] == "completed", clock
        return clock["latestRun"]

    async def plan(self, code: str, price: int | None = 9900, interval: str = "monthly", **fields: Any) -> Json:  # noqa: ANN401 - JSON
        """A plan with one price; fields of the price begin with `price_`."""
        of_price = {name.removeprefix("price_"): value for name, value in fields.items() if name.startswith("price_")}
        of_plan = {name: value for name, value in fields.items() if not name.startswith("price_")}
        plan = await self.ask("POST", "/plans", {"name": code.title(), "code": code, **of_plan})
        if price is not None:
            await self.add_price(code, price, interval, **of_price)
        return plan

    async def add_price(self, plan: str, price: int, interval: str, **fields: Any) -> Json:  # noqa: ANN401 - JSON
        """Another price of a plan."""
        return await self.ask("POST", f"/plans/{plan}/prices", {"billingInterval": interval, "price": price, **fields})

    async def feature(self, plan: str, code: str, **settings: Any) -> None:  # noqa: ANN401 - JSON
        """A usage feature on a plan."""
        answer = await self.api.send("POST", "/api/v1/features", {"name": code, "code": code, "type": "usage"})
        assert answer.status in (200, 409), answer
        await self.ask("POST", f"/plans/{plan}/features", {"featureId": code, **settings})

    async def metered(self, interval: str = "monthly", price: int = 9900) -> None:
        """The plan `pro`: 1000 calls included, a cent each beyond."""
        await self.plan("pro", price, interval)
        await self.feature("pro", "api_calls", includedAmount=1000, overage={"enabled": True, "unitPrice": 100})

    async def customer(self) -> str:
        """A new customer's own id."""
        reference = f"user_{next(_numbers)}"
        await self.ask("POST", "/customers", {"id": reference, "email": f"{reference}@example.com", "fullName": "Ada"})
        return reference

    async def subscribe(self, plan: str, customer: str | None = None, **fields: Any) -> Json:  # noqa: ANN401 - JSON
        """A subscription of a new customer, unless one is given."""
        reference = customer or await self.customer()
        created = await self.ask("POST", "/subscriptions", {"customerId": reference, "planCode": plan, **fields})
        return created | {"customer": reference}

    async def use(self, customer: str, feature: str, value: float = 1, *, status: int = 200, **fields: Any) -> Json:  # noqa: ANN401 - JSON
        """One usage event."""
        event = {"customerId": customer, "featureCode": feature, "value": value, "eventId": f"e{next(self.events)}", **fields}
        return await self.ask("POST", "/usage/events", event, status=status)

    async def invoices(self, subscription: Json) -> list[Json]:
        """The subscription's invoices with their lines, oldest first."""
        listed = await self.ask("GET", "/invoices", params={"subscriptionId": subscription["id"]})
        return [await self.ask("GET", f"/invoices/{item['id']}") for item in reversed(listed["data"])]

    async def topics(self, *prefixes: str) -> list[str]:
        """What was announced, in order."""
        rows = await self.services.database.fetch("SELECT topic FROM outbox WHERE tenant_id = $1 ORDER BY id", self.tenant.id)
        return [row["topic"] for row in rows if not prefixes or row["topic"].startswith(prefixes)]

    async def periods(self, subscription: Json) -> list[tuple[str, str, str]]:
        """Start, end and state of the subscription's usage periods."""
        rows = await self.services.database.fetch(
            "SELECT p.starts_at, p.ends_at, p.state FROM billing_periods AS p JOIN subscriptions AS s ON s.id = p.subscription_id "
            "WHERE s.public_id = $1 ORDER BY p.starts_at",
            subscription["id"],
        )
        return [(f"{row['starts_at']:%Y-%m-%d}", f"{row['ends_at']:%Y-%m-%d}", row["state"]) for row in rows]

    async def caught_up(self) -> None:
        """Wait until the book has read all of the log."""

        async def is_level() -> bool:
            rows = await self.services.database.fetch("SELECT last_seq FROM log_offsets ORDER BY partition")
            return [row["last_seq"] for row in rows] == await self.services.till.sequences()

        await waiting.until(is_level)

    async def forget_ids(self) -> None:
        """Do to the till's memory what two hot windows do."""
        keys = await self.services.redis.execute_command("KEYS", "{p*}:d:*")
        if keys:
            await self.services.redis.execute_command("DEL", *keys)

    async def close_due(self) -> list[period.Settled]:
        """Close what is due by now; nothing may be left undone."""
        results = await period.close_due(self.services)
        settled = [result for result in results if isinstance(result, period.Settled)]
        assert len(settled) == len(results), results
        return settled

    async def runs(self) -> list[str]:
        """Ids of unfinished runs of the test clock."""
        async with self.services.database.acquire() as connection:
            return [run.id for run in await clock_store.unfinished(connection, 100)]


def stores_agree(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have Postgres show what the test's clock shows, as it does where clocks are right."""

    async def shown(_pool: postgres.Pool) -> datetime:
        return world.clock.shows

    monkeypatch.setattr(postgres, "server_time", shown)


def line(invoice: Json, line_type: str) -> Json:
    """The one line of a type."""
    [found] = [item for item in invoice["lineItems"] if item["lineType"] == line_type]
    return found


@contextlib.asynccontextmanager
async def rolling(services: Services) -> AsyncGenerator[None]:
    """The rollup at work in the background; like the worker it waits for stores that are away."""
    stop = asyncio.Event()
    alerts = alerting.judge_with(services.clock)

    async def work() -> None:
        while not stop.is_set():
            with contextlib.suppress(*_AWAY):
                partitions = range(services.settings.partitions)
                await rollup.roll_up(services.database, services.redis, partitions, services.clock(), services.till.epoch, alerts)
            await asyncio.sleep(0.01)

    await rollup_store.ensure_offsets(services.database, services.settings.partitions)
    task = asyncio.create_task(work())
    try:
        yield
    finally:
        stop.set()
        await task


async def make_services(database: postgres.Pool, client: Redis, clock: HandClock) -> Services:
    """Services whose real clock is the test's; periods close without grace unless a test gives one."""
    services = await api.make_services(database, client)
    settings = replace(services.settings, period_grace_s=0)
    found = replace(services, clock=clock, settings=settings, terms=TermsCache(database, clock, api.PARTITIONS))
    await rollup.prepare(database, api.PARTITIONS, real_clock())
    return found


async def forget_everything(database: postgres.Pool, client: Redis) -> None:
    """Empty both stores, so that sums over everything are about one test."""
    await client.execute_command("FLUSHALL")
    tables = "organizations, installation, log_offsets, usage_events, usage_hourly, pool_balances, pool_ledger"
    await database.execute(f"TRUNCATE {tables} CASCADE")


@contextlib.asynccontextmanager
async def world(database: postgres.Pool, client: Redis) -> AsyncGenerator[World]:
    """A new organization on a served API; its real clock shows 20 November 2026, 9 o'clock."""
    clock = HandClock(at("2026-11-20T09:00:00"))
    services = await make_services(database, client, clock)
    account = await api.make_account(database)
    async with rolling(services), api.serving(services) as caller:
        yield World(services, account, Api(caller, account.key), clock)
