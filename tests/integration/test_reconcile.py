"""Reconciliation: exact while traffic flows, and blind to nothing."""

import asyncio
import random
from collections.abc import Iterable

import pytest

from tallybook.charge import states
from tallybook.charge.states import State
from tallybook.charge.till import Outcome, Till
from tallybook.cli import reconcile as command
from tallybook.core.usage_log import Kind
from tallybook.entrypoints.workers import rollup as worker
from tallybook.entrypoints.workers.rollup import Rollup
from tallybook.flows import reconcile, reconcile_till
from tallybook.flows.reconcile import Report
from tallybook.rollup import log_reader, sums
from tallybook.rollup.sums import PoolState, Sum
from tallybook.storage.postgres import Pool, Querying
from tallybook.storage.redis import Redis
from tests.support import book as books
from tests.support import log_builder as log
from tests.support import tills
from tests.support.book import Book


@pytest.fixture
async def book(database: Pool, redis_client: Redis) -> Book:
    return await books.empty(database, redis_client)


@pytest.fixture
async def till(book: Book) -> Till:
    return await tills.open_till(book.redis)


async def look(book: Book) -> Report:
    return await reconcile.reconcile(book.database, book.redis, books.PARTITIONS)


async def some_traffic(till: Till) -> None:
    """Every kind of record, on four customers."""
    for customer_id in range(1, 5):
        await till.charge([tills.change(Kind.ADJUSTMENT, customer_id, "bought", 40, pool="credits")])
        await till.charge([tills.usage(customer_id, f"e{n}", 30, opening=100, blocks=True, spare="credits") for n in range(5)])
    await till.charge([tills.change(Kind.SET, 1, "set", 70, opening=100)])
    await till.charge([tills.change(Kind.ADJUSTMENT, 2, "granted", 25, opening=100), tills.change(Kind.EXPIRY, 2, "expiry", 0)])
    await till.tick(0)


def wrong(report: Report) -> set[str]:
    return {one.what for one in report.sums if not one.is_equal}


async def test_an_empty_installation_is_in_order(book: Book, till: Till) -> None:
    assert await till.sequences() == [0] * books.PARTITIONS
    report = await look(book)
    assert report.is_clean
    whats = {one.what for one in report.sums}
    assert {"usage events = hourly totals: events", "pools = ledger: opening", "pools = events + quarantine: charged"} <= whats


async def test_traffic_of_every_kind_is_in_order_before_during_and_after_the_rollup(book: Book, till: Till) -> None:
    await some_traffic(till)
    assert (await look(book)).is_clean
    await book.roll_up()
    await some_traffic(till)
    await till.charge([tills.usage(9, "later", 5, opening=50)])
    report = await look(book)
    assert report.is_clean
    await book.roll_up()
    report = await look(book)
    assert report.is_clean
    assert await book.number("SELECT sum(charged) FROM pool_balances WHERE pool = 'credits'") > 0
    left = next(one for one in report.sums if one.what.startswith("till = book"))
    assert left.left == await book.number("SELECT sum(balance) FROM pool_balances")


async def test_the_book_holds_what_the_till_says_was_left(book: Book, till: Till) -> None:
    await till.charge([tills.change(Kind.ADJUSTMENT, 3, "bought", 40, pool="credits")])
    receipts = await till.charge([tills.usage(3, f"e{n}", 30, opening=100, blocks=True, spare="credits") for n in range(5)])
    assert [receipt.outcome for receipt in receipts] == [Outcome.ACCEPTED] * 4 + [Outcome.REFUSED]
    await book.roll_up()
    view = await till.read(1, 3)
    balances = {row["pool"]: row["balance"] for row in await book.rows("SELECT pool, balance FROM pool_balances")}
    assert balances == {name: state.left for name, state in view.pools.items()}
    assert balances == {log.POOL: 0, "credits": 20}


