"""A key that is revoked while one process has lost sight of Postgres, which takes good keys from memory for a while."""

from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest

from tallybook.entrypoints.http import auth
from tallybook.flows.terms_cache import TermsCache
from tallybook.storage import postgres
from tallybook.storage.redis import Redis
from tests.support import api, billing
from tests.support.api import Api
from tests.support.billing import World


@pytest.fixture
async def world(database: postgres.Pool, redis_client: Redis) -> AsyncGenerator[World]:
    async with billing.world(database, redis_client) as made:
        yield made


async def test_a_process_that_alone_lost_postgres_takes_usage_of_good_keys_and_none_of_a_revoked_one(
    world: World, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when a revocation is told to the book only: the key would be good there for as long as the grace lasts."""
    await world.metered()
    customer = (await world.subscribe("pro"))["customer"]
    own_sight = await postgres.connect(postgres_url)
    services = replace(
        world.services, database=own_sight, terms=TermsCache(own_sight, world.services.clock, world.services.settings.partitions)
    )
    question = {"customerId": customer, "featureCode": "api_calls"}
    async with api.serving(services) as client:
        other = Api(client, world.account.key)

        async def use(event_id: str) -> int:
            event = {**question, "eventId": event_id, "value": 1}
            return (await other.send("POST", "/api/v1/usage/events", event)).status

        async def check() -> int:
            return (await other.send("POST", "/api/v1/usage/check", question)).status

        assert (await use("before"), await check()) == (200, 200)
        own_sight.terminate()
        monkeypatch.setattr(auth, "FRESH_S", 0.0)
        assert (await use("in the dark"), await check()) == (200, 200)
        await world.ask("DELETE", f"/api-keys/{world.account.key_id}")
        assert (await use("after"), await check()) == (503, 503)
    assert (await world.refused("POST", "/usage/check", question)) == (401, "unauthorized")
