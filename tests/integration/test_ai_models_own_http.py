"""An organization's own words and prices for models, a customer's own margin, and news of the catalog, over HTTP."""

from collections.abc import AsyncGenerator
from datetime import timedelta

import pytest

from tallybook.ai_models import actions, sync
from tallybook.core import clock
from tallybook.pricing.rates import Band, Listed, Price
from tallybook.storage import postgres
from tallybook.storage.postgres import Pool
from tallybook.storage.redis import Redis
from tests.support import billing
from tests.support.billing import Json, World

PRICE: Json = {"standard": [{"input": "2", "output": "10"}]}
ONE_DOLLAR = Price((Band(0, Listed(10**6, 10**6)),))


@pytest.fixture
async def world(database: Pool, redis_client: Redis) -> AsyncGenerator[World]:
    async with billing.world(database, redis_client) as made:
        async with postgres.transaction(database) as connection:
            await actions.load_packaged(connection, clock.real_clock)
        await made.plan("ai", 5000, consumptionModel="balance", price_includedBalance=500_000)
        await made.feature("ai", "ai_chat", pricingMode="ai_model", margin=20)
        yield made


async def deducted(world: World, subscription: Json, model: str, **fields: object) -> float:
    """What an event of a million input tokens takes, in rate scale."""
    event = {
        "customerId": subscription["customer"],
        "featureCode": "ai_chat",
        "eventId": f"h{next(world.events)}",
        "model": model,
    }
    answer = await world.ask("POST", "/usage/events", {**event, "inputTokens": 1_000_000, "outputTokens": 0, **fields})
    return answer["consumption"]["deducted"]


async def test_an_alias_holds_from_the_next_event_on(world: World) -> None:
    subscription = await world.subscribe("ai")
    event = {"customerId": subscription["customer"], "featureCode": "ai_chat", "eventId": "a1", "model": "our-best"}
    event |= {"inputTokens": 1_000_000, "outputTokens": 0}
    assert await world.refused("POST", "/usage/events", event) == (404, "model_not_found")
    made = await world.ask("POST", "/ai-models/aliases", {"alias": "our-best", "model": "claude-sonnet-4-6"})
    assert (made["object"], made["alias"], made["model"]) == ("ai_model_alias", "our-best", "anthropic/claude-sonnet-4.6")
    assert (await world.ask("POST", "/usage/events", event))["consumption"]["deducted"] == 36_000
    await world.ask("POST", "/ai-models/aliases", {"alias": "our-best", "model": "gpt-4o"})
    assert await deducted(world, subscription, "our-best") == 30_000
    await world.ask("DELETE", "/ai-models/aliases/our-best")
    assert await world.refused("POST", "/usage/events", {**event, "eventId": "a2"}) == (404, "model_not_found")
    assert await world.refused("DELETE", "/ai-models/aliases/our-best") == (404, "alias_not_found")


async def test_aliases_are_listed_newest_first_in_pages(world: World) -> None:
    for word in ("one", "two/with:slash", "three"):
        await world.ask("POST", "/ai-models/aliases", {"alias": word, "model": "gpt-4o"})
    first = await world.ask("GET", "/ai-models/aliases", params={"limit": "2"})
    assert [each["alias"] for each in first["data"]] == ["three", "two/with:slash"]
    rest = await world.ask("GET", "/ai-models/aliases", params={"limit": "2", "cursor": first["nextCursor"]})
    assert ([each["alias"] for each in rest["data"]], rest["nextCursor"]) == (["one"], None)
    await world.ask("DELETE", "/ai-models/aliases/two/with:slash")
    assert len((await world.ask("GET", "/ai-models/aliases"))["data"]) == 2


@pytest.mark.parametrize("body", [{"alias": "", "model": "gpt-4o"}, {"alias": "x"}, {"alias": "x", "model": "gpt-4o", "y": 1}])
async def test_an_alias_that_breaks_a_rule_is_refused(world: World, body: Json) -> None:
    assert await world.refused("POST", "/ai-models/aliases", body) == (400, "validation_error")


