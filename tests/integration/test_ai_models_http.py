"""The AI model catalog over HTTP."""

from collections.abc import AsyncGenerator

import pytest

from tallybook.ai_models import actions
from tallybook.core import clock
from tallybook.core.tenant import Tenant
from tallybook.storage import postgres
from tallybook.storage.postgres import Pool
from tallybook.storage.redis import Redis
from tests.support import api
from tests.support.api import Api

EXAMPLE = {
    "model": "claude-sonnet-4-6",
    "inputTokens": 10_000,
    "outputTokens": 2_000,
    "cacheReadTokens": 7_000,
    "cacheWriteTokens": 1_000,
    "margin": 20,
}


@pytest.fixture(scope="module")
async def tenant_and_api(database: Pool, redis_client: Redis) -> AsyncGenerator[tuple[Tenant, Api]]:
    services = await api.make_services(database, redis_client)
    async with postgres.transaction(database) as connection:
        await actions.load_packaged(connection, clock.real_clock)
    account = await api.make_account(database)
    async with postgres.transaction(database) as connection:
        await actions.set_alias(connection, account.tenant, "our-best", "claude-opus-4.8", clock.real_clock())
    async with database.acquire() as connection:
        services.book = await actions.load_book(connection)
    async with api.serving(services) as client:
        yield account.tenant, Api(client, account.key)


@pytest.fixture(scope="module")
def catalog(tenant_and_api: tuple[Tenant, Api]) -> Api:
    return tenant_and_api[1]


async def test_a_quote_is_the_documentation_example_to_the_last_digit(catalog: Api) -> None:
    answer = await catalog.send("POST", "/api/v1/ai-models/quote", EXAMPLE)
    assert answer.status == 200
    found = answer.body
    assert (found["object"], found["model"], found["matchedBy"], found["margin"]) == (
        "ai_model_quote",
        "anthropic/claude-sonnet-4.6",
        "punctuation",
        20,
    )
    assert (found["cost"], found["marginAmount"], found["charge"]) == (418.5, 83.7, 502.2)
    assert (found["costUsd"], found["chargeUsd"]) == ("0.04185", "0.05022")
    assert found["unitPrices"] == {
        "input": "3",
        "output": "15",
        "cacheRead": "0.3",
        "cacheWrite": "3.75",
        "cacheWrite1h": "6",
        "webSearchPerThousand": "10",
    }


async def test_a_quote_takes_every_rate_kind(catalog: Api) -> None:
    body = {**EXAMPLE, "cacheWrite1hTokens": 1_000, "webSearchRequests": 1, "margin": 0}
    answer = await catalog.send("POST", "/api/v1/ai-models/quote", body)
    assert answer.body["costUsd"] == "0.0541"


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"model": "claude-sonet-4.6"}, 404, "model_not_found"),
        ({"model": "perplexity/sonar"}, 404, "model_unpriced"),
        ({"serviceTier": "flex"}, 404, "price_not_listed"),
        ({"cacheReadTokens": 9_999}, 400, "validation_error"),
        ({"inputTokens": -1}, 400, "validation_error"),
        ({"inputTokens": 10**9 + 1}, 400, "validation_error"),
        ({"serviceTier": "turbo"}, 400, "validation_error"),
        ({"tokens": 5}, 400, "validation_error"),
        ({"timestamp": "soon"}, 400, "validation_error"),
    ],
)
async def test_a_quote_that_cannot_be_made_says_why(catalog: Api, change: dict[str, object], status: int, code: str) -> None:
    answer = await catalog.send("POST", "/api/v1/ai-models/quote", {**EXAMPLE, **change})
    assert (answer.status, answer.code) == (status, code)


async def test_an_unknown_model_comes_with_the_nearest_ids(catalog: Api) -> None:
    answer = await catalog.send("POST", "/api/v1/ai-models/quote", {**EXAMPLE, "model": "claude-sonet-4.6"})
    assert answer.body["error"]["details"]["nearest"][0] == "anthropic/claude-sonnet-4.6"


async def test_a_quote_uses_the_organizations_alias(catalog: Api) -> None:
    answer = await catalog.send("POST", "/api/v1/ai-models/quote", {**EXAMPLE, "model": "our-best"})
    assert (answer.body["model"], answer.body["matchedBy"]) == ("anthropic/claude-opus-4.8", "alias")


@pytest.mark.parametrize("path", ["anthropic/claude-sonnet-4.6", "anthropic%2Fclaude-sonnet-4.6", "claude-sonnet-4-6"])
async def test_a_model_is_shown_with_its_history_under_any_spelling(catalog: Api, path: str) -> None:
    answer = await catalog.send("GET", f"/api/v1/ai-models/{path}")
    assert (answer.status, answer.body["id"], answer.body["provider"]) == (200, "anthropic/claude-sonnet-4.6", "anthropic")
    [dated] = answer.body["prices"]
    assert dated["price"]["standard"][0]["input"] == "3"
    assert dated["effectiveFrom"] == "2026-08-01T00:00:00.000Z"


async def test_a_model_that_does_not_exist_is_not_found(catalog: Api) -> None:
    answer = await catalog.send("GET", "/api/v1/ai-models/lab/nothing")
    assert (answer.status, answer.code) == (404, "model_not_found")


async def test_the_pages_of_the_list_hold_every_model_once(catalog: Api) -> None:
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(9):
        params = {"limit": "100", **({} if cursor is None else {"cursor": cursor})}
        answer = await catalog.send("GET", "/api/v1/ai-models", params=params)
        seen.extend(each["id"] for each in answer.body["data"])
        cursor = answer.body["nextCursor"]
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == 303


async def test_the_list_is_searched_and_filtered(catalog: Api) -> None:
    searched = await catalog.send("GET", "/api/v1/ai-models", params={"search": "SONNET", "provider": "Anthropic"})
    ids = {each["id"] for each in searched.body["data"]}
    assert "anthropic/claude-sonnet-4.6" in ids
    assert all("sonnet" in each for each in ids)
    assert (await catalog.send("GET", "/api/v1/ai-models", params={"search": "%"})).body["data"] == []
    unpriced = await catalog.send("GET", "/api/v1/ai-models", params={"search": "perplexity/sonar"})
    assert {each["price"] for each in unpriced.body["data"]} == {None}


async def test_a_quote_records_nothing(catalog: Api, database: Pool, tenant_and_api: tuple[Tenant, Api]) -> None:
    tenant, _ = tenant_and_api
    await catalog.send("POST", "/api/v1/ai-models/quote", EXAMPLE)
    for table in ("usage_events", "pool_balances", "idempotency_keys"):
        assert await database.fetchval(f"SELECT count(*) FROM {table} WHERE tenant_id = $1", tenant.id) == 0


async def test_the_catalog_needs_a_key(catalog: Api) -> None:
    answer = await Api(catalog.client, None).send("GET", "/api/v1/ai-models")
    assert answer.status == 401
