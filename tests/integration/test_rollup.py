"""The rollup against a real Postgres and Redis: every entry counts once, whatever breaks in between."""

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from tallybook.core import clock, usage_log
from tallybook.core.tenant import Tenant
from tallybook.core.usage_log import Applied, Entry, Kind
from tallybook.rollup import actions, events, log_reader, store
from tallybook.rollup.events import Booked
from tallybook.rollup.model import Effects, GapError, Offset, OffsetMovedError, PassResult
from tallybook.storage import postgres
from tallybook.storage.postgres import Connection, Pool
from tallybook.storage.redis import Redis
from tests.support import book as books
from tests.support import log_builder as log
from tests.support.book import Book

_NUMBERS = (
    *("feature_id", "price_id", "margin_bps", "cost_nano", "input_tokens", "output_tokens", "cache_read_tokens"),
    *("cache_write_tokens", "cache_write_1h_tokens", "web_searches", "input_pico", "output_pico", "cache_read_pico"),
    *("cache_write_pico", "cache_write_1h_pico", "web_search_pico", "catalog_version", "quantity_nano"),
)
_TEXTS = ("model", "matched_by", "service_tier", "reason", "voids")
_TIMES = {"period_start_s": 1_000_000, "belongs_to_s": 2_000_000, "occurred_at_ms": 3_000_000_001}
_OWN_VALUES: dict[str, Any] = {
    **{name: 1000 + place for place, name in enumerate(_NUMBERS)},
    **{name: f"the {name}" for name in _TEXTS},
    **_TIMES,
}
_NOTHING: dict[str, Any] = dict.fromkeys(_TEXTS)


@pytest.fixture
async def book(database: Pool, redis_client: Redis) -> Book:
    return await books.empty(database, redis_client)


async def test_a_pass_writes_events_totals_pools_ledger_and_the_offset(book: Book) -> None:
    await book.append(0, 1, log.entry([log.usage("a", 40, model="m", input_tokens=7)], [log.opening("", "100")]))
    await book.append(1, 1, log.entry([(log.usage("b", 10, customer_id=2), "6"), log.tick()]))
    result = await book.roll_up()
    assert (result.events, result.entries, result.quarantined, result.lag_ms) == (2, 2, 0, 5_000)
    event = (await book.rows("SELECT * FROM usage_events WHERE event_id = 'a'"))[0]
    assert (event["amount"], event["model"], event["partition"], event["seq"], event["belongs_to"]) == (40, "m", 0, 1, None)
    assert event["digest"] == log.usage("a").digest
    assert event["rolled_at"] == books.NOW
    assert await book.number("SELECT sum(amount) FROM usage_hourly") == 50
    balances = await book.rows("SELECT customer_id, pool, balance FROM pool_balances ORDER BY 1, 2")
    assert [tuple(row) for row in balances] == [(1, log.POOL, 60), (2, log.POOL, -4), (2, "credits", -6)]
    assert await book.number("SELECT sum(amount) FROM pool_ledger") == 50
    assert (await book.offset(0), await book.offset(1), await book.offset(2)) == (1, 1, 0)


async def test_text_of_every_kind_arrives_in_the_book_as_it_was(book: Book) -> None:
    texts = ["", 'a"b', "x,y", "l\nm", "\\.", "\\N", " sp ", "é🎉", "'", "\r\n", "\t", "NULL", r"\u0000", r"\\u0000"]
    await book.append(0, 1, log.entry([log.usage(text, model=text, properties={text: text}) for text in texts]))
    await book.roll_up()
    found = await book.rows("SELECT event_id, model, properties FROM usage_events ORDER BY position")
    assert [row["event_id"] for row in found] == texts
    assert [row["model"] for row in found] == texts
    assert [row["properties"] for row in found] == [{text: text} for text in texts]


