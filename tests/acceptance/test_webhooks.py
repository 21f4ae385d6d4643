"""A whole service tells a receiver what happens, and the official client takes every delivery, in shapes its contract describes."""

import json
from collections.abc import AsyncGenerator
from importlib import resources
from typing import Any, cast

import pytest

from tallybook.storage.postgres import Pool
from tallybook.storage.redis import Redis
from tallybook.webhooks import topics
from tests.support import billing, posting
from tests.support.billing import World
from tests.support.posting import Office
from tests.support.receiver import receiving

Json = dict[str, Any]
CONTRACT: Json = json.loads(resources.files("commet").joinpath("docs/webhooks.openapi.json").read_text(encoding="utf-8"))
TYPES: dict[str, type | tuple[type, ...]] = {"string": str, "number": (int, float), "boolean": bool, "null": type(None)}


@pytest.fixture
async def office(database: Pool, redis_client: Redis, postgres_url: str) -> AsyncGenerator[Office]:
    await billing.forget_everything(database, redis_client)
    async with billing.world(database, redis_client) as world, posting.opened(world, postgres_url) as opened:
        yield opened


def problems(value: object, schema: Json, where: str) -> list[str]:
    """What a value breaks of the part of JSON Schema that the contract uses."""
    if "anyOf" in schema:
        each = [problems(value, one, where) for one in schema["anyOf"]]
        return min(each, key=len)
    if "const" in schema:
        return [] if value == schema["const"] else [f"{where} is {value!r}"]
    if "enum" in schema and value not in schema["enum"]:
        return [f"{where} is {value!r}"]
    if schema.get("type") != "object":
        fits = isinstance(value, TYPES[schema["type"]]) and (schema["type"] == "boolean" or not isinstance(value, bool))
        return [] if fits else [f"{where} is {value!r}, not {schema['type']}"]
    assert isinstance(value, dict), where
    if "properties" not in schema:  # metadata: anything
        return []
    given, known = cast("Json", value), cast("Json", schema["properties"])
    found = [f"{where}.{name} is missing" for name in schema["required"] if name not in given]
    found += [f"{where}.{name} is unknown" for name in given if name not in known]
    for name, part in known.items():
        # what the contract does not require may be null: its descriptions say so
        if given.get(name) is not None or (name in given and name in schema["required"]):
            found += problems(given[name], part, f"{where}.{name}")
    return found


async def story(world: World) -> None:
    """A month in which most of what can be told happens."""
    await world.stand_at("2026-01-31T10:00:00")
    await world.plan("wallet", 500, consumptionModel="balance", price_includedBalance=50_000)
    await world.feature("wallet", "api_calls", overage={"enabled": True, "unitPrice": 100})
    await world.plan("studio", 4900, consumptionModel="credits", price_includedCredits=100)
    await world.feature("studio", "images", creditsPerUnit=10)
    await world.metered()
    wallet, studio, pro = [await world.subscribe(plan) for plan in ("wallet", "studio", "pro")]
    for subscription, feature, values in (
        (wallet, "api_calls", (460, 50)),
        (studio, "images", (9, 1)),
        (pro, "api_calls", (900, 200)),
    ):
        for value in values:
            await world.use(subscription["customer"], feature, value)
            await world.caught_up()
    await world.ask("POST", f"/subscriptions/{pro['id']}/cancel", {"reason": "Too expensive"})
    await world.ask("POST", f"/subscriptions/{pro['id']}/uncancel")
    await world.ask("PATCH", f"/customers/{pro['customer']}", {"fullName": "Grace Hopper", "metadata": {"tier": "gold"}})
    await world.plan("later", 9900, price_trialDays=3)
    await world.subscribe("later")
    await world.ask("POST", f"/subscriptions/{pro['id']}/cancel", {"reason": "Too expensive"})
    await world.advance_to("2026-03-01T10:00:00")


async def test_every_delivery_is_taken_by_the_official_client_and_is_in_the_contracts_shape(office: Office) -> None:
    async with receiving() as there:
        await office.endpoint(there, *sorted(topics.KNOWN))
        await story(office.world)
        await office.deliver()
        assert len(there.events) == len(there.requests)
    assert set(there.topics) == {
        *("subscription.created", "subscription.activated", "subscription.updated", "subscription.canceled", "invoice.created"),
        *("subscription.cancellation_scheduled", "subscription.cancellation_revoked", "trial.started", "trial.expired"),
        *("customer.created", "customer.updated"),
        *("balance.low", "balance.depleted", "credits.low", "credits.depleted", "quota.threshold_reached", "quota.exceeded"),
    }
    found: list[str] = []
    for event in there.events:
        body = CONTRACT["webhooks"][event["event"]]["post"]["requestBody"]["content"]["application/json"]["schema"]
        found += problems(event, body, event["event"])
    assert found == []
