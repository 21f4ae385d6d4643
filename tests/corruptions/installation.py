"""A small installation in which everything has happened once: what corruptions are put into, and how they are taken out again."""

import contextlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace

import msgspec

from tallybook.ai_models import actions as ai_models
from tallybook.charge.till import Charge, Till, TillSettings
from tallybook.core import clock, ids, partitions
from tallybook.core.usage_log import Kind, Record
from tallybook.flows import claim, reconcile, reconcile_round
from tallybook.flows.services import Services
from tallybook.storage import postgres
from tallybook.storage.redis import Redis
from tests.support import api, billing, lost_tills
from tests.support.billing import Json, World
from tests.support.lost_tills import Copy

TABLES = (
    *("log_offsets", "usage_events", "usage_hourly", "pool_balances", "pool_ledger", "quarantine", "frozen_customers"),
    *("invoice_counters", "invoices", "invoice_lines", "overage_decisions"),
)
_KEPT = "kept"
_SONNET: Json = {"model": "claude-sonnet-4-6", "inputTokens": 10_000, "outputTokens": 2_000, "cacheReadTokens": 7_000}
_COSTLY: Json = {**_SONNET, "cacheWriteTokens": 2_000, "cacheWrite1hTokens": 500, "webSearchRequests": 3}
_EACH = 4


@dataclass(frozen=True, slots=True)
class Installation:
    """The stores, and how they looked when everything was in order. Part of the log is not in the book yet."""

    services: Services
    customers: Sequence[int]
    columns: dict[str, list[str]]
    till: Copy

    @property
    def database(self) -> postgres.Pool:
        return self.services.database

    @property
    def redis(self) -> Redis:
        return self.services.redis

    async def look(self) -> reconcile.Report:
        """What `tallybook reconcile` finds."""
        window_s = self.services.till.hot_window_s
        return await reconcile.reconcile(self.database, self.redis, api.PARTITIONS, hot_window_s=window_s)

    async def go_round(self) -> reconcile_round.Outcome:
        """What a worker that has just started finds in one round; customers whose pools differ are frozen."""
        till_settings = TillSettings(self.services.till.epoch, api.PARTITIONS, self.services.till.hot_window_s)
        till = Till(self.redis, till_settings, ask_book=claim.asker(self.database, api.PARTITIONS))
        services = replace(self.services, till=till)

        async def go_on() -> bool:
            return True

        return await reconcile_round.go_round(services, go_on)

    async def put_back(self, tables: Sequence[str]) -> None:
        """Everything as it was."""
        async with postgres.transaction(self.database) as connection:
            await connection.execute("SET LOCAL session_replication_role = replica")
            for table in {*tables, "frozen_customers"}:
                columns = ", ".join(self.columns[table])
                await connection.execute(f"DELETE FROM {table}")
                await connection.execute(
                    f"INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM {_KEPT}.{table}"
                )
        restores = [("RESTORE", key, 0, value) for key, value in self.till.items()]
        await self.redis.pipeline(("FLUSHALL",), *restores, atomic=True)


@contextlib.asynccontextmanager
async def made(database: postgres.Pool, client: Redis) -> AsyncGenerator[Installation]:
    """Build it over the API, and keep a copy of it."""
    hand = billing.HandClock(billing.at("2026-11-20T09:00:00"))
    services = await billing.make_services(database, client, hand)
    account = await api.make_account(database)
    async with api.serving(services) as caller:
        world = World(services, account, api.Api(caller, account.key), hand)
        async with billing.rolling(services):
            customers = await _live_two_months(world)
            await _fill_quarantine(world)
            await world.caught_up()
        for subscription in customers:
            await _use_some(world, subscription)
        yield await _keep(services)


async def _live_two_months(world: World) -> list[Json]:
    """Periods that are closed and billed, late usage, voids, corrections, top-ups; and again some usage."""
    async with postgres.transaction(world.services.database) as connection:
        await ai_models.load_packaged(connection, clock.real_clock)
    async with world.services.database.acquire() as connection:
        world.services.book = await ai_models.load_book(connection)
    await world.stand_at("2026-10-15T10:00:00")
    made = await _subscribe(world)
    for subscription in made:
        await _use_some(world, subscription)
    await _change_by_hand(world, made)
    await world.advance_to("2026-11-16T10:00:00")
    for subscription in made:
        await _use_some(world, subscription)
        await _use_some(world, subscription, timestamp="2026-11-14T22:00:00Z")
    await _change_by_hand(world, made)
    return made


