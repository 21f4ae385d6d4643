"""The sandbox's test clock over HTTP: durable runs, what they refuse, and what they say."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from tallybook.core import errors
from tallybook.flows import period, test_clock
from tallybook.storage import postgres
from tallybook.storage.redis import Redis
from tallybook.subscriptions import clock_store
from tests.support import api, billing
from tests.support.api import Api
from tests.support.billing import World


@pytest.fixture
async def world(database: postgres.Pool, redis_client: Redis) -> AsyncGenerator[World]:
    async with billing.world(database, redis_client) as made:
        yield made


async def test_a_clock_that_was_never_turned_shows_the_real_time(world: World) -> None:
    clock = await world.ask("GET", "/test-clock")
    assert (clock["isActive"], clock["simulatedTime"], clock["latestRun"]) == (False, None, None)
    assert (clock["now"], clock["object"], clock["livemode"]) == ("2026-11-20T09:00:00.000Z", "test_clock", False)


async def test_advancing_answers_202_with_a_pending_run_and_the_clock_stands_still_afterwards(world: World) -> None:
    run = await world.ask("POST", "/test-clock", {"advanceDays": 30}, status=202)
    assert (run["status"], run["targetTime"], run["object"]) == ("pending", "2026-12-20T09:00:00.000Z", "test_clock_run")
    await test_clock.carry_on(world.services)
    world.clock.shows = billing.at("2026-11-25T00:00:00")
    clock = await world.ask("GET", "/test-clock")
    assert (clock["isActive"], clock["now"]) == (True, "2026-12-20T09:00:00.000Z")
    assert clock["latestRun"]["id"] == run["id"]
    assert clock["latestRun"]["status"] == "completed"


async def test_deadlines_are_processed_in_order_of_time_each_at_its_own_moment(world: World) -> None:
    await world.stand_at("2026-01-05")
    await world.plan("weekly", 700, "weekly")
    await world.plan("monthly", 3000)
    await world.subscribe("weekly")
    await world.stand_at("2026-01-08")
    await world.subscribe("monthly")
    run = await world.advance_to("2026-02-10")
    due = [item["dueAt"][:10] for item in run["items"]]
    assert due == ["2026-01-12", "2026-01-19", "2026-01-26", "2026-02-02", "2026-02-08", "2026-02-09"]
    issued = [item["issueDate"][:10] for item in (await world.ask("GET", "/invoices"))["data"]]
    assert list(reversed(issued)) == ["2026-01-05", "2026-01-08", *due]
    assert (run["estimatedDeadlineCount"], run["completedDeadlineCount"], run["failedDeadlineCount"]) == (2, 6, 0)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"advanceDays": 1, "frozenTime": "2027-01-01"},
        {"advanceDays": 0},
        {"advanceDays": -1},
        {"advanceDays": 731},
        {"advanceDays": 1.5},
        {"frozenTime": "2026-11-20T09:00:00Z"},
        {"frozenTime": "2026-11-19"},
        {"frozenTime": "2028-11-21"},
        {"frozenTime": "tomorrow"},
        {"frozenTime": "2026-12-20T09:00:00"},
        {"frozenTime": "2026-02-30"},
        {"frozenTime": "0001-01-01T00:00:00+23:59"},
        {"days": 1},
    ],
)
async def test_a_target_that_is_not_ahead_or_too_far_is_refused(world: World, body: dict[str, Any]) -> None:
    assert await world.refused("POST", "/test-clock", body) == (400, "validation_error")


async def test_a_second_run_waits_for_the_first_to_end(world: World) -> None:
    await world.ask("POST", "/test-clock", {"advanceDays": 1}, status=202)
    assert await world.refused("POST", "/test-clock", {"advanceDays": 1}) == (409, "already_scheduled")
    await test_clock.carry_on(world.services)
    await world.ask("POST", "/test-clock", {"advanceDays": 1}, status=202)


async def test_of_two_advances_at_the_same_time_one_is_refused(world: World) -> None:
    answers = await asyncio.gather(*(world.api.send("POST", "/api/v1/test-clock", {"advanceDays": 1}) for _ in range(5)))
    assert sorted(answer.status for answer in answers) == [202, 409, 409, 409, 409]


async def test_a_live_organization_has_no_test_clock(world: World) -> None:
    live = await api.make_account(world.services.database, livemode=True)
    caller = Api(world.api.client, live.key)
    for method, path, body in (("GET", "", None), ("POST", "", {"advanceDays": 1}), ("POST", "/process-billing", None)):
        answer = await caller.send(method, f"/api/v1/test-clock{path}", body)
        assert (answer.status, answer.code) == (403, "sandbox_only")


async def test_the_old_way_to_process_billing_is_gone(world: World) -> None:
    assert await world.refused("POST", "/test-clock/process-billing") == (410, "endpoint_deprecated")


async def test_a_run_that_was_interrupted_goes_on_where_it_was(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.stand_at("2026-01-05")
    await world.plan("monthly", 3000)
    subscription = await world.subscribe("monthly")
    await world.ask("POST", "/test-clock", {"frozenTime": "2026-05-01"}, status=202)
    close, calls = period.close, 0

    async def killed_in_the_third_month(*arguments: Any) -> Any:  # noqa: ANN401 - passed on
        nonlocal calls
        calls += 1
        if calls == 3:
            raise asyncio.CancelledError
        return await close(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(period, "close", killed_in_the_third_month)
        with pytest.raises(asyncio.CancelledError):
            await test_clock.carry_on(world.services)
    halfway = await world.ask("GET", "/test-clock")
    assert (halfway["latestRun"]["status"], halfway["now"][:10]) == ("running", "2026-04-05")
    await test_clock.carry_on(world.services)
    done = await world.ask("GET", "/test-clock")
    assert (done["latestRun"]["status"], done["now"][:10], done["latestRun"]["completedDeadlineCount"]) == (
        "completed",
        "2026-05-01",
        3,
    )
    assert len(await world.invoices(subscription)) == 4


async def test_a_run_that_can_not_bill_a_period_fails_and_says_which(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.stand_at("2026-01-05")
    await world.plan("monthly", 3000)
    subscription = await world.subscribe("monthly")

    async def broken(*_arguments: object) -> None:
        raise ZeroDivisionError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(period.billing, "bill", broken)
        await world.ask("POST", "/test-clock", {"advanceDays": 90}, status=202)
        await test_clock.carry_on(world.services)
    clock = await world.ask("GET", "/test-clock")
    run = clock["latestRun"]
    assert (run["status"], run["failedDeadlineCount"], clock["now"][:10]) == ("failed", 1, "2026-02-05")
    assert (run["items"][0]["subscriptionId"], run["items"][0]["error"]) == (subscription["id"], "ZeroDivisionError: a bug")
    await world.advance_to("2026-03-01")
    assert len(await world.invoices(subscription)) == 2


async def test_several_workers_share_a_run_without_doing_anything_twice(world: World) -> None:
    await world.stand_at("2026-01-05")
    await world.plan("weekly", 700, "weekly")
    subscriptions = [await world.subscribe("weekly") for _ in range(3)]
    await world.ask("POST", "/test-clock", {"frozenTime": "2026-03-05"}, status=202)
    await asyncio.gather(
        *(test_clock.carry_on(world.services) for _ in range(3)), *(period.close_due(world.services) for _ in range(3))
    )
    while await world.runs():
        await test_clock.carry_on(world.services)
    run = (await world.ask("GET", "/test-clock"))["latestRun"]
    assert (run["status"], run["completedDeadlineCount"]) == ("completed", 24)
    for subscription in subscriptions:
        assert len(await world.invoices(subscription)) == 9


async def test_a_run_counts_every_deadline_and_lists_the_latest(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock_store, "ITEMS_KEPT", 3)
    await world.stand_at("2026-01-05")
    await world.plan("weekly", 700, "weekly")
    await world.subscribe("weekly")
    run = await world.advance_to("2026-02-12")
    assert (run["completedDeadlineCount"], [item["dueAt"][:10] for item in run["items"]]) == (
        5,
        ["2026-01-26", "2026-02-02", "2026-02-09"],
    )


async def test_a_run_waits_for_a_till_that_is_away_and_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.stand_at("2026-01-05")
    await world.plan("monthly", 3000)
    subscription = await world.subscribe("monthly")
    await world.ask("POST", "/test-clock", {"advanceDays": 45}, status=202)

    async def away(*_arguments: object) -> int:
        raise errors.Unavailable("till_unavailable", "away")

    with monkeypatch.context() as patch:
        patch.setattr(world.services.till, "tick", away)
        with pytest.raises(errors.Unavailable):
            await test_clock.carry_on(world.services)
    assert (await world.ask("GET", "/test-clock"))["latestRun"]["status"] == "running"
    await test_clock.carry_on(world.services)
    assert (await world.ask("GET", "/test-clock"))["latestRun"]["status"] == "completed"
    assert len(await world.invoices(subscription)) == 2