async def test_an_alias_of_nothing_is_refused_with_near_ids(world: World) -> None:
    answer = await world.api.send("POST", "/api/v1/ai-models/aliases", {"alias": "x", "model": "claude-sonet-4.6"})
    assert (answer.status, answer.code) == (404, "model_not_found")
    assert "anthropic/claude-sonnet-4.6" in answer.body["error"]["details"]["nearest"]


async def test_an_own_price_holds_from_the_next_event_until_it_is_ended(world: World) -> None:
    subscription = await world.subscribe("ai")
    assert await deducted(world, subscription, "claude-sonnet-4.6") == 36_000
    made = await world.ask("POST", "/ai-models/overrides", {"model": "anthropic/*", "price": PRICE})
    assert (made["model"], made["price"]["standard"][0]["input"], made["effectiveTo"]) == ("anthropic/*", "2", None)
    assert await deducted(world, subscription, "claude-sonnet-4.6") == 24_000
    assert await deducted(world, subscription, "gpt-4o") == 30_000
    world.clock.shows = world.clock.shows.replace(minute=5)
    ended = await world.ask("POST", f"/ai-models/overrides/{made['id']}/end", {})
    assert ended["effectiveTo"] == "2026-11-20T09:05:00.000Z"
    assert await deducted(world, subscription, "claude-sonnet-4.6") == 36_000
    code = (404, "price_override_not_found")
    assert await world.refused("POST", f"/ai-models/overrides/{made['id']}/end", {}) == code
    assert await world.refused("POST", "/ai-models/overrides/none/end", {}) == code
    assert [each["id"] for each in (await world.ask("GET", "/ai-models/overrides"))["data"]] == [made["id"]]


async def test_an_own_model_is_priced_and_dated(world: World) -> None:
    subscription = await world.subscribe("ai")
    since, until = "2026-11-20T08:00:00Z", "2026-11-20T08:30:00Z"
    made = await world.ask("POST", "/ai-models/overrides", {"model": "acme/house", "price": PRICE, "effectiveFrom": since})
    await world.ask("POST", f"/ai-models/overrides/{made['id']}/end", {"effectiveTo": until})
    assert await deducted(world, subscription, "ACME/house", timestamp="2026-11-20T08:29:59Z") == 24_000
    event = {"customerId": subscription["customer"], "featureCode": "ai_chat", "model": "acme/house", "eventId": "late"}
    event |= {"inputTokens": 1, "outputTokens": 1, "timestamp": until}
    assert await world.refused("POST", "/usage/events", event) == (404, "model_unpriced")


@pytest.mark.parametrize(
    "body",
    [
        {"model": "lab/?", "price": PRICE},
        {"model": "lab/a", "price": {"standard": []}},
        {"model": "lab/a", "price": {"standard": [{"input": "-1"}]}},
        {"model": "lab/a", "price": {"standard": [{"input": "0.0000001"}]}},
        {"model": "lab/a", "price": {"standard": [{"input": 3}]}},
        {"model": "lab/a", "price": PRICE, "effectiveFrom": "soon"},
    ],
)
async def test_an_own_price_that_breaks_a_rule_is_refused(world: World, body: Json) -> None:
    assert await world.refused("POST", "/ai-models/overrides", body) == (400, "validation_error")


