"""Months of raw events that are old enough go; what was computed from them stays, and who needs them is told since when they exist."""

import argparse
import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tallybook.charge import identities
from tallybook.cli import report_close
from tallybook.core import clock, errors, partitions
from tallybook.entrypoints.workers import upkeep
from tallybook.flows import reconcile, reconcile_identities, reconcile_round, rerate
from tallybook.flows.reconcile import Report
from tallybook.reports import store
from tallybook.rollup import actions as rollup
from tallybook.rollup import identity_sums, model_usage, retention
from tallybook.rollup.model_usage import ModelCustomer
from tallybook.storage import postgres
from tallybook.storage.redis import Redis
from tests.support import billing, rerating, waiting
from tests.support.billing import Json, World, at

KEPT = 2
DROPPED_SUM = "months whose events were dropped = months whose sums were kept"


@pytest.fixture
async def world(database: postgres.Pool, redis_client: Redis) -> AsyncGenerator[World]:
    await billing.forget_everything(database, redis_client)
    await database.execute("TRUNCATE dropped_months, raw_usage_starts, dropped_hourly, dropped_moves")
    async with billing.world(database, redis_client) as made:
        await made.stand_at("2026-01-31T10:00:00")
        await made.metered()
        yield made


def later(months: int = KEPT + 1) -> datetime:
    """A moment so many months after this one: events arrive by the till's clock, which nobody sets."""
    now = clock.real_clock()
    year, month = divmod(now.year * 12 + now.month - 1 + months, 12)
    return now.replace(year=year, month=month + 1, day=1)


async def drop(world: World, months: int = KEPT + 1) -> int:
    """What the worker does once an hour, so many months from now. Returns how many events went."""
    dropped = await retention.drop_old(world.services.database, later(months), KEPT)
    return sum(one.events for one in dropped)


async def look(world: World) -> Report:
    await world.caught_up()
    return await reconcile.reconcile(world.services.database, world.services.redis, world.services.settings.partitions)


async def used_and_billed(world: World) -> Json:
    """A subscription with usage in a period that is closed and in the one that runs."""
    subscription = await world.subscribe("pro")
    for value in (3, 4.5):
        await world.use(subscription["customer"], "api_calls", value, properties={"team": "red"})
    await world.advance_to("2026-03-01T00:00:00")
    await world.caught_up()
    return subscription


async def usage_report(world: World, **params: str) -> Json:
    window = {"from": "2026-01-01T00:00:00Z", "to": "2026-12-01T00:00:00Z"}
    return await world.ask("GET", "/reports/usage", params=window | params)


async def raw_events(world: World) -> int:
    return await world.services.database.fetchval("SELECT count(*) FROM usage_events")


async def is_waited_for(database: postgres.Pool, mode: str) -> bool:
    """Whether somebody waits for a lock of the events of this mode."""
    return await database.fetchval(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'usage_events'::regclass AND mode = $1 AND NOT granted)", mode
    )


async def test_sums_reports_and_invoices_stay_when_their_events_go(world: World) -> None:
    subscription = await used_and_billed(world)
    before, invoices = await usage_report(world, groupBy="customerId"), await world.invoices(subscription)
    assert await raw_events(world) > 0
    assert await drop(world) > 0
    assert await raw_events(world) == 0
    report = await look(world)
    assert report.is_clean
    assert {one.what: one.left for one in report.sums}["usage events = hourly totals: events"] == 2
    assert DROPPED_SUM in {one.what for one in report.sums}
    assert await usage_report(world, groupBy="customerId") == before
    assert await world.invoices(subscription) == invoices


async def test_a_spoilt_sum_is_found_after_its_events_have_gone(world: World) -> None:
    await used_and_billed(world)
    await drop(world)
    await world.services.database.execute("UPDATE usage_hourly SET quantity_nano = quantity_nano + 1")
    assert {one.what for one in (await look(world)).sums if not one.is_equal} == {"usage events = hourly totals: quantity"}
    await world.services.database.execute("UPDATE usage_hourly SET quantity_nano = quantity_nano - 1")
    await world.services.database.execute("UPDATE pool_ledger SET amount = amount - 1 WHERE kind = 'charge'")
    assert not (await look(world)).is_clean