async def _subscribe(world: World) -> list[Json]:
    """A customer on each kind of plan, and a second one on the metered plan."""
    await world.metered()
    await world.plan("studio", 1000, consumptionModel="credits", price_includedCredits=100)
    await world.feature("studio", "images", creditsPerUnit=10)
    await world.plan("flex", 5000, consumptionModel="balance", price_includedBalance=500)
    await world.feature("flex", "ai_chat", pricingMode="ai_model", margin=20)
    await world.feature("flex", "exports", overage={"enabled": True, "unitPrice": 100})
    made = [
        {**await world.subscribe(plan), "plan": plan, "features": features}
        for plan, features in (
            ("pro", ["api_calls"]),
            ("pro", ["api_calls"]),
            ("studio", ["images"]),
            ("flex", ["ai_chat", "exports"]),
        )
    ]
    await world.ask("POST", f"/subscriptions/{made[2]['id']}/balance/adjust", {"amount": 500, "reason": "a gift"})
    return made


async def _use_some(world: World, subscription: Json, **more: str) -> None:
    """Usage of all features, beyond what is included."""
    for feature in subscription["features"]:
        for number in range(_EACH):
            fields: Json = (
                (_COSTLY if number % 2 else _SONNET)
                if feature == "ai_chat"
                else {"value": 700.5 if feature == "api_calls" else 3}
            )
            event = {
                "customerId": subscription["customer"],
                "featureCode": feature,
                "eventId": f"e{next(world.events)}",
                **fields,
                **more,
            }
            await world.ask("POST", "/usage/events", event)


async def _change_by_hand(world: World, made: Sequence[Json]) -> None:
    """A void of each customer's last event, a corrected total, money taken away."""
    await world.caught_up()
    rows = await world.services.database.fetch(
        "SELECT DISTINCT ON (customer_id) digest FROM usage_events WHERE kind = 0 ORDER BY customer_id, seq DESC, position DESC"
    )
    for row in rows:
        await world.ask("POST", f"/usage/events/{ids.event_public_id(row['digest'])}/void", {"reason": "sent by mistake"})
    body = {"customerId": made[1]["customer"], "featureCode": "api_calls", "value": 1500, "reason": "recount"}
    await world.ask("PUT", "/usage", body)
    await world.ask("POST", f"/subscriptions/{made[3]['id']}/balance/adjust", {"amount": -10, "reason": "a fee"})


async def _fill_quarantine(world: World) -> None:
    """An event that no column holds: its effect is booked, the event is in quarantine."""
    row = await world.services.database.fetchrow(
        "SELECT * FROM usage_events WHERE kind = 0 AND pool LIKE '%.f%' ORDER BY seq DESC LIMIT 1"
    )
    assert row is not None
    tenant_id, customer_id = row["tenant_id"], row["customer_id"]
    record = Record(
        Kind.USAGE,
        tenant_id,
        customer_id,
        ids.event_digest(tenant_id, customer_id, "bad"),
        row["pool"],
        10**9,
        "bad\0id",
        row["feature_id"],
        int(row["period_start"].timestamp()),
        occurred_at_ms=clock.to_ms(row["occurred_at"]),
        quantity_nano=10**9,
    )
    pool = (await world.services.till.read(tenant_id, customer_id)).pools[row["pool"]]
    charge = Charge(partitions.of(tenant_id, customer_id, api.PARTITIONS), record, -(10**9), pool.opening)
    view = await world.services.till.read(tenant_id, customer_id)
    charge = msgspec.structs.replace(charge, tenant_version=view.tenant_version, customer_version=view.customer_version)
    await world.services.till.charge([charge])


async def _keep(services: Services) -> Installation:
    columns: dict[str, list[str]] = {}
    async with postgres.transaction(services.database) as connection:
        await connection.execute(f"CREATE SCHEMA {_KEPT}")
        for table in TABLES:
            await connection.execute(f"CREATE TABLE {_KEPT}.{table} AS TABLE {table}")
            rows = await connection.fetch(
                "SELECT attname FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped "
                "AND attgenerated = '' ORDER BY attnum",
                table,
            )
            columns[table] = [row["attname"] for row in rows]
    customers = await services.database.fetch("SELECT id FROM customers ORDER BY id")
    return Installation(services, [row["id"] for row in customers], columns, await lost_tills.copy_of(services.redis))