async def test_a_customers_margin_comes_before_the_plans_and_the_plans_before_none(world: World) -> None:
    subscription = await world.subscribe("ai")
    path = f"/customers/{subscription['customer']}/ai-margin"
    assert (await world.ask("GET", path))["margin"] is None
    assert await deducted(world, subscription, "claude-sonnet-4.6") == 36_000
    assert (await world.ask("PUT", path, {"margin": 5}))["margin"] == 5
    assert await deducted(world, subscription, "claude-sonnet-4.6") == 31_500
    await world.ask("PUT", path, {"margin": 0})
    assert await deducted(world, subscription, "claude-sonnet-4.6") == 30_000
    assert (await world.ask("PUT", path, {"margin": None}))["margin"] is None
    assert await deducted(world, subscription, "claude-sonnet-4.6") == 36_000
    await world.feature("ai", "plain", pricingMode="ai_model")
    other = await world.subscribe("ai")
    event = {"customerId": other["customer"], "featureCode": "plain", "eventId": "m", "model": "claude-sonnet-4.6"}
    answer = await world.ask("POST", "/usage/events", {**event, "inputTokens": 1_000_000, "outputTokens": 0})
    assert answer["consumption"]["deducted"] == 30_000
    assert await world.refused("PUT", path, {"margin": -1}) == (400, "validation_error")
    assert await world.refused("PUT", "/customers/nobody/ai-margin", {"margin": 1}) == (404, "customer_not_found")


async def test_the_state_of_the_catalog_and_its_changes_are_shown(world: World) -> None:
    before = await world.ask("GET", "/ai-models/sync")
    assert (before["object"], before["last"]["status"], before["lastGood"]) == ("ai_model_catalog", "published", None)
    await sync.note_failure(world.services.database, "https://list.example", "answered 503", world.clock())
    after = await world.ask("GET", "/ai-models/sync")
    assert (after["last"]["status"], after["last"]["error"], after["version"]) == ("failed", "answered 503", before["version"])
    assert (await world.ask("GET", "/ai-models/changes", params={"since": "2999-01-01"}))["data"] == []


async def test_the_pages_of_the_changes_hold_each_once_oldest_first(world: World) -> None:
    """Mutant: the list stops at its bound and says nothing."""
    seen: list[Json] = []
    params = {"since": "2000-01-01", "limit": "100"}
    while True:
        page = await world.ask("GET", "/ai-models/changes", params=params)
        seen += page["data"]
        if page["nextCursor"] is None:
            break
        params["cursor"] = page["nextCursor"]
    numbers = [int(each["id"]) for each in seen]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == await world.services.database.fetchval("SELECT count(*) FROM ai_model_changes") == 303
    sonnet = [each for each in seen if each["model"] == "anthropic/claude-sonnet-4.6"]
    assert [(each["change"], each["before"], each["after"]["standard"][0]["input"]) for each in sonnet] == [("added", None, "3")]
    assert await world.refused("GET", "/ai-models/changes", params={"cursor": "x"}) == (400, "validation_error")


async def test_a_quote_and_a_model_see_what_another_process_has_just_set(world: World) -> None:
    """Mutant: only usage looks for a newer price book."""
    async with postgres.transaction(world.services.database) as connection:
        await actions.set_alias(connection, world.tenant, "brand-new", "gpt-4o", world.clock())
        await actions.set_override(connection, world.tenant, "gpt-4o", ONE_DOLLAR, world.clock())
    quote = await world.ask("POST", "/ai-models/quote", {"model": "brand-new", "inputTokens": 1_000_000, "outputTokens": 0})
    assert (quote["model"], quote["matchedBy"], quote["costUsd"]) == ("openai/gpt-4o", "alias", "1")
    async with postgres.transaction(world.services.database) as connection:
        await actions.set_alias(connection, world.tenant, "newer-still", "gpt-4o", world.clock())
    assert (await world.ask("GET", "/ai-models/newer-still"))["id"] == "openai/gpt-4o"


async def test_the_catalog_changed_at_a_real_time_whatever_a_sandbox_shows(world: World) -> None:
    """Mutant: a sandbox's simulated clock is what everybody is told."""
    await world.stand_at("2031-01-01")
    made = await world.ask("POST", "/ai-models/overrides", {"model": "gpt-4o", "price": PRICE})
    assert made["effectiveFrom"] == "2031-01-01T00:00:00.000Z"
    real = clock.iso(world.clock())
    assert (await world.ask("GET", "/ai-models/sync"))["changedAt"] == real
    ended = await world.ask("POST", f"/ai-models/overrides/{made['id']}/end", {})
    assert ended["effectiveTo"] == "2031-01-01T00:00:00.000Z"
    assert (await world.ask("GET", "/ai-models/sync"))["changedAt"] == real
    assert await world.services.database.fetchval("SELECT created_at FROM ai_price_overrides") == world.clock()


