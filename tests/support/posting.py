"""Webhooks sent by hand, for tests: what the worker does, a step at a time and on the test's clock."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from tallybook.entrypoints import webhook_sender
from tallybook.entrypoints.webhook_sender import Sender
from tallybook.entrypoints.workers import webhooks
from tallybook.storage import postgres
from tallybook.tenancy import actions as tenancy
from tallybook.webhooks.sealing import Keeper
from tests.support.billing import World
from tests.support.receiver import Receiver

Json = dict[str, Any]
EVENTS = ("invoice.created", "subscription.created", "subscription.activated", "subscription.canceled", "subscription.updated")


@dataclass(slots=True)
class Office:
    """A world whose webhooks go out when the test says so. Jitter is none."""

    world: World
    sender: Sender

    async def endpoint(self, receiver: Receiver, *events: str) -> Json:
        """An endpoint at a receiver, which learns its secret and the time."""
        made = await self.world.ask("POST", "/webhooks", {"url": receiver.url, "events": list(events or EVENTS)})
        receiver.secret = made["secretKey"]
        receiver.now_s = lambda: self.world.clock().timestamp()
        return made

    async def announce(self, topic: str = "invoice.created", **payload: object) -> None:
        """Something that happened."""
        async with postgres.transaction(self.world.services.database) as connection:
            await tenancy.announce(connection, self.world.tenant, topic, payload)

    async def fan_out(self) -> int:
        """Turn announcements into deliveries."""
        return await webhooks.fan_out(self.world.services)

    async def send(self) -> int:
        """Make the attempts that are due. Returns to how many endpoints."""
        post = webhooks.Post(self.world.services, self.sender, jitter=lambda: 0.0)
        count = await webhooks.begin(post)
        await asyncio.gather(*post.under_way.values())
        return count

    async def deliver(self) -> None:
        """Announcements to deliveries to attempts, until nothing is due."""
        while await self.fan_out() + await self.send():
            pass

    async def deliveries(self, endpoint: Json, **params: str) -> Sequence[Json]:
        """What became of an endpoint's messages, oldest first."""
        listed = await self.world.ask("GET", f"/webhooks/{endpoint['id']}/deliveries", params={"limit": "100", **params})
        return list(reversed(listed["data"]))


@asynccontextmanager
async def opened(world: World, postgres_url: str) -> AsyncGenerator[Office]:
    """An office for a world, where receivers are on this machine."""
    world.services.settings = replace(world.services.settings, webhook_allow_private=True, postgres_url=postgres_url)
    async with webhook_sender.open_sender(Keeper(), allow_private=True) as sender:
        yield Office(world, sender)