async def test_it_is_exact_while_clients_charge_and_workers_roll_up(book: Book, till: Till, postgres_url: str) -> None:
    stop = asyncio.Event()
    dice = random.Random(7)

    async def client(number: int) -> None:
        for n in range(10_000):
            if stop.is_set():
                return
            customer_id = dice.randrange(1, 40)
            charges = [
                tills.usage(customer_id, f"{number}-{n}-{m}", dice.randrange(50), opening=10_000, blocks=True) for m in range(5)
            ]
            charges.append(tills.change(Kind.ADJUSTMENT, customer_id, f"{number}-{n}", dice.randrange(100), pool="credits"))
            await till.charge(charges)

    def worker_loop() -> Rollup:
        return Rollup(book.database, book.redis, postgres_url, books.PARTITIONS, lambda: books.NOW)

    async with asyncio.TaskGroup() as tasks:
        for number in range(4):
            tasks.create_task(client(number))
        for _ in range(2):
            tasks.create_task(worker.run(worker_loop(), stop))
        reports = [await look(book) for _ in range(20)]
        stop.set()
    assert [report for report in reports if not report.is_clean] == []
    lefts = [next(one.left for one in report.sums if one.what.startswith("till = book")) for report in reports]
    assert len(set(lefts)) > 10, "nothing moved while it looked"


