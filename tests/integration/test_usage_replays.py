"""What is sent again is answered as it was the first time, whatever has changed meanwhile; and a feature that is not there says which."""

from collections.abc import AsyncGenerator

import pytest

from tallybook.entrypoints.http import writes
from tallybook.storage import postgres
from tallybook.storage.redis import Redis
from tests.support import billing
from tests.support.api import Answer
from tests.support.billing import Json, World


@pytest.fixture
async def world(database: postgres.Pool, redis_client: Redis) -> AsyncGenerator[World]:
    async with billing.world(database, redis_client) as made:
        await made.stand_at("2026-01-31T10:00:00")
        yield made


async def send(world: World, method: str, path: str, body: Json, key: str) -> Answer:
    return await world.api.send(method, f"/api/v1{path}", body, headers={"Idempotency-Key": key})


async def fail_to_commit(*_given: object) -> None:
    raise ConnectionError("the database went away before the commit")


async def test_an_adjustment_that_was_not_committed_is_the_same_one_in_the_next_period(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.plan("flex", 5000, consumptionModel="balance", price_includedBalance=100_000)
    await world.feature("flex", "exports", overage={"enabled": True, "unitPrice": 100})
    subscription = await world.subscribe("flex")
    path = f"/subscriptions/{subscription['id']}/balance/adjust"
    with monkeypatch.context() as broken:
        broken.setattr(writes, "_keep", fail_to_commit)
        assert (await send(world, "POST", path, {"amount": 50_000}, "adjust-1")).status >= 500
    await world.advance_to("2026-03-01T00:00:00")
    again = await send(world, "POST", path, {"amount": 50_000}, "adjust-1")
    assert (again.status, again.body["newBalance"]) == (200, 150_000)
    shown = await world.ask("GET", f"/subscriptions/{subscription['id']}")
    assert shown["balance"]["remaining"] == 100_000


async def test_another_amount_is_another_adjustment(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.plan("flex", 5000, consumptionModel="balance", price_includedBalance=100_000)
    path = f"/subscriptions/{(await world.subscribe('flex'))['id']}/balance/adjust"
    with monkeypatch.context() as broken:
        broken.setattr(writes, "_keep", fail_to_commit)
        await send(world, "POST", path, {"amount": 50_000}, "adjust-2")
    again = await send(world, "POST", path, {"amount": 60_000}, "adjust-2")
    assert (again.status, again.code) == (409, "idempotency_key_mismatch")


async def test_a_total_that_is_set_again_is_answered_as_at_first(world: World) -> None:
    await world.metered()
    customer = (await world.subscribe("pro"))["customer"]
    await world.use(customer, "api_calls", 100)
    body = {"customerId": customer, "featureCode": "api_calls", "value": 50}
    first = await send(world, "PUT", "/usage", body, "set-1")
    assert (first.body["previousValue"], first.body["adjustment"]) == (100, -50)
    await world.stand_at("2026-02-01T10:00:00")
    await world.ask("PATCH", "/plans/pro/features/api_calls", {"includedAmount": 5000})
    assert (await send(world, "PUT", "/usage", body, "set-1")).body == first.body


async def test_an_undated_event_of_a_sandbox_shows_the_test_clocks_time_also_when_it_is_repeated(world: World) -> None:
    await world.metered()
    customer = (await world.subscribe("pro"))["customer"]
    body = {"customerId": customer, "featureCode": "api_calls", "value": 1}
    first = await send(world, "POST", "/usage/events", body, "undated")
    assert first.body["ts"] == "2026-01-31T10:00:00.000Z"
    await world.stand_at("2026-02-05T10:00:00")
    assert (await send(world, "POST", "/usage/events", body, "undated")).body == first.body
    batch = {"events": [body, body]}
    firsts = await send(world, "POST", "/usage/events/batch", batch, "undated-batch")
    await world.stand_at("2026-02-06T10:00:00")
    again = await send(world, "POST", "/usage/events/batch", batch, "undated-batch")
    assert again.body["results"] == firsts.body["results"]
    stored = await world.services.database.fetch(
        "SELECT DISTINCT occurred_at FROM usage_events WHERE tenant_id = $1", world.tenant.id
    )
    assert {row["occurred_at"] for row in stored} == {billing.at("2026-01-31T10:00:00"), billing.at("2026-02-05T10:00:00")}


async def test_an_event_and_a_correction_never_share_an_identity(world: World) -> None:
    await world.metered()
    customer = (await world.subscribe("pro"))["customer"]
    used = {"customerId": customer, "featureCode": "api_calls", "value": 1}
    answers = [
        await send(world, "PUT", "/usage", used, "0"),
        await send(world, "POST", "/usage/events", used, "set"),
        await send(world, "POST", "/usage/events", used, "adjust"),
    ]
    assert [answer.status for answer in answers] == [200, 200, 200]


@pytest.mark.parametrize(
    ("code", "expected"), [("images", (402, "feature_not_in_plan")), ("nobody_has_this", (404, "feature_not_found"))]
)
async def test_a_feature_that_the_plan_lacks_is_not_one_that_nobody_has(
    world: World, code: str, expected: tuple[int, str]
) -> None:
    await world.metered()
    await world.ask("POST", "/features", {"name": "Images", "code": "images", "type": "usage"})
    customer = (await world.subscribe("pro"))["customer"]
    used = {"customerId": customer, "featureCode": code}
    assert await world.refused("PUT", "/usage", {**used, "value": 1}) == expected
    assert await world.refused("POST", "/usage/check", used) == expected
    assert await world.refused("GET", f"/feature-access/{code}", params={"customerId": customer}) == expected