async def test_every_field_of_a_record_arrives_in_its_column(book: Book) -> None:
    """Each has a value of its own, so two that change places are seen."""
    record = log.usage("own", 10**15, properties={"region": "eu"}, fingerprint=bytes(range(12)), **_OWN_VALUES)
    plain = msgspec.structs.replace(record, event_id=None, digest=bytes(16), properties=None, belongs_to_s=0, **_NOTHING)
    applied = [Applied(record, "7", "123456", "65432"), Applied(plain, "", "1", "")]
    await book.append(0, 1, msgspec.msgpack.encode(Entry(usage_log.PLAIN, log.ACCEPTED_MS, applied, [])))
    await book.roll_up()
    found = await events.find(book.database, Tenant(1, "org_1", livemode=True), record.digest)
    assert found == Booked(record, 7, 123456, 65432, clock.from_ms(log.ACCEPTED_MS), 0, 1, 0)
    row = (await book.rows("SELECT * FROM usage_events WHERE position = 1"))[0]
    assert {name: row[name] for name in ("event_id", "properties", "belongs_to", *_NOTHING)} == dict.fromkeys(
        ("event_id", "properties", "belongs_to", *_NOTHING)
    )


async def test_a_second_pass_adds_to_the_first_and_changes_nothing_when_there_is_nothing(book: Book) -> None:
    for seq in (1, 2):
        await book.append(0, seq, log.entry([log.usage(f"e{seq}", 5)]))
        await book.roll_up()
    assert await book.roll_up() == PassResult()
    assert await book.number("SELECT sum(amount) FROM usage_hourly") == 10
    assert await book.number("SELECT sum(charged) FROM pool_balances") == 10
    assert await book.number("SELECT sum(entries) FROM pool_ledger") == 2
    assert await book.number("SELECT count(*) FROM usage_events") == 2


async def test_totals_beyond_64_bits_are_exact_in_the_book(book: Book) -> None:
    large = 9 * 10**18 + 1
    for seq in (1, 2):
        await book.append(0, seq, log.entry([log.usage(f"{seq}-{n}", large) for n in range(3)]))
        await book.roll_up()
    assert await book.number("SELECT sum(amount) FROM usage_hourly") == 6 * large
    assert await book.number("SELECT balance FROM pool_balances") == -6 * large


