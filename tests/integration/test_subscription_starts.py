"""When a subscription starts: on a whole second, not before there could be one, and with nothing of the one before."""

from collections.abc import AsyncGenerator

import pytest

from tallybook.storage import postgres
from tallybook.storage.redis import Redis
from tests.support import billing
from tests.support.billing import Json, World


@pytest.fixture
async def world(database: postgres.Pool, redis_client: Redis) -> AsyncGenerator[World]:
    async with billing.world(database, redis_client) as made:
        yield made


@pytest.mark.parametrize(
    "start", ["0001-01-01T00:00:00Z", "0001-01-01T00:00:00+05:00", "1900-01-01", "1969-12-31T23:59:59Z", "1999-12-31T23:59:59Z"]
)
async def test_a_start_long_before_anything_could_be_billed_is_refused_by_name(world: World, start: str) -> None:
    await world.metered()
    wanted = {"customerId": await world.customer(), "planCode": "pro", "startDate": start}
    answer = await world.api.send("POST", "/api/v1/subscriptions", wanted)
    assert (answer.status, answer.body["error"]["param"]) == (400, "startDate"), answer.body


async def test_a_start_years_ago_is_an_anchor_like_any_other(world: World) -> None:
    await world.metered()
    subscription = await world.subscribe("pro", startDate="2000-01-01T00:00:00Z")
    assert await world.periods(subscription) == [("2026-11-01", "2026-12-01", "open")]


async def test_a_subscription_starts_on_a_whole_second_whatever_the_clock_shows(world: World) -> None:
    world.clock.shows = billing.at("2026-11-20T09:00:00.750000")
    await world.metered()
    subscriptions = [await world.subscribe("pro"), await world.subscribe("pro", startDate="2026-11-10T09:00:00.25Z")]
    for subscription, start in zip(subscriptions, ["2026-11-20T09:00:00", "2026-11-10T09:00:00"], strict=True):
        row = await world.services.database.fetchrow(
            "SELECT s.started_at, s.anchor_at, p.starts_at FROM subscriptions AS s JOIN billing_periods AS p "
            "ON p.subscription_id = s.id WHERE s.public_id = $1",
            subscription["id"],
        )
        assert row is not None
        assert list(row.values()) == [billing.at(start)] * 3


async def test_a_subscription_begins_with_the_plan_as_it_is_even_if_that_changed_within_its_first_second(world: World) -> None:
    world.clock.shows = billing.at("2026-11-20T09:00:00.100000")
    await world.metered()
    world.clock.shows = billing.at("2026-11-20T09:00:00.500000")
    await world.ask("PATCH", "/plans/pro/features/api_calls", {"includedAmount": 10})
    world.clock.shows = billing.at("2026-11-20T09:00:00.900000")
    subscription = await world.subscribe("pro")
    found = await world.ask("GET", "/feature-access/api_calls", params={"customerId": subscription["customer"]})
    assert found["consumption"]["includedUnits"] == 10


def used(shown: Json) -> list[float]:
    return [feature["usage"]["current"] for feature in shown["features"]]


async def studio_user(world: World) -> Json:
    await world.stand_at("2026-01-31T10:00:00")
    await world.plan("studio", 4900, "monthly", consumptionModel="credits", price_includedCredits=100)
    await world.feature("studio", "images", creditsPerUnit=10)
    subscription = await world.subscribe("studio")
    await world.use(subscription["customer"], "images", 5)
    return subscription


async def test_a_subscription_of_the_same_second_starts_with_nothing_used(world: World) -> None:
    first = await studio_user(world)
    await world.ask("POST", f"/subscriptions/{first['id']}/cancel", {"immediate": True})
    await world.close_due()
    second = await world.subscribe("studio", first["customer"])
    await world.use(first["customer"], "images", 2)
    await world.caught_up()
    shown = await world.ask("GET", f"/subscriptions/{second['id']}")
    assert (used(shown), shown["credits"]["remaining"]) == ([2], 80)
    access = await world.ask("GET", "/feature-access/images", params={"customerId": first["customer"]})
    assert access["consumption"]["unitsUsed"] == 2, access


async def test_a_subscription_that_is_dated_back_to_the_start_of_the_one_before_shows_its_own_usage(world: World) -> None:
    first = await studio_user(world)
    await world.stand_at("2026-02-10T10:00:00")
    await world.ask("POST", f"/subscriptions/{first['id']}/cancel", {"immediate": True})
    await world.close_due()
    second = await world.subscribe("studio", first["customer"], startDate="2026-01-31T10:00:00Z")
    await world.caught_up()
    shown = await world.ask("GET", f"/subscriptions/{second['id']}")
    assert (used(shown), shown["credits"]["remaining"]) == ([0], 100)


async def test_usage_of_a_subscription_is_shown_to_it(world: World) -> None:
    subscription = await studio_user(world)
    await world.caught_up()
    assert used(await world.ask("GET", f"/subscriptions/{subscription['id']}")) == [5]
