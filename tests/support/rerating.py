"""A sandbox with an AI plan whose past usage is priced again: for tests of re-rating."""

import contextlib
from collections.abc import AsyncGenerator

from tallybook.ai_models import actions
from tallybook.core import clock
from tallybook.flows import reconcile, rerate
from tallybook.flows.rerate import Difference, Window
from tallybook.pricing.rates import Band, Listed, Price
from tallybook.storage import postgres
from tallybook.storage.redis import Redis
from tests.support import billing
from tests.support.billing import Json, World, at

SONNET: Json = {"inputTokens": 10_000, "outputTokens": 2_000, "cacheReadTokens": 7_000, "cacheWriteTokens": 1_000}
CHARGE = 50_220_000
HALF = Price((Band(0, Listed(1_500_000, 7_500_000, 150_000, 1_875_000)),), {}, 10**10)
DOUBLE = Price((Band(0, Listed(6_000_000, 30_000_000, 600_000, 7_500_000)),))
DAY = ("2026-11-10T00:00:00", "2026-11-11T00:00:00")


@contextlib.asynccontextmanager
async def rerating_world(database: postgres.Pool, client: Redis) -> AsyncGenerator[World]:
    """An organization with the packaged catalog, on the morning of `DAY`."""
    async with billing.world(database, client) as made:
        async with postgres.transaction(database) as connection:
            await actions.load_packaged(connection, clock.real_clock)
        async with database.acquire() as connection:
            made.services.book = await actions.load_book(connection)
        await made.stand_at("2026-11-10T08:30:00")
        yield made


async def subscribed(world: World, *, blocks: bool = False) -> Json:
    """A customer with a balance of $50 and 20 % margin on AI usage."""
    await world.plan("ai", 5000, consumptionModel="balance", price_includedBalance=500_000, blockOnExhaustion=blocks)
    await world.feature("ai", "ai_chat", pricingMode="ai_model", margin=20)
    return await world.subscribe("ai")


async def use(world: World, subscription: Json, **fields: object) -> str:
    """Send the documentation's example, which takes `CHARGE`, or a change of it. Returns the event's id."""
    event = {
        "customerId": subscription["customer"],
        "featureCode": "ai_chat",
        "eventId": f"r{next(world.events)}",
        "model": "claude-sonnet-4-6",
        **SONNET,
        **fields,
    }
    return (await world.ask("POST", "/usage/events", event))["id"]


async def set_price(world: World, price: Price, since: str, pattern: str = "anthropic/claude-sonnet-4.6") -> None:
    """Set a price of the organization's own, as another process would: this one has not heard of it."""
    async with postgres.transaction(world.services.database) as connection:
        await actions.set_override(connection, world.tenant, pattern, price, world.clock(), at(since))


async def survey(world: World, starts_at: str = DAY[0], ends_at: str = DAY[1]) -> list[Difference]:
    """What differs, customer by customer."""
    window = Window(at(starts_at), at(ends_at), world.tenant.id)
    return [difference async for difference in rerate.survey(world.services, window)]


async def apply(world: World, starts_at: str = DAY[0], ends_at: str = DAY[1]) -> int:
    """Re-rate; returns what was taken (negative: given back)."""
    taken = 0
    for difference in await survey(world, starts_at, ends_at):
        written = await rerate.write(world.services, difference)
        assert written.refused is None
        taken += sum(one.nano for one in written.adjusted)
    return taken


async def end_prices(world: World, since: str) -> None:
    """End the tenant's own prices as of a time, so that the catalog's hold again."""
    async with postgres.transaction(world.services.database) as connection:
        for own in await actions.list_overrides(connection, world.tenant):
            if own.effective_to_ms is None:
                await actions.end_override(connection, world.tenant, own.id, world.clock(), at(since))


async def void(world: World, event_id: str) -> None:
    """Take an event back, once the book has it."""
    await world.caught_up()
    await world.ask("POST", f"/usage/events/{event_id}/void", {"reason": "a mistake"})


async def balance(world: World, subscription: Json) -> float:
    """What is left, in rate scale."""
    return (await world.ask("GET", f"/subscriptions/{subscription['id']}"))["balance"]["remaining"]


async def is_clean(world: World) -> bool:
    """Whether all sums agree, once the book has read the log."""
    services = world.services
    await survey(world)
    report = await reconcile.reconcile(services.database, services.redis, services.settings.partitions)
    return report.is_clean