async def test_a_rollup_between_its_two_looks_at_the_book_changes_nothing(
    book: Book, till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    await some_traffic(till)
    original = sums.pools_of

    async def after_a_rollup(connection: Querying, customer_ids: Iterable[int]) -> dict[tuple[int, str], PoolState]:
        await book.roll_up()
        return await original(connection, customer_ids)

    async def keep(_client: Redis, _committed: Iterable[tuple[int, int]], _epoch: str | None) -> None:
        return

    monkeypatch.setattr(log_reader, "trim", keep)
    monkeypatch.setattr(sums, "pools_of", after_a_rollup)
    assert (await look(book)).is_clean


TAMPERED = {
    "an event vanished": (
        "DELETE FROM usage_events WHERE event_id = 'e1' AND customer_id = 1",
        "usage events = hourly totals: events",
    ),
    "an event was counted twice": (
        "INSERT INTO usage_events SELECT * FROM usage_events WHERE event_id = 'e1'",
        "pools = events + quarantine: charged",
    ),
    "an hour says one more": (
        "UPDATE usage_hourly SET amount = amount + 1 WHERE customer_id = 1",
        "usage events = hourly totals: amount",
    ),
    "two hours differ and cancel out": (
        "UPDATE usage_hourly SET amount = amount + CASE customer_id WHEN 1 THEN 1 ELSE -1 END WHERE customer_id IN (1, 2)",
        "usage events = hourly totals: amount",
    ),
    "a pool says one less": ("UPDATE pool_balances SET charged = charged + 1 WHERE customer_id = 1", "pools = ledger: charged"),
    "an opening was lost": ("UPDATE pool_balances SET opening = 0 WHERE customer_id = 3", "pools = ledger: opening"),
    "a ledger row vanished": ("DELETE FROM pool_ledger WHERE kind = 'expiry'", "pools = ledger: expired"),
    "something unknown is in quarantine": (
        "INSERT INTO quarantine (partition, seq, reason, payload, booked) VALUES (0, 1, 'test', '\\x00', false)",
        "items in quarantine = those with a known effect",
    ),
    "an offset ran ahead": ("UPDATE log_offsets SET last_seq = last_seq + 1000", "book offsets beyond the till's sequence"),
}


@pytest.mark.parametrize(("statement", "what"), TAMPERED.values(), ids=list(TAMPERED))
async def test_a_book_that_was_changed_by_hand_is_found_out(book: Book, till: Till, statement: str, what: str) -> None:
    await some_traffic(till)
    await book.roll_up()
    await book.database.execute(statement)
    report = await look(book)
    assert not report.is_clean
    assert what in wrong(report)


async def test_a_till_that_was_changed_by_hand_is_found_out_and_its_customer_frozen(book: Book, till: Till) -> None:
    await some_traffic(till)
    await book.roll_up()
    await tills.shift_pool(book.redis, tills.partition_of(3), 3, "credits", 1)
    report = await reconcile.reconcile(book.database, book.redis, books.PARTITIONS, till.freeze)
    assert [(one.customer_id, one.pool, one.left, one.right) for one in report.differences] == [(3, "credits", 21, 20)]
    assert list(report.frozen) == [3]
    receipts = await till.charge([tills.usage(3, "after", 0, opening=100), tills.usage(4, "after", 0, opening=100)])
    assert [receipt.outcome for receipt in receipts] == [Outcome.FROZEN, Outcome.ACCEPTED]


async def test_a_pool_that_differs_at_the_first_look_only_freezes_nobody(
    book: Book, till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when what was seen once is frozen without a second look."""
    await some_traffic(till)
    await book.roll_up()
    await tills.shift_pool(book.redis, tills.partition_of(3), 3, "credits", 1)
    original = reconcile_till.logs

    async def and_mended(database: Pool, client: Redis, partitions: int) -> list[Sum]:
        await tills.shift_pool(book.redis, tills.partition_of(3), 3, "credits", -1)
        return await original(database, client, partitions)

    monkeypatch.setattr(reconcile_till, "logs", and_mended)
    report = await reconcile.reconcile(book.database, book.redis, books.PARTITIONS, till.freeze)
    assert [one.customer_id for one in report.differences] == [3]
    assert list(report.frozen) == []
    receipts = await till.charge([tills.usage(3, "after", 0, opening=100)])
    assert [receipt.outcome for receipt in receipts] == [Outcome.ACCEPTED]


def _without_pool(state: State) -> State:
    return State(state.version, {name: pool for name, pool in state.pools.items() if name != log.POOL})


async def test_a_pool_that_only_one_side_knows_is_found_in_both_directions(book: Book, till: Till) -> None:
    await some_traffic(till)
    await book.roll_up()
    await tills.change_state(book.redis, tills.partition_of(4), 4, _without_pool)
    await tills.change_state(book.redis, 1, 77, lambda _state: State(0, {"9.b.1": states.Pool(5, 5)}))
    report = await look(book)
    assert [(one.customer_id, one.pool, one.left, one.right) for one in report.differences] == [
        (4, log.POOL, None, 0),
        (77, "9.b.1", 5, None),
    ]


async def test_entries_that_vanished_from_the_log_are_found(book: Book, till: Till) -> None:
    await some_traffic(till)
    partition = tills.partition_of(1)
    await book.redis.execute_command("XDEL", log_reader.key(partition), "1-0")
    assert {"comparisons stopped by missing log entries", "logs with missing entries"} <= wrong(await look(book))


async def test_an_event_in_quarantine_stays_in_the_sums(book: Book, till: Till) -> None:
    await till.charge([tills.usage(1, "bad\0id", 30, opening=100), tills.usage(1, "good", 5, opening=100)])
    assert (await book.roll_up()).quarantined == 1
    assert (await look(book)).is_clean


async def test_the_report_is_readable_and_ends_with_the_verdict(book: Book, till: Till) -> None:
    await some_traffic(till)
    await book.roll_up()
    printed = list(command.lines(await look(book)))
    assert printed[-1] == "reconciled: yes"
    assert any(line.startswith("usage events = hourly totals: amount") and line.endswith("ok") for line in printed)
    await book.database.execute("UPDATE usage_hourly SET events = events + 1 WHERE customer_id = 1")
    printed = list(command.lines(await look(book)))
    assert printed[-1] == "reconciled: NO"
    assert any("DIFFERENT (1 places)" in line for line in printed)
    assert '"reconciled": false' in command.as_json(await look(book))