async def test_an_own_price_is_said_to_be_of_the_catalogs_model_and_replaces_the_one_it_has(world: World) -> None:
    first = await world.ask("POST", "/ai-models/overrides", {"model": "gpt-4o", "price": PRICE})
    second = await world.ask("POST", "/ai-models/overrides", {"model": "OpenAI/GPT_4o", "price": PRICE})
    assert [each["model"] for each in (first, second)] == ["openai/gpt-4o"] * 2
    listed = (await world.ask("GET", "/ai-models/overrides"))["data"]
    assert [(each["id"], each["effectiveTo"] is None) for each in listed] == [(second["id"], True), (first["id"], False)]


async def test_an_event_that_was_refused_is_taken_once_its_model_has_a_price(world: World) -> None:
    """Mutant: a price that was set without a date begins when it was set, and what waits for it never gets through."""
    subscription = await world.subscribe("ai")
    event = {"customerId": subscription["customer"], "featureCode": "ai_chat", "eventId": "w1", "model": "acme/house"}
    event |= {"inputTokens": 1_000_000, "outputTokens": 0, "timestamp": "2026-11-20T08:59:00Z"}
    assert await world.refused("POST", "/usage/events", event) == (404, "model_not_found")
    body = {"model": "acme/house", "price": PRICE}
    dated = await world.ask("POST", "/ai-models/overrides", {**body, "effectiveFrom": "2026-11-20T09:00:00Z"})
    assert await world.refused("POST", "/usage/events", event) == (404, "model_unpriced")
    await world.ask("POST", f"/ai-models/overrides/{dated['id']}/end", {})
    await world.ask("POST", "/ai-models/overrides", body)
    assert (await world.ask("POST", "/usage/events", event))["consumption"]["deducted"] == 24_000


async def test_a_price_of_tomorrow_charges_nothing_today(world: World) -> None:
    subscription = await world.subscribe("ai")
    await world.ask("POST", "/ai-models/overrides", {"model": "me/next", "price": PRICE, "effectiveFrom": "2026-11-21T00:00:00Z"})
    event = {"customerId": subscription["customer"], "featureCode": "ai_chat", "model": "me/next", "eventId": "t1"}
    event |= {"inputTokens": 1, "outputTokens": 1}
    assert await world.refused("POST", "/usage/events", event) == (404, "model_unpriced")
    quote = {"model": "me/next", "inputTokens": 1_000_000, "outputTokens": 0}
    assert await world.refused("POST", "/ai-models/quote", quote) == (404, "model_unpriced")
    assert (await world.ask("POST", "/ai-models/quote", {**quote, "timestamp": "2026-11-21T00:00:00Z"}))["costUsd"] == "2"


async def test_an_ended_own_price_leaves_its_native_id_to_the_catalog(world: World) -> None:
    """Mutant: an own price under an id that the ladder knows blocks that id when it ends."""
    subscription = await world.subscribe("ai")
    for model, listed in (("gpt-4o", 30_000), ("gpt-4o-2024-08-06", 30_000)):
        made = await world.ask("POST", "/ai-models/overrides", {"model": model, "price": PRICE})
        assert await deducted(world, subscription, model) == 24_000
        world.clock.shows += timedelta(minutes=1)
        await world.ask("POST", f"/ai-models/overrides/{made['id']}/end", {})
        assert await deducted(world, subscription, model) == listed


async def test_a_service_tier_without_a_long_context_price_is_refused_above_the_boundary(world: World) -> None:
    body = {"model": "gpt-5.5-pro", "serviceTier": "flex", "inputTokens": 271_999, "outputTokens": 0}
    assert (await world.ask("POST", "/ai-models/quote", body))["model"] == "openai/gpt-5.5-pro"
    assert await world.refused("POST", "/ai-models/quote", {**body, "inputTokens": 272_000}) == (404, "price_not_listed")
