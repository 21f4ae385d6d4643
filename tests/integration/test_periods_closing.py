"""Closing periods: by several workers at once, interrupted anywhere, while usage arrives, and with a book that lags."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from tallybook.core import errors
from tallybook.entrypoints.workers import periods as worker
from tallybook.flows import period
from tallybook.storage import postgres
from tallybook.storage.redis import Redis
from tallybook.subscriptions import period_store
from tests.support import billing, waiting
from tests.support.billing import Json, World


@pytest.fixture
async def world(database: postgres.Pool, redis_client: Redis) -> AsyncGenerator[World]:
    async with billing.world(database, redis_client) as made:
        yield made


async def test_real_clocks_wait_for_the_grace_before_a_period_closes(world: World) -> None:
    world.services.settings = replace(world.services.settings, period_grace_s=60)
    await world.metered()
    subscription = await world.subscribe("pro")
    world.clock.shows = billing.at("2026-12-20T09:00:59")
    await world.close_due()
    assert len(await world.invoices(subscription)) == 1
    world.clock.shows = billing.at("2026-12-20T09:01:00")
    await world.close_due()
    assert len(await world.invoices(subscription)) == 2


async def test_periods_that_nobody_closed_for_months_are_closed_one_after_the_other(world: World) -> None:
    await world.metered()
    subscription = await world.subscribe("pro")
    world.clock.shows = billing.at("2027-02-21T09:00:00")
    while await world.close_due():
        pass
    assert [invoice["total"] for invoice in await world.invoices(subscription)] == [9900] * 4
    assert (await world.periods(subscription))[-1] == ("2027-02-20", "2027-03-20", "open")


async def test_five_closers_at_once_make_one_invoice(world: World) -> None:
    await world.metered()
    subscriptions = [await world.subscribe("pro") for _ in range(3)]
    for subscription in subscriptions:
        await world.use(subscription["customer"], "api_calls", 1500)
    world.clock.shows = billing.at("2026-12-20T10:00:00")
    await asyncio.gather(*(world.close_due() for _ in range(5)))
    for subscription in subscriptions:
        assert [invoice["total"] for invoice in await world.invoices(subscription)] == [9900, 10_400]
        assert [state for _, _, state in await world.periods(subscription)] == ["closed", "open"]
    assert (await world.topics("invoice")).count("invoice.created") == 6


async def test_invoice_numbers_have_no_gaps_when_many_are_issued_at_once(world: World) -> None:
    await world.metered()
    customers = [await world.customer() for _ in range(12)]
    await asyncio.gather(*(world.subscribe("pro", customer) for customer in customers))
    assert await world.refused("POST", "/subscriptions", {"customerId": customers[0], "planCode": "pro"}) == (
        409,
        "already_has_active_subscription",
    )
    world.clock.shows = billing.at("2026-12-20T10:00:00")
    await asyncio.gather(world.close_due(), world.close_due())
    listed = await world.ask("GET", "/invoices", params={"limit": "100"})
    assert sorted(item["invoiceNumber"] for item in listed["data"]) == [f"INV-{number:06d}" for number in range(1, 25)]


class CrashError(Exception):
    """Stands for a process that was killed at this point."""


_STEPS = ("begin", "mark", "catch_up", "settle", "expire")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", _STEPS)
async def test_closing_goes_on_wherever_it_was_interrupted(
    world: World, monkeypatch: pytest.MonkeyPatch, step: str, when: str
) -> None:
    await world.metered()
    subscription = await world.subscribe("pro")
    await world.use(subscription["customer"], "api_calls", 1500)
    world.clock.shows = billing.at("2026-12-20T10:00:00")
    with monkeypatch.context() as patch:
        patch.setattr(period, step, _crashing(getattr(period, step), when))
        await _until_crash(world)
    await world.close_due()
    await period.expire_leftovers(world.services)
    assert [invoice["total"] for invoice in await world.invoices(subscription)] == [9900, 10_400]
    assert [state for _, _, state in await world.periods(subscription)] == ["closed", "open"]
    async with world.services.database.acquire() as connection:
        assert await period_store.unexpired(connection, 10) == []
    assert await _pools(world, subscription) == {"f": (1, 0)}


def _crashing(step: Callable[..., Awaitable[Any]], when: str) -> Callable[..., Awaitable[Any]]:
    async def crash(*arguments: object) -> object:
        if when == "after":
            await step(*arguments)
        raise CrashError

    return crash


async def _until_crash(world: World) -> None:
    """A crash in `settle` rolls its transaction back and is a value; anywhere else it flies."""
    try:
        results = await period.close_due(world.services)
    except CrashError:
        return
    assert all(isinstance(result, period.Unsettled) for result in results)


async def _pools(world: World, subscription: Json) -> dict[str, tuple[int, int]]:
    """By kind: how many pools the subscription has in the book, and how many of the closed period the till still holds."""
    rows = await world.services.database.fetch(
        "SELECT b.pool, b.customer_id FROM pool_balances AS b JOIN subscriptions AS s ON s.customer_id = b.customer_id "
        "WHERE s.public_id = $1",
        subscription["id"],
    )
    found: dict[str, tuple[int, int]] = {}
    for row in rows:
        view = await world.services.till.read(world.tenant.id, row["customer_id"])
        kind = row["pool"].split(".")[1][0]
        total, held = found.get(kind, (0, 0))
        found[kind] = (total + 1, held + (row["pool"] in view.pools))
    return found


async def test_nothing_is_billed_before_the_book_has_read_what_the_till_took(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.metered()
    subscription = await world.subscribe("pro")
    monkeypatch.setattr(period, "CATCH_UP_S", 0.1)
    async with world.services.database.acquire() as held, held.transaction():
        await held.execute("LOCK TABLE log_offsets IN EXCLUSIVE MODE")  # the rollup can't commit
        await world.use(subscription["customer"], "api_calls", 1500)
        world.clock.shows = billing.at("2026-12-20T10:00:00")
        [result] = await period.close_due(world.services)
        assert isinstance(result, period.Unsettled)
        assert isinstance(result.error, errors.Unavailable)
        assert len(await world.invoices(subscription)) == 1
    monkeypatch.undo()
    await world.close_due()
    assert (await world.invoices(subscription))[-1]["total"] == 10_400


async def test_usage_under_way_while_a_period_closes_is_billed_once_in_one_period_or_the_other(world: World) -> None:
    await world.metered()
    subscription = await world.subscribe("pro")
    world.clock.shows = billing.at("2026-12-20T08:59:59")

    async def send() -> None:
        for _ in range(40):
            await world.use(subscription["customer"], "api_calls", 100, timestamp="2026-12-20T08:00:00Z")

    async def close() -> None:
        await asyncio.sleep(0.05)
        world.clock.shows = billing.at("2026-12-20T09:00:01")
        await world.close_due()

    await asyncio.gather(send(), send(), close())
    world.clock.shows = billing.at("2027-01-20T09:00:01")
    await world.close_due()
    billed = sum(
        item["usedAmount"]
        for invoice in await world.invoices(subscription)
        for item in invoice["lineItems"]
        if item["usedAmount"]
    )
    within = await world.services.database.fetchval(
        "SELECT coalesce(sum(charged), 0) FROM pool_balances WHERE tenant_id = $1 AND pool LIKE '%.f%' AND charged <= opening",
        world.tenant.id,
    )
    assert billed + int(within) // 10**9 == 80 * 100


async def test_one_period_that_can_not_be_billed_does_not_hold_up_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.metered()
    broken, good = await world.subscribe("pro"), await world.subscribe("pro")
    world.clock.shows = billing.at("2026-12-20T10:00:00")
    bill = period.billing.bill

    async def bill_all_but_one(connection: postgres.Connection, subscription: Any, *arguments: Any) -> Any:  # noqa: ANN401 - passed on
        if subscription.public_id == broken["id"]:
            raise CrashError
        return await bill(connection, subscription, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(period.billing, "bill", bill_all_but_one)
        results = await period.close_due(world.services)
    assert sorted(type(result).__name__ for result in results) == ["Settled", "Unsettled"]
    assert len(await world.invoices(good)) == 2
    assert len(await world.invoices(broken)) == 1
    await world.close_due()
    assert len(await world.invoices(broken)) == 2


async def test_the_worker_closes_periods_until_it_is_told_to_stop(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    billing.stores_agree(world, monkeypatch)
    await world.metered()
    subscription = await world.subscribe("pro")
    world.clock.shows = billing.at("2026-12-20T10:00:00")
    stop = asyncio.Event()
    task = asyncio.create_task(worker.run(world.services, stop))

    async def invoiced() -> bool:
        assert not task.done()
        return len(await world.invoices(subscription)) == 2

    await waiting.until(invoiced)
    stop.set()
    await task


async def test_a_partition_whose_log_is_stuck_does_not_hold_up_the_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.metered()
    subscriptions = [await world.subscribe("pro") for _ in range(12)]
    world.clock.shows = billing.at("2026-12-20T10:00:00")
    monkeypatch.setattr(period, "CATCH_UP_S", 0.1)
    rolled_up_to = period.invoice_store.rolled_up_to

    async def stuck_in_partition_2(connection: postgres.Connection, partition: int) -> int:
        return 0 if partition == 2 else await rolled_up_to(connection, partition)

    with monkeypatch.context() as patch:
        patch.setattr(period.invoice_store, "rolled_up_to", stuck_in_partition_2)
        results = await period.close_due(world.services)
    places = {period.partition_of(world.services, world.tenant, result.period.customer_id) for result in results}
    assert places == {0, 1, 2, 3}
    for result in results:
        is_stuck = period.partition_of(world.services, world.tenant, result.period.customer_id) == 2
        assert isinstance(result, period.Unsettled) is is_stuck
    await world.close_due()
    assert [len(await world.invoices(subscription)) for subscription in subscriptions] == [2] * 12


async def test_settling_a_closed_period_again_changes_nothing(world: World) -> None:
    await world.stand_at("2026-01-05")
    await world.metered()
    subscription = await world.subscribe("pro")
    await world.ask("POST", "/test-clock", {"frozenTime": "2026-02-10"}, status=202)
    await world.stand_at("2026-02-05")
    [first] = await world.close_due()
    before = await _state(world)
    async with postgres.transaction(world.services.database) as connection:
        again = await period.settle(connection, first.period, world.clock())
    assert again.invoice == first.invoice
    assert await _state(world) == before
    assert len(await world.invoices(subscription)) == 2


async def _state(world: World) -> list[object]:
    """All that settling a period writes."""
    database, tenant_id = world.services.database, world.tenant.id
    queries = (
        "SELECT count(*) FROM invoices WHERE tenant_id = $1",
        "SELECT count(*) FROM outbox WHERE tenant_id = $1",
        "SELECT count(*) FROM billing_periods WHERE tenant_id = $1",
        "SELECT sum(completed) FROM test_clock_runs WHERE tenant_id = $1",
        "SELECT sum(version) FROM customer_terms WHERE tenant_id = $1",
    )
    return [await database.fetchval(query, tenant_id) for query in queries]
