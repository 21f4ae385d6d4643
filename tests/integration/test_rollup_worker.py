"""The rollup loop: leases shared between workers, taken over from dead ones, and what the loop says when something is wrong."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from tallybook.entrypoints.workers import rollup as worker
from tallybook.entrypoints.workers.rollup import Rollup
from tallybook.rollup import store
from tallybook.rollup.leases import Leases
from tallybook.rollup.model import Effects, GapError, PassResult
from tallybook.storage import postgres
from tallybook.storage.postgres import Pool
from tallybook.storage.redis import Redis
from tests.support import book as books
from tests.support import log_builder as log
from tests.support import waiting
from tests.support.book import Book

_KILL_THE_OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE pid <> pg_backend_pid() AND datname = current_database()
"""


@pytest.fixture
async def book(database: Pool, redis_client: Redis) -> Book:
    return await books.empty(database, redis_client)


async def owns(leases: Leases, count: int) -> bool:
    """Whether the worker has this many partitions now."""
    return len(await leases.renew()) == count


@asynccontextmanager
async def running(rollup: Rollup) -> AsyncGenerator[asyncio.Task[None]]:
    """The loop, stopped at the end; when it dies, so does the test."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        yield tasks.create_task(worker.run(rollup, stop))
        stop.set()


def loop_over(
    book: Book, postgres_url: str, gaps: list[GapError] | None = None, passes: list[PassResult] | None = None
) -> Rollup:
    return Rollup(
        book.database,
        book.redis,
        postgres_url,
        books.PARTITIONS,
        lambda: books.NOW,
        observe=(passes if passes is not None else []).append,
        observe_gap=(gaps if gaps is not None else []).append,
    )


async def test_workers_share_the_partitions_fairly_and_take_over_from_a_dead_one(postgres_url: str) -> None:
    first, second, third = (Leases(postgres_url, 8) for _ in range(3))
    assert await first.renew() == list(range(8))
    assert await second.renew() == []
    assert len(await first.renew()) == 4
    assert len(await second.renew()) == 4
    await third.renew()
    shares = [await leases.renew() for leases in (first, second, third)]
    shares = [await leases.renew() for leases in (first, second, third)]
    assert sorted(partition for share in shares for partition in share) == list(range(8))
    first.abandon()
    second.abandon()
    await waiting.until(lambda: owns(third, 8))
    third.abandon()


async def test_a_server_without_room_is_told_shows_as_lag_and_loses_nothing(
    book: Book, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Fails when the loop goes on as if the pass had counted, or waits in silence."""
    passes: list[PassResult] = []
    refuses = "BEGIN RAISE EXCEPTION USING ERRCODE = '53100', MESSAGE = 'no space left'; END"
    await book.database.execute(f"CREATE OR REPLACE FUNCTION is_full() RETURNS trigger LANGUAGE plpgsql AS $${refuses}$$")
    await book.database.execute("CREATE TRIGGER full_disk BEFORE INSERT ON usage_hourly EXECUTE FUNCTION is_full()")
    await book.append(0, 1, log.entry([log.usage("a", 5)]))

    async def has_failed_twice() -> bool:
        return caplog.text.count("no space left") > 1

    async def is_level() -> bool:
        return await book.offset() == 1

    async with running(loop_over(book, postgres_url, passes=passes)):
        try:
            await waiting.until(has_failed_twice)
            assert await book.offset() == await book.number("SELECT count(*) FROM quarantine") == 0
        finally:
            await book.database.execute("DROP TRIGGER full_disk ON usage_hourly")
        await waiting.until(is_level)
    assert "rollup waits: Postgres can't write now: DiskFullError" in caplog.text
    assert any(result.lag_ms and not result.entries for result in passes)
    assert await book.number("SELECT sum(events) FROM usage_hourly") == 1


async def test_a_worker_whose_lease_connection_was_killed_gives_up_and_begins_anew(database: Pool, postgres_url: str) -> None:
    leases = Leases(postgres_url, 4)
    await leases.renew()
    killed = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tallybook rollup leases'"
    await database.execute(killed)
    other = Leases(postgres_url, 4)
    await waiting.until(lambda: owns(other, 4))
    owned = [0]
    while owned:
        with contextlib.suppress(*postgres.TRANSIENT_ERRORS):
            owned = await leases.renew()
    other.abandon()
    await waiting.until(lambda: owns(leases, 4))
    leases.abandon()