async def test_what_needs_single_events_says_since_when_there_are_any(world: World) -> None:
    subscription = await used_and_billed(world)
    event = await world.use(subscription["customer"], "api_calls", 1)
    await world.advance_to("2026-04-01T00:00:00")
    await world.caught_up()
    await drop(world)
    window = {"from": "2026-01-01T00:00:00Z", "to": "2026-12-01T00:00:00Z"}
    by_team = window | {"groupBy": "property:team"}
    assert await world.refused("GET", "/reports/usage", params=by_team) == (400, "raw_events_dropped")
    assert await world.refused("GET", "/usage/events", params=window) == (400, "raw_events_dropped")
    since = await world.services.database.fetchval("SELECT max(starts_at) FROM raw_usage_starts")
    assert since == at("2026-03-01T01:00:00")
    assert (await world.ask("GET", "/usage/events", params={"from": clock.iso(since)}))["data"] == []
    from_then_on = by_team | {"from": clock.iso(since), "to": clock.iso(since + timedelta(days=30))}
    assert (await world.ask("GET", "/reports/usage", params=from_then_on))["data"] == []
    answer = await world.api.send("POST", f"/api/v1/usage/events/{event['id']}/void", {"reason": "late"})
    assert (answer.status, answer.code) == (404, "usage_event_not_found")
    assert "were dropped" in answer.body["error"]["message"]