async def test_entries_are_trimmed_only_after_their_commit(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    for seq in range(1, 6):
        await book.append(0, seq, log.entry([log.usage(f"e{seq}", model="m" * 3000)]))

    async def fail(_connection: Connection, _effects: Effects) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(store, "write", fail)
        with pytest.raises(RuntimeError):
            await book.roll_up()
    assert len(await log_reader.read_between(book.redis, 0, 0, 9)) == 5
    await book.roll_up()
    assert len(await log_reader.read_between(book.redis, 0, 0, 9)) <= 1


async def test_trimming_never_takes_an_entry_beyond_the_committed_one(book: Book) -> None:
    for seq in range(1, 9):
        await book.append(0, seq, log.entry([log.usage(f"e{seq}", model="m" * 5000)]))
    await log_reader.trim(book.redis, [(0, 3)])
    assert [entry.seq for entry in await log_reader.read_between(book.redis, 0, 3, 9)] == [4, 5, 6, 7, 8]


@pytest.mark.parametrize("step", ["advance", "write"])
async def test_a_kill_between_offset_and_effects_leaves_neither(book: Book, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    await book.append(0, 1, log.entry([log.usage("a", 5)]))
    original = getattr(store, step)

    async def then_die(connection: Connection, *arguments: object) -> None:
        await original(connection, *arguments)
        connection.terminate()
        raise ConnectionResetError

    with monkeypatch.context() as patched:
        patched.setattr(store, step, then_die)
        with pytest.raises(postgres.TRANSIENT_ERRORS):
            await book.roll_up()
    assert await book.offset() == 0
    assert await book.number("SELECT count(*) FROM usage_events") == 0
    await book.roll_up()
    assert await book.offset() == 1
    assert await book.number("SELECT count(*) FROM usage_events") == 1
    assert await book.number("SELECT sum(charged) FROM pool_balances") == 5


async def test_a_commit_whose_answer_was_lost_is_not_written_twice(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    await book.append(0, 1, log.entry([log.usage("a", 5)]))
    original = store.commit
    lost: list[int] = []

    async def lose_the_answer(
        connection: Connection, passed: Sequence[Offset], effects: Effects, now: datetime, epoch: str | None
    ) -> None:
        await original(connection, passed, effects, now, epoch)
        if not lost:
            lost.append(1)
            await connection.execute("COMMIT")
            raise ConnectionResetError

    monkeypatch.setattr(store, "commit", lose_the_answer)
    with pytest.raises(OffsetMovedError):
        await book.roll_up()
    assert await book.number("SELECT sum(charged) FROM pool_balances") == 5
    assert await book.roll_up() == PassResult()


async def test_eight_workers_on_the_same_partitions_at_once_count_each_event_once(book: Book) -> None:
    for partition in range(books.PARTITIONS):
        for seq in range(1, 31):
            await book.append(partition, seq, log.entry([log.usage(f"{partition}-{seq}-{n}", 7) for n in range(5)]))

    async def work() -> None:
        while min([await book.offset(partition) for partition in range(books.PARTITIONS)]) < 30:
            try:
                await book.roll_up()
            except (OffsetMovedError, *postgres.TRANSIENT_ERRORS):
                await asyncio.sleep(0.001)

    await asyncio.gather(*(work() for _ in range(8)))
    assert await book.number("SELECT count(*) FROM usage_events") == 600
    assert await book.number("SELECT count(DISTINCT digest) FROM usage_events") == 600
    assert await book.number("SELECT sum(charged) FROM pool_balances") == 4200
    assert await book.number("SELECT sum(amount) FROM usage_hourly") == 4200


async def test_the_same_pass_twice_is_refused_the_second_time(book: Book) -> None:
    await book.append(0, 1, log.entry([log.usage("a", 5)]))
    entries = (await log_reader.read(book.redis, {0: 0})).entries
    await book.roll_up()
    await book.append(0, 2, log.entry([log.usage("b", 5)]))
    passed = [Offset(0, 0, 1)]
    effects = actions.aggregate.effects(entries, books.NOW)
    with pytest.raises(OffsetMovedError):
        async with postgres.transaction(book.database) as connection:
            await store.commit(connection, passed, effects, books.NOW)
    assert await book.number("SELECT count(*) FROM usage_events") == 1


async def test_a_gap_stops_its_partition_after_what_comes_before_it_and_no_other(book: Book) -> None:
    for seq in (1, 2, 4, 5):
        await book.append(0, seq, log.entry([log.usage(f"e{seq}")]))
    await book.append(1, 1, log.entry([log.usage("other")]))
    for _ in range(2):
        with pytest.raises(GapError, match="partition 0: expected log entry 3, found 4"):
            await book.roll_up()
    assert (await book.offset(0), await book.offset(1)) == (2, 1)
    assert await book.number("SELECT count(*) FROM usage_events") == 3


async def test_what_another_worker_took_and_trimmed_is_no_gap(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    await book.append(0, 1, log.entry([log.usage("a")]))
    await book.roll_up()
    await book.redis.execute_command("XTRIM", log_reader.key(0), "MINID", "2-0")
    await book.append(0, 2, log.entry([log.usage("b")]))
    original = store.offsets
    answers = iter([{0: 0}])

    async def stale_once(connection: postgres.Querying, partitions: Sequence[int]) -> dict[int, int]:
        return next(answers, None) or await original(connection, partitions)

    monkeypatch.setattr(store, "offsets", stale_once)
    assert await actions.roll_up(book.database, book.redis, [0], books.NOW) == PassResult()
    assert await book.offset() == 1


async def test_what_cannot_be_applied_is_kept_whole_and_does_not_stop_the_log(book: Book) -> None:
    await book.append(0, 1, b"\xc1 no entry")
    await book.append(0, 2, log.entry([log.usage("bad\0", 3), log.usage("good", 4)]))
    result = await book.roll_up()
    assert (result.events, result.quarantined) == (1, 2)
    kept = await book.rows("SELECT seq, position, reason, payload FROM quarantine ORDER BY seq")
    assert [(row["seq"], row["position"]) for row in kept] == [(1, None), (2, 0)]
    assert kept[0]["payload"] == b"\xc1 no entry"
    assert await book.number("SELECT charged FROM pool_balances") == 7
    assert await book.offset() == 2


async def test_an_entry_that_postgres_refuses_is_set_aside_alone(book: Book) -> None:
    await book.database.execute("ALTER TABLE usage_hourly ADD CONSTRAINT refuses CHECK (feature_id <> 66)")
    try:
        for seq, feature_id in enumerate((3, 66, 3), 1):
            await book.append(0, seq, log.entry([log.usage(f"e{seq}", feature_id=feature_id)]))
        await book.append(1, 1, log.entry([log.usage("other", customer_id=2)]))
        result = await book.roll_up()
    finally:
        await book.database.execute("ALTER TABLE usage_hourly DROP CONSTRAINT refuses")
    assert result.quarantined == 1
    assert [row["seq"] for row in await book.rows("SELECT seq FROM quarantine")] == [2]
    assert await book.number("SELECT count(*) FROM usage_events") == 3
    assert (await book.offset(0), await book.offset(1)) == (3, 1)


_REFUSING = """
CREATE OR REPLACE FUNCTION refusing() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION USING ERRCODE = '{sqlstate}', MESSAGE = 'refused'; END $$;
CREATE TRIGGER refuses BEFORE INSERT ON usage_hourly FOR EACH ROW WHEN (NEW.feature_id = 66) EXECUTE FUNCTION refusing()
"""


@asynccontextmanager
async def refusing(book: Book, sqlstate: str) -> AsyncGenerator[None]:
    """Postgres answers an entry with usage of feature 66 with an error."""
    await book.database.execute(_REFUSING.format(sqlstate=sqlstate))
    try:
        yield
    finally:
        await book.database.execute("DROP TRIGGER refuses ON usage_hourly")


@pytest.mark.parametrize("sqlstate", ["21000", "22003", "23514", "54000"])
async def test_only_an_entry_that_postgres_will_never_take_is_set_aside(book: Book, sqlstate: str) -> None:
    await book.append(0, 1, log.entry([log.usage("odd", feature_id=66)]))
    await book.append(0, 2, log.entry([log.usage("plain")]))
    async with refusing(book, sqlstate):
        assert (await book.roll_up()).quarantined == 1
    assert await book.offset() == 2


@pytest.mark.parametrize(
    "sqlstate",
    [
        "53100",
        "53200",
        "55P03",
        "57014",
        "57P03",
        "58030",
        "40001",
        "40P01",
        "08006",
        "42501",
        "42P01",
        "25006",
        "XX001",
        "P0001",
    ],
)
async def test_an_entry_that_the_server_can_not_take_now_is_tried_again(book: Book, sqlstate: str) -> None:
    """Fails when a full disk, a lock or a missing right passes for a fault of the entry, whose usage is then in no pool."""
    await book.append(0, 1, log.entry([log.usage("first")]))
    await book.append(0, 2, log.entry([log.usage("second", feature_id=66)]))
    async with refusing(book, sqlstate):
        for _ in range(2):
            with pytest.raises(postgres.PostgresError, match="refused"):
                await book.roll_up()
    assert await book.number("SELECT count(*) FROM quarantine") == 0
    await book.roll_up()
    assert await book.number("SELECT count(*) FROM usage_events") == 2
    assert await book.offset() == 2


@pytest.mark.parametrize("limit", ["lock_timeout", "statement_timeout"])
async def test_a_pass_that_an_operators_lock_holds_up_too_long_is_tried_again(book: Book, postgres_url: str, limit: str) -> None:
    """What CREATE INDEX does to a database that lets nobody wait for long."""
    await book.append(0, 1, log.entry([log.usage("waits")]))
    impatient = await postgres.connect(f"{postgres_url}{'&' if '?' in postgres_url else '?'}{limit}=100")
    try:
        async with book.database.acquire() as operator, operator.transaction():
            await operator.execute("LOCK TABLE usage_hourly IN SHARE MODE")
            with pytest.raises(postgres.PostgresError, match="timeout"):
                await Book(impatient, book.redis).roll_up()
        result = await Book(impatient, book.redis).roll_up()
    finally:
        await impatient.close()
    assert (result.events, result.quarantined) == (1, 0)


async def test_a_pass_reads_a_bounded_amount_and_says_that_there_is_more(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_reader, "BYTES_A_PASS", 2_000)
    for seq in range(1, 101):
        await book.append(0, seq, log.entry([log.usage(f"e{seq}")]))
    result = await book.roll_up()
    assert result.more
    assert 0 < result.entries < 60
    while (await book.roll_up()).entries:
        pass
    assert await book.number("SELECT count(*) FROM usage_events") == 100


async def test_months_are_made_once_by_many_at_the_same_time(book: Book) -> None:
    months = [(2031, month) for month in range(1, 13)]

    async def make() -> None:
        async with postgres.transaction(book.database) as connection:
            await store.make_months(connection, months)

    await asyncio.gather(*(make() for _ in range(6)))
    made = await store.months_made(book.database)
    assert {store.month_name(*month) for month in months} <= made


async def test_the_first_pass_of_a_month_does_not_wait_for_an_old_month_that_is_dropped(book: Book, postgres_url: str) -> None:
    """Fails when a pass wants the month to come: whoever drops one holds the list of months while it sums it, for hours."""
    await book.append(0, 1, log.entry([log.usage("before")]))
    await book.roll_up()
    await book.append(0, 2, log.entry([log.usage("after")]))
    impatient = await postgres.connect(f"{postgres_url}{'&' if '?' in postgres_url else '?'}lock_timeout=100")
    try:
        async with book.database.acquire() as dropping, dropping.transaction():
            await dropping.execute("LOCK TABLE usage_events IN SHARE UPDATE EXCLUSIVE MODE")
            turned = datetime(2090, 5, 1, tzinfo=UTC)
            result = await actions.roll_up(impatient, book.redis, range(books.PARTITIONS), turned)
    finally:
        await impatient.close()
    assert result.events == 1


async def test_an_event_on_the_edge_of_a_month_lies_in_the_month_of_its_arrival(book: Book) -> None:
    new_year_ms = 1_893_456_000_000  # 2030-01-01T00:00:00Z
    for seq, accepted_at_ms in enumerate((new_year_ms - 1, new_year_ms), 1):
        await book.append(0, seq, log.entry([log.usage(f"e{seq}")], accepted_at_ms=accepted_at_ms))
    await book.roll_up()
    where = await book.rows("SELECT event_id, tableoid::regclass::text AS name FROM usage_events ORDER BY event_id")
    assert [(row["event_id"], row["name"]) for row in where] == [("e1", "usage_events_2029_12"), ("e2", "usage_events_2030_01")]


async def test_random_entries_leave_the_book_with_equal_sums(book: Book) -> None:
    noise = os.urandom(600)
    for seq in range(1, 41):
        records = [
            log.usage(
                f"{seq}-{n}",
                noise[seq * n % 600],
                customer_id=noise[n + seq] % 5 + 1,
                occurred_at_ms=log.ACCEPTED_MS - n * 3_600_000,
            )
            for n in range(1, 12)
        ]
        await book.append(0, seq, log.entry([*records, log.change(Kind.ADJUSTMENT, seq)]))
        if seq % 7 == 0:
            await book.roll_up()
    await book.roll_up()
    events = await book.number("SELECT sum(amount) FROM usage_events WHERE kind = 0")
    assert events == await book.number("SELECT sum(amount) FROM usage_hourly")
    assert events == await book.number("SELECT sum(charged) FROM pool_balances")
    assert await book.number("SELECT sum(balance) FROM pool_balances") == await book.number("SELECT sum(amount) FROM pool_ledger")
    assert await book.number("SELECT -sum(amount) FROM usage_events") == await book.number(
        "SELECT sum(balance) FROM pool_balances"
    )
