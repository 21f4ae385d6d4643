"""What customers cross is announced once, with the usage that crossed it, and armed again when it should be."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from tallybook.alerts import judging
from tallybook.alerts import store as alert_store
from tallybook.flows import alerting
from tallybook.rollup import actions as rollup
from tallybook.storage.postgres import Connection, Pool
from tallybook.storage.redis import Redis
from tallybook.tenancy import store as tenancy
from tests.support import api, billing
from tests.support.api import Api
from tests.support.billing import World

Json = dict[str, Any]


@pytest.fixture
async def world(database: Pool, redis_client: Redis) -> AsyncGenerator[World]:
    await billing.forget_everything(database, redis_client)
    async with billing.world(database, redis_client) as made:
        yield made


@pytest.fixture
async def still(database: Pool, redis_client: Redis) -> AsyncGenerator[World]:
    """A world whose log nobody reads but the test."""
    await billing.forget_everything(database, redis_client)
    clock = billing.HandClock(billing.at("2026-11-20T09:00:00"))
    services = await billing.make_services(database, redis_client, clock)
    account = await api.make_account(database)
    async with api.serving(services) as caller:
        yield World(services, account, Api(caller, account.key), clock)


async def roll_up(world: World, *, judged: bool = True) -> None:
    services = world.services
    also = alerting.judge_with(services.clock) if judged else None
    await rollup.roll_up(services.database, services.redis, range(4), services.clock(), services.till.epoch, also)


async def told(world: World) -> list[tuple[str, Json]]:
    """Topics and payloads of what was announced about thresholds, in order."""
    rows = await world.services.database.fetch(
        "SELECT topic, payload FROM outbox WHERE tenant_id = $1 ORDER BY id", world.tenant.id
    )
    found = [(row["topic"], row["payload"]) for row in rows]
    return [(topic, payload) for topic, payload in found if topic.startswith(("balance.", "credits.", "quota.", "alert."))]


async def topics(world: World) -> list[str]:
    return [topic for topic, _payload in await told(world)]


async def wallet(world: World, *, blocks: bool = False) -> Json:
    """A customer with $5.00 that `api_calls` take a cent from."""
    await world.plan("wallet", 500, consumptionModel="balance", price_includedBalance=50_000, blockOnExhaustion=blocks)
    await world.feature("wallet", "api_calls", overage={"enabled": True, "unitPrice": 100})
    return await world.subscribe("wallet")


async def studio(world: World) -> Json:
    """A customer with 100 credits that `images` take ten of."""
    await world.plan("studio", 4900, consumptionModel="credits", price_includedCredits=100)
    await world.feature("studio", "images", creditsPerUnit=10)
    return await world.subscribe("studio")


async def adjust(world: World, subscription: Json, amount: int) -> None:
    await world.ask("POST", f"/subscriptions/{subscription['id']}/balance/adjust", {"amount": amount})


async def use(world: World, subscription: Json, feature: str, *values: float) -> None:
    """Usage, each event in a pass of its own."""
    for value in values:
        await world.use(subscription["customer"], feature, value)
        await world.caught_up()


async def test_a_balance_is_told_low_and_depleted_once(world: World) -> None:
    subscription = await wallet(world)
    await use(world, subscription, "api_calls", 449, 1, 1, 49, 10, 10)
    assert await told(world) == [
        (
            "balance.low",
            {
                "subscriptionId": subscription["id"],
                "customerId": subscription["customer"],
                "currentBalance": 5000,
                "thresholdBalance": 5000,
                "currency": "usd",
            },
        ),
        (
            "balance.depleted",
            {
                "subscriptionId": subscription["id"],
                "customerId": subscription["customer"],
                "currentBalance": 0,
                "currency": "usd",
            },
        ),
    ]


async def test_a_top_up_arms_a_balance_again_and_is_what_a_tenth_is_of(world: World) -> None:
    subscription = await wallet(world)
    await use(world, subscription, "api_calls", 500)
    await adjust(world, subscription, 100_000)
    await world.caught_up()
    await use(world, subscription, "api_calls", 899, 1, 100)
    assert await topics(world) == ["balance.depleted", "balance.low", "balance.depleted"]
    assert (await told(world))[1][1]["thresholdBalance"] == 10_000


async def test_the_next_period_is_told_of_anew(world: World) -> None:
    await world.stand_at("2026-01-31T10:00:00")
    subscription = await wallet(world)
    await use(world, subscription, "api_calls", 460)
    await world.advance_to("2026-02-28T10:00:00")
    await use(world, subscription, "api_calls", 460)
    assert await topics(world) == ["balance.low", "balance.low"]


async def test_the_end_of_a_period_takes_what_is_left_and_tells_nothing(world: World) -> None:
    await world.stand_at("2026-01-31T10:00:00")
    subscription = await wallet(world)
    await use(world, subscription, "api_calls", 1)
    await world.advance_to("2026-03-01T10:00:00")
    await world.caught_up()
    assert await topics(world) == []


async def test_credits_are_low_once_a_period_with_what_was_purchased_counted(world: World) -> None:
    subscription = await studio(world)
    await adjust(world, subscription, 20)
    await use(world, subscription, "images", 10)
    assert await topics(world) == []
    await use(world, subscription, "images", 1, 1)
    await adjust(world, subscription, 10)
    await world.caught_up()
    await use(world, subscription, "images", 1)
    found = await told(world)
    assert [topic for topic, _payload in found] == ["credits.low", "credits.depleted", "credits.depleted"]
    assert found[0][1] == {
        "subscriptionId": subscription["id"],
        "customerId": subscription["customer"],
        "remainingCredits": 10,
        "thresholdCredits": 10,
        "periodCredits": 100,
    }
    assert found[1][1]["remainingCredits"] == 0


async def test_included_units_are_told_at_four_fifths_and_when_overage_begins(world: World) -> None:
    await world.metered()
    subscription = await world.subscribe("pro")
    await use(world, subscription, "api_calls", 799, 1, 200, 1, 5)
    found = await told(world)
    assert [topic for topic, _payload in found] == ["quota.threshold_reached", "quota.exceeded"]
    assert found[1][1] == {
        "subscriptionId": subscription["id"],
        "customerId": subscription["customer"],
        "featureCode": "api_calls",
        "currentUsage": 1001,
        "includedAmount": 1000,
        "overageEnabled": True,
        "periodStart": "2026-11-20T09:00:00.000Z",
    }


async def test_where_there_is_no_overage_the_end_of_what_is_included_is_told(world: World) -> None:
    await world.plan("small", 500)
    await world.feature("small", "api_calls", includedAmount=10)
    subscription = await world.subscribe("small")
    await use(world, subscription, "api_calls", 10)
    [(topic, payload)] = await told(world)
    assert (topic, payload["overageEnabled"]) == ("quota.exceeded", False)


async def test_an_unlimited_feature_is_never_told_of(world: World) -> None:
    await world.plan("free_for_all", 500)
    await world.feature("free_for_all", "api_calls", includedAmount=10, unlimited=True)
    subscription = await world.subscribe("free_for_all")
    await use(world, subscription, "api_calls", 9, 5, 5)
    assert await topics(world) == []


async def alert(world: World, metric: str, threshold: int, unit: str, **fields: Any) -> Json:  # noqa: ANN401 - JSON
    return await world.ask("POST", "/alerts", {"metric": metric, "threshold": threshold, "unit": unit, **fields})


async def values(world: World) -> list[tuple[str, object]]:
    """Names and values of the own alerts that were announced."""
    return [(payload["name"], payload["value"]) for topic, payload in await told(world) if topic == "alert.triggered"]


async def test_own_thresholds_on_a_balance_are_told_once_a_crossing(world: World) -> None:
    subscription = await wallet(world)
    made = await alert(world, "balance", 30_000, "amount", name="thirty")
    await alert(world, "balance", 50, "percent", name="half", customerId=subscription["customer"])
    await alert(world, "balance", 50, "credits", name="credits")
    await use(world, subscription, "api_calls", 199, 1, 50, 10)
    assert await values(world) == [("thirty", 30_000), ("half", 50)]
    await adjust(world, subscription, 50_000)
    await world.caught_up()
    await use(world, subscription, "api_calls", 450)
    assert await values(world) == [("thirty", 30_000), ("half", 50), ("thirty", 29_000), ("half", 39.189189189)]
    [first] = [payload for topic, payload in await told(world) if topic == "alert.triggered"][:1]
    assert first == {
        "alertId": made["id"],
        "name": "thirty",
        "metric": "balance",
        "unit": "amount",
        "threshold": 30_000,
        "value": 30_000,
        "featureCode": None,
        "periodStart": "2026-11-20T09:00:00.000Z",
        "subscriptionId": subscription["id"],
        "customerId": subscription["customer"],
    }


async def test_own_thresholds_on_spend_are_told_once_a_period_whatever_is_taken_back(world: World) -> None:
    subscription = await wallet(world)
    await alert(world, "spend", 10_000, "amount", name="dollar")
    await alert(world, "spend", 100, "percent", name="all of it")
    await use(world, subscription, "api_calls", 99)
    event = await world.use(subscription["customer"], "api_calls", 1)
    await world.caught_up()
    await world.ask("POST", f"/usage/events/{event['id']}/void", {"reason": "a test"})
    await world.caught_up()
    await use(world, subscription, "api_calls", 1, 400)
    assert await values(world) == [("dollar", 10_000), ("all of it", 100)]


async def test_spend_on_a_metered_plan_is_its_overage(world: World) -> None:
    await world.metered()
    await alert(world, "spend", 20_000, "amount", name="two dollars")
    subscription = await world.subscribe("pro")
    await use(world, subscription, "api_calls", 1000, 199, 1)
    assert await values(world) == [("two dollars", 20_000)]


async def test_own_thresholds_on_usage_look_at_one_feature_whatever_the_plan_takes_for_it(world: World) -> None:
    metered, credited = await metered_subscription(world), await studio(world)
    await alert(world, "usage", 500, "units", name="calls", featureCode="api_calls")
    await alert(world, "usage", 60, "percent", name="calls in percent", featureCode="api_calls")
    await alert(world, "usage", 3, "units", name="images", featureCode="images")
    await use(world, metered, "api_calls", 499, 1, 100)
    await use(world, credited, "images", 2, 1, 1)
    assert await values(world) == [("calls", 500), ("calls in percent", 60), ("images", 3)]


async def metered_subscription(world: World) -> Json:
    await world.metered()
    return await world.subscribe("pro")


async def test_each_customer_crosses_for_itself_and_an_alert_for_one_looks_at_no_other(world: World) -> None:
    one = await wallet(world)
    two = await world.subscribe("wallet")
    await alert(world, "spend", 100, "amount", name="any")
    await alert(world, "spend", 100, "amount", name="one", customerId=one["customer"])
    await use(world, one, "api_calls", 1)
    await use(world, two, "api_calls", 1)
    found = [(payload["name"], payload["customerId"]) for _topic, payload in await told(world)]
    assert found == [("any", one["customer"]), ("one", one["customer"]), ("any", two["customer"])]


async def test_an_alert_made_late_is_told_with_the_next_usage(world: World) -> None:
    subscription = await wallet(world)
    await use(world, subscription, "api_calls", 100)
    made = await alert(world, "spend", 100, "amount", name="late")
    await use(world, subscription, "api_calls", 1)
    assert await values(world) == [("late", 10_100)]
    await world.ask("PATCH", f"/alerts/{made['id']}", {"threshold": 200})
    await use(world, subscription, "api_calls", 1)
    assert [value for _name, value in await values(world)] == [10_100, 10_200]
    await world.ask("PATCH", f"/alerts/{made['id']}", {"threshold": 300, "isActive": False})
    await use(world, subscription, "api_calls", 1)
    assert len(await values(world)) == 2


async def test_another_organizations_alert_looks_at_nobody_here(world: World) -> None:
    subscription = await wallet(world)
    stranger = await api.make_account(world.services.database)
    other = World(world.services, stranger, Api(world.api.client, stranger.key), world.clock)
    await alert(other, "spend", 1, "amount")
    await use(world, subscription, "api_calls", 5)
    assert await topics(world) == []
    assert await topics(other) == []


# ── what dies in between ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_worker_killed_after_the_announcement_and_before_the_commit_tells_it_once(
    still: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscription = await wallet(still)
    await still.use(subscription["customer"], "api_calls", 460)
    await alert(still, "spend", 100, "amount")

    async def die(_connection: Connection, customer_ids: Sequence[int], now: object) -> int:
        assert await judging_judge(_connection, customer_ids, now) == 2
        raise ConnectionError("killed")

    judging_judge: Any = judging.judge
    with monkeypatch.context() as patched:
        patched.setattr(judging, "judge", die)
        with pytest.raises(ConnectionError):
            await roll_up(still)
    assert await topics(still) == []
    assert await still.services.database.fetchval("SELECT count(*) FROM usage_events") == 0
    for _ in range(3):
        await roll_up(still)
    assert await topics(still) == ["balance.low", "alert.triggered"]


async def test_a_pass_that_commits_without_being_answered_tells_it_once(still: World, monkeypatch: pytest.MonkeyPatch) -> None:
    subscription = await wallet(still)
    await still.use(subscription["customer"], "api_calls", 460)

    async def die(*_arguments: object) -> None:
        raise ConnectionError("killed")

    with monkeypatch.context() as patched:
        patched.setattr("tallybook.rollup.log_reader.trim", die)
        with pytest.raises(ConnectionError):
            await roll_up(still)
    await roll_up(still)
    await still.use(subscription["customer"], "api_calls", 1)
    await roll_up(still)
    assert await topics(still) == ["balance.low"]


async def test_an_alert_that_breaks_keeps_no_usage_out_of_the_book_and_is_made_up_for(
    still: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscription = await wallet(still)
    await still.use(subscription["customer"], "api_calls", 460)

    async def broken(connection: Connection, *_arguments: object) -> None:
        await connection.execute("SELECT 1 / 0")

    with monkeypatch.context() as patched:
        patched.setattr(alert_store, "watch", broken)
        await roll_up(still)
    assert await still.services.database.fetchval("SELECT count(*) FROM usage_events") == 1
    assert await still.services.database.fetchval("SELECT count(*) FROM quarantine") == 0
    assert await topics(still) == []
    await still.use(subscription["customer"], "api_calls", 1)
    await roll_up(still)
    assert await topics(still) == ["balance.low"]


async def test_a_broken_announcement_takes_its_crossing_back_with_it(still: World, monkeypatch: pytest.MonkeyPatch) -> None:
    subscription = await wallet(still)
    await alert(still, "spend", 100, "amount")
    await still.use(subscription["customer"], "api_calls", 1)

    async def broken(connection: Connection, *_arguments: object) -> int:
        return await connection.fetchval("SELECT 1 / 0")

    with monkeypatch.context() as patched:
        patched.setattr(tenancy, "announce", broken)
        await roll_up(still)
    assert await still.services.database.fetchval("SELECT count(*) FROM alert_crossings") == 0
    await still.use(subscription["customer"], "api_calls", 1)
    await roll_up(still)
    assert await topics(still) == ["alert.triggered"]


async def test_the_log_read_in_one_pass_or_in_many_tells_of_the_same_crossing_once(still: World) -> None:
    subscription = await wallet(still)
    for number in range(60):
        await still.use(subscription["customer"], "api_calls", 10)
        if number % 2 == 0:
            await roll_up(still)
    await roll_up(still)
    assert await topics(still) == ["balance.low", "balance.depleted"]


async def test_what_is_over_is_forgotten(world: World) -> None:
    await world.stand_at("2026-01-31T10:00:00")
    subscription = await wallet(world)
    await use(world, subscription, "api_calls", 460)
    await world.advance_to("2026-02-28T10:00:00")
    await world.caught_up()
    async with world.services.database.acquire() as connection:
        assert await alert_store.forget_watches(connection, 100) == 1
        assert await alert_store.forget_watches(connection, 100) == 0