@pytest.mark.parametrize("path", ["/reports/usage", "/usage/events"])
async def test_a_month_that_goes_while_it_is_asked_for_is_not_left_out_in_silence(
    world: World, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes after it was seen that all is there, and before that is read."""
    await used_and_billed(world)
    check = store.check_whole

    async def check_and_drop(*which: Any) -> None:  # noqa: ANN401 - passed on as they are
        await check(*which)
        await drop(world)

    monkeypatch.setattr(store, "check_whole", check_and_drop)
    asked = {"from": "2026-01-01T00:00:00Z", "to": "2026-12-01T00:00:00Z"}
    by_team = {"groupBy": "property:team"} if path == "/reports/usage" else {}
    assert await world.refused("GET", path, params=asked | by_team) == (400, "raw_events_dropped")


async def test_a_month_stays_while_a_period_is_open_that_pays_for_something_in_it(world: World) -> None:
    subscription = await used_and_billed(world)
    await world.use(subscription["customer"], "api_calls", 1)
    await world.caught_up()
    assert await drop(world) == 0
    assert await raw_events(world) > 0
    await world.advance_to("2026-04-01T00:00:00")
    await world.caught_up()
    assert await drop(world) > 0
    assert (await look(world)).is_clean


async def test_months_within_the_setting_stay_and_0_keeps_all(world: World) -> None:
    await used_and_billed(world)
    database, before = world.services.database, await raw_events(world)
    assert await retention.drop_old(database, later(KEPT), KEPT) == []
    assert await retention.drop_old(database, later(100), 0) == []
    await upkeep.forget_in_book(world.services, asyncio.Event())
    assert await raw_events(world) == before


async def test_events_that_arrive_for_a_dropped_month_are_added_to_its_sums_later(world: World) -> None:
    subscription = await used_and_billed(world)
    first = await drop(world)
    await rollup.make_coming_months(world.services.database, clock.real_clock())
    await world.use(subscription["customer"], "api_calls", 2)
    await world.advance_to("2026-04-01T00:00:00")
    await world.caught_up()
    assert (await look(world)).is_clean
    assert await drop(world) > 0
    assert (await look(world)).is_clean
    rows = await world.services.database.fetch(
        "SELECT sum(events) AS events, count(*) AS months FROM dropped_months WHERE events > 0"
    )
    assert [(row["events"] > first, row["months"]) for row in rows] == [(True, 1)]


async def test_several_workers_drop_a_month_once(world: World) -> None:
    await used_and_billed(world)
    before = await raw_events(world)
    assert sum(await asyncio.gather(*(drop(world) for _ in range(4)))) == before
    assert (await look(world)).is_clean


async def test_a_reader_is_waited_for_and_loses_nothing(world: World) -> None:
    await used_and_billed(world)
    database, before = world.services.database, await raw_events(world)
    async with database.acquire() as reader, reader.transaction():
        assert await reader.fetchval("SELECT count(*) FROM usage_events") == before
        dropping = asyncio.create_task(drop(world))
        await waiting.until(lambda: is_waited_for(database, "AccessExclusiveLock"))
        assert await reader.fetchval("SELECT count(*) FROM usage_events") == before
    assert await dropping == before


async def test_upkeep_makes_the_coming_month_and_drops_old_ones_by_the_setting(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    billing.stores_agree(world, monkeypatch)
    await used_and_billed(world)
    database = world.services.database
    world.clock.shows = later(5)
    world.services.settings = billing.replace(world.services.settings, raw_events_months=KEPT)
    stop = asyncio.Event()
    working = asyncio.create_task(upkeep.keep_tidy(world.services, stop))

    async def is_done() -> bool:
        name = f"usage_events_{later(6):%Y_%m}"
        return await database.fetchval("SELECT to_regclass($1) IS NOT NULL", name) and await raw_events(world) == 0

    await waiting.until(is_done)
    stop.set()
    await working


async def whole_book(world: World) -> bool:
    return (await reconcile.reconcile(world.services.database, world.services.redis, world.services.settings.partitions)).is_clean


async def each_customer(world: World) -> bool:
    stores = (world.services.database, world.services.redis, world.services.settings.partitions)
    rows = await world.services.database.fetch("SELECT DISTINCT customer_id FROM pool_balances")
    return all([(await reconcile.customer(*stores, world.tenant.id, row["customer_id"])).is_clean for row in rows])


async def a_round(world: World) -> bool:
    async def go_on() -> bool:
        return True

    outcome = await reconcile_round.go_round(world.services, go_on)
    # The month goes here while the till remembers its events, months before the setting would let it.
    return not outcome.differences and all(one.what.startswith("identities") for one in outcome.wrong)


@pytest.mark.parametrize("compare", [whole_book, each_customer, a_round])
async def test_reconciling_while_a_month_goes_sees_it_either_whole_or_gone(
    world: World, compare: Callable[[World], Coroutine[None, None, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when the snapshot is older than the moment at which it may read the events."""
    monkeypatch.setattr(retention, "_PATIENCE", "60s")
    await used_and_billed(world)
    database, before = world.services.database, await raw_events(world)
    async with database.acquire() as reader, reader.transaction():
        assert await reader.fetchval("SELECT count(*) FROM usage_events") == before
        dropping = asyncio.create_task(drop(world))
        await waiting.until(lambda: is_waited_for(database, "AccessExclusiveLock"))
        comparing = asyncio.create_task(compare(world))
        await waiting.until(lambda: is_waited_for(database, "AccessShareLock"))
    assert await dropping == before
    assert await comparing


async def silent_for(world: World, windows: int) -> None:
    """Make of the till's memory what a silence of so many hot windows does, by moving it back in time."""
    client, window_s = world.services.redis, world.services.till.hot_window_s
    for partition in range(world.services.settings.partitions):
        meta = f"{partitions.prefix(partition)}:m"
        if await client.execute_command("HEXISTS", meta, "generation"):
            await client.execute_command("HINCRBY", meta, "generation", -windows)
            await client.execute_command("HINCRBY", meta, "now_ms", -windows * window_s * 1000)
    for key in await client.execute_command("KEYS", identities.KEYS):
        prefix, name, generation, bucket = key.split(b":", 3)
        await client.execute_command("RENAME", key, b":".join((prefix, name, b"%d" % (int(generation) - windows), bucket)))


async def test_ids_of_a_dropped_month_that_a_silent_partition_still_holds_are_no_difference(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when the generations compared are those of a partition's last event: the book has dropped it, and is read that far."""
    asked: list[datetime] = []
    counts = identity_sums.counts

    async def noting(connection: Any, since: datetime, *words: Any) -> Any:  # noqa: ANN401 - passed on
        asked.append(since)
        return await counts(connection, since, *words)

    monkeypatch.setattr(identity_sums, "counts", noting)
    subscription = await world.subscribe("pro")
    await world.use(subscription["customer"], "api_calls", 3)
    await world.advance_to("2026-03-01T00:00:00")
    await world.caught_up()
    stores = (world.services.database, world.services.redis, world.services.settings.partitions)
    before = await reconcile_identities.compare(*stores, world.services.till.hot_window_s)
    assert before.left > 0
    assert await drop(world) > 0
    await silent_for(world, 40)
    held = await reconcile_identities.compare(*stores, world.services.till.hot_window_s)
    assert (held.left, held.right, held.places) == (0, 0, [])
    assert min(asked) >= clock.real_clock() - timedelta(seconds=2 * world.services.till.hot_window_s, minutes=5)
    await world.use(subscription["customer"], "api_calls", 1)
    await world.caught_up()
    after = await reconcile_identities.compare(*stores, world.services.till.hot_window_s)
    assert (after.left, after.right, after.places) == (1, 1, [])


async def test_between_its_tries_to_take_a_month_out_everybody_reads(world: World) -> None:
    """Fails when tries follow each other at once: whoever reads would wait behind nearly always."""
    await used_and_billed(world)
    database, before = world.services.database, await raw_events(world)
    async with database.acquire() as reader, reader.transaction():
        assert await reader.fetchval("SELECT count(*) FROM usage_events") == before
        dropping = asyncio.create_task(drop(world))
        await waiting.until(lambda: is_waited_for(database, "AccessExclusiveLock"))
        seen: list[bool] = []
        for _ in range(60):
            seen.append(await is_waited_for(database, "AccessExclusiveLock"))
            await asyncio.sleep(0.05)
        assert sum(seen) < len(seen) / 2
    assert await dropping == before


async def test_a_worker_that_is_told_to_stop_gives_up_a_month_that_it_cannot_take_out(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when it goes on to its last try, or leaves anything of the month behind."""
    billing.stores_agree(world, monkeypatch)
    await used_and_billed(world)
    database, before = world.services.database, await raw_events(world)
    world.clock.shows = later(5)
    world.services.settings = billing.replace(world.services.settings, raw_events_months=KEPT)
    stop = asyncio.Event()
    async with database.acquire() as reader, reader.transaction():
        assert await reader.fetchval("SELECT count(*) FROM usage_events") == before
        working = asyncio.create_task(upkeep.keep_tidy(world.services, stop))
        await waiting.until(lambda: is_waited_for(database, "AccessExclusiveLock"))
        stop.set()
        await working
    assert "upkeep waits" not in caplog.text
    assert await raw_events(world) == before
    assert await database.fetchval("SELECT count(*) FROM dropped_moves") == 0
    assert (await look(world)).is_clean
    assert await drop(world) == before


async def test_a_month_stays_whose_usage_is_of_a_period_that_has_no_row_yet(world: World) -> None:
    """Fails when only periods that have begun count: one that can't be closed keeps those behind it from beginning."""
    subscription = await world.subscribe("pro")
    await world.services.database.execute("UPDATE billing_periods SET state = 'closing'")
    await world.stand_at("2026-03-02T10:00:00")
    await world.use(subscription["customer"], "api_calls", 1500)
    await world.caught_up()
    assert len(await world.periods(subscription)) == 1
    assert await drop(world) == 0
    await world.advance_to("2026-05-01T00:00:00")
    assert sum(invoice["total"] for invoice in await world.invoices(subscription)) == 4 * 9900 + 500
    assert await drop(world) > 0
    assert (await look(world)).is_clean


async def test_what_one_customer_lost_keeps_nobody_else_from_being_priced_again(world: World, redis_client: Redis) -> None:
    """Fails when the sandbox whose clock is years ahead, or usage outside the window, stands for everybody."""
    database = world.services.database
    async with rerating.rerating_world(database, redis_client) as ahead, rerating.rerating_world(database, redis_client) as plain:
        lost = await rerating.subscribed(ahead)
        await ahead.advance_to("2028-06-01T00:00:00")
        await rerating.use(ahead, lost)
        await ahead.advance_to("2028-08-01T00:00:00")
        await ahead.caught_up()
        assert await drop(ahead) > 0
        await rollup.make_coming_months(database, clock.real_clock())
        await rerating.use(plain, await rerating.subscribed(plain))
        day = rerate.Window(at(rerating.DAY[0]), at(rerating.DAY[1]))
        assert [one.events async for one in rerate.survey(plain.services, day)] == [1]
        with pytest.raises(errors.ValidationError, match=r"before 2028-06-01T01:00:00.* were dropped"):
            await anext(rerate.survey(plain.services, rerate.Window(at("2026-11-01"), at("2028-07-01"))))
        after = rerate.Window(at("2028-06-01T01:00:00"), at("2028-07-01"))
        assert [one async for one in rerate.survey(plain.services, after)] == []


async def test_a_month_that_goes_while_its_usage_is_priced_again_is_not_taken_for_unused(
    world: World, redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when only the state before the first customer counts: what re-ratings took would be given back."""
    database = world.services.database
    async with rerating.rerating_world(database, redis_client) as priced:
        await rerating.use(priced, await rerating.subscribed(priced))
        await priced.advance_to("2027-01-10T00:00:00")
        await priced.caught_up()
        original = model_usage.customers

        async def and_then_drop(*which: Any) -> list[ModelCustomer]:  # noqa: ANN401 - passed on as they are
            found = await original(*which)
            assert await drop(priced) > 0
            return found

        monkeypatch.setattr(model_usage, "customers", and_then_drop)
        with pytest.raises(errors.ValidationError, match="were dropped"):
            await rerating.survey(priced)


async def test_a_month_is_not_closed_without_its_single_events_and_nothing_is_written(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when the files before the first that needs them are written first."""
    await used_and_billed(world)
    await drop(world)
    wanted = argparse.Namespace(
        month="2026-01", time_zone="UTC", format="csv", organization=world.tenant.organization_id, live=False
    )
    made: list[Path] = []

    def noted(folder: Path, **_how: bool) -> None:
        made.append(folder)

    monkeypatch.setattr(Path, "mkdir", noted)
    with pytest.raises(errors.ValidationError, match="were dropped"):
        await report_close.write(world.services, wanted, tmp_path / "pack")
    assert made == []