async def test_the_loop_keeps_the_book_up_with_the_log_and_stops_when_told(book: Book, postgres_url: str) -> None:
    passes: list[PassResult] = []
    async with running(loop_over(book, postgres_url, passes=passes)):
        for seq in range(1, 21):
            await book.append(seq % 2, (seq + 1) // 2, log.entry([log.usage(f"e{seq}")]))

        async def is_complete() -> bool:
            return await book.number("SELECT count(*) FROM usage_events") == 20

        await waiting.until(is_complete)
    assert sum(result.events for result in passes) == 20
    assert max(result.lag_ms for result in passes) == 5_000

    async def leases_are_given_back() -> bool:
        return await book.number("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2") == 0

    await waiting.until(leases_are_given_back)


async def test_three_loops_at_once_count_each_event_once(book: Book, postgres_url: str) -> None:
    async with (
        running(loop_over(book, postgres_url)),
        running(loop_over(book, postgres_url)),
        running(loop_over(book, postgres_url)),
    ):
        for seq in range(1, 101):
            for partition in range(books.PARTITIONS):
                await book.append(partition, seq, log.entry([log.usage(f"{partition}-{seq}", 3)]))

        async def is_complete() -> bool:
            return await book.number("SELECT sum(last_seq) FROM log_offsets") == 400

        await waiting.until(is_complete)
    assert await book.number("SELECT count(*) FROM usage_events") == 400
    assert await book.number("SELECT sum(charged) FROM pool_balances") == 1200


async def test_a_gap_is_told_and_the_other_partitions_go_on(
    book: Book, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    gaps: list[GapError] = []
    await book.append(0, 2, log.entry([log.usage("after the gap")]))
    async with running(loop_over(book, postgres_url, gaps=gaps)):
        await book.append(1, 1, log.entry([log.usage("elsewhere")]))

        async def went_on() -> bool:
            return await book.offset(1) == 1 and bool(gaps)

        await waiting.until(went_on)
    assert (gaps[0].partition, gaps[0].expected, gaps[0].found) == (0, 1, 2)
    assert await book.offset(0) == 0
    assert "refusing to skip" in caplog.text


async def test_the_loop_survives_losing_every_connection_to_postgres(book: Book, postgres_url: str) -> None:
    async with running(loop_over(book, postgres_url)):
        for seq in range(1, 6):
            await book.append(0, seq, log.entry([log.usage(f"e{seq}", 2)]))
            killer = await postgres.connect_one(postgres_url)
            await killer.execute(_KILL_THE_OTHERS)
            await killer.close()

        async def is_complete() -> bool:
            return await alone(postgres_url, "SELECT last_seq FROM log_offsets WHERE partition = 0") == 5

        await waiting.until(is_complete)
    assert await alone(postgres_url, "SELECT sum(charged) FROM pool_balances") == 10


async def alone(postgres_url: str, query: str) -> int:
    """The number a query finds, over a connection that nobody has killed."""
    connection = await postgres.connect_one(postgres_url)
    try:
        return int(await connection.fetchval(query) or 0)
    finally:
        await connection.close()


async def test_the_loop_tells_of_a_fault_it_does_not_know_and_tries_again(
    book: Book, postgres_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original = store.write
    faults = iter([ZeroDivisionError("a bug")])

    async def fail_once(connection: postgres.Connection, effects: Effects) -> None:
        await original(connection, effects)
        if (fault := next(faults, None)) is not None:
            raise fault

    monkeypatch.setattr(store, "write", fail_once)
    await book.append(0, 1, log.entry([log.usage("a", 5)]))
    async with running(loop_over(book, postgres_url)):

        async def is_complete() -> bool:
            return await book.offset() == 1

        await waiting.until(is_complete)
    assert "a bug" in caplog.text
    assert await book.number("SELECT sum(charged) FROM pool_balances") == 5
