"""What the book could not take: listed, applied again exactly once, or given up for the record; and what the sums say of each.

Each test says which change of the code it fails for.
"""

import asyncio

import pytest

from tallybook.charge.till import Till
from tallybook.cli import quarantine as command
from tallybook.core import errors
from tallybook.core.usage_log import Kind, Record
from tallybook.flows import reconcile
from tallybook.flows.reconcile import Report
from tallybook.rollup import quarantine, rules, store
from tallybook.rollup.model import Effects
from tallybook.rollup.quarantine import Item
from tallybook.storage.postgres import Connection, Pool, PostgresError, UniqueViolationError
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


async def items(book: Book) -> list[Item]:
    return await quarantine.every(book.database)


async def only(book: Book) -> Item:
    [item] = await items(book)
    return item


async def test_an_event_whose_effect_is_booked_is_added_without_changing_the_pool_again(
    book: Book, till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when a retry books the effect a second time, or forgets the event's place or hour."""
    with monkeypatch.context() as older:
        older.setattr(rules, "MOMENT_MS_MAX", 1)
        older.setattr(rules, "detail_problem", refused_by_an_older_version)
        await till.charge([tills.usage(1, "first", 5, opening=100), tills.usage(1, "late", 30, opening=100)])
        await book.roll_up()
    assert [(item.what.position, item.what.booked) for item in await items(book)] == [(0, True), (1, True)]
    assert (await look(book)).is_clean
    balance = await book.number("SELECT balance FROM pool_balances")
    for item in await items(book):
        assert (await quarantine.retry(book.database, item.id, books.NOW)).events == 1
    assert await book.number("SELECT balance FROM pool_balances") == balance == 65
    rows = await book.rows("SELECT event_id, position, seq, amount, pool_left FROM usage_events ORDER BY position")
    assert [tuple(row) for row in rows] == [("first", 0, 1, 5, 95), ("late", 1, 1, 30, 65)]
    assert await book.number("SELECT sum(events) FROM usage_hourly") == 2
    assert (await look(book)).is_clean


def refused_by_an_older_version(_record: Record) -> str:
    return "a rule that is gone later"


async def test_an_entry_that_nothing_of_was_booked_is_booked_whole(
    book: Book, till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when a retry leaves out pools, ledger or openings of an entry that was set aside whole."""
    await till.charge([tills.change(Kind.ADJUSTMENT, 1, "bought", 40, pool="credits")])
    await refuse_in_postgres(monkeypatch, times=2)
    await till.charge([tills.usage(1, "a", 120, opening=100, spare="credits", blocks=True)])
    await book.roll_up()
    assert [(item.what.position, item.what.booked) for item in await items(book)] == [(None, False), (None, False)]
    assert not (await look(book)).is_clean
    for item in await items(book):
        await quarantine.retry(book.database, item.id, books.NOW)
    assert await items(book) == []
    assert await book.number("SELECT sum(balance) FROM pool_balances") == 20
    assert (await look(book)).is_clean


async def refuse_in_postgres(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Postgres refuses the pass, and then as many entries on their own, for a reason that is gone later."""
    original = store.write
    left = [times + 1]

    async def write(connection: Connection, effects: Effects) -> None:
        if effects.pools and left[0]:
            left[0] -= 1
            raise UniqueViolationError("refused for a while")
        await original(connection, effects)

    monkeypatch.setattr(store, "write", write)


async def test_many_who_retry_at_once_apply_it_once(book: Book, till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when the item is not taken out in the transaction of its effects."""
    await refuse_in_postgres(monkeypatch, times=1)
    await till.charge([tills.usage(1, "a", 30, opening=100)])
    await book.roll_up()
    item = await only(book)
    results = await asyncio.gather(
        *(quarantine.retry(book.database, item.id, books.NOW) for _ in range(5)), return_exceptions=True
    )
    assert sum(isinstance(result, Effects) for result in results) == 1
    assert sum(isinstance(result, errors.NotFound) for result in results) == 4
    assert await book.number("SELECT sum(charged) FROM pool_balances") == 30
    assert (await look(book)).is_clean


async def test_a_retry_that_postgres_refuses_again_changes_nothing(
    book: Book, till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when the item is taken out before its effects are written."""
    await refuse_in_postgres(monkeypatch, times=1)
    await till.charge([tills.usage(1, "a", 30, opening=100)])
    await book.roll_up()
    item = await only(book)

    async def refuse(_connection: Connection, _effects: Effects) -> None:
        raise PostgresError("refused still")

    with monkeypatch.context() as patched:
        patched.setattr(store, "write_again", refuse)
        with pytest.raises(PostgresError):
            await quarantine.retry(book.database, item.id, books.NOW)
    assert await only(book) == item
    await quarantine.retry(book.database, item.id, books.NOW)
    assert (await look(book)).is_clean


async def test_what_still_is_no_record_stays_where_it_is(book: Book) -> None:
    """Fails when a retry takes out what it could not apply."""
    await book.append(0, 1, b"no entry at all")
    await book.roll_up()
    item = await only(book)
    with pytest.raises(errors.Conflict, match=r"still can't be applied: no log entry"):
        await quarantine.retry(book.database, item.id, books.NOW)
    assert await only(book) == item


async def test_of_an_entry_set_aside_whole_what_can_be_applied_is_and_the_rest_stays_by_itself(book: Book) -> None:
    """Fails when a retry is all or nothing, or loses the part that is still wrong."""
    good, bad = log.usage("good", 5), log.usage("bad\0id", 7)
    await book.append(0, 1, log.entry([good, bad], [log.opening("", "100")]))
    await store_whole(book, log.entry([good, bad], [log.opening("", "100")]))
    item = await only(book)
    effects = await quarantine.retry(book.database, item.id, books.NOW)
    assert (effects.events, len(effects.quarantined)) == (1, 1)
    rest = await only(book)
    assert (rest.what.position, rest.what.booked, rest.what.seq) == (1, True, 1)
    assert await book.number("SELECT balance FROM pool_balances") == 88


async def store_whole(book: Book, data: bytes) -> None:
    """The entry stands in quarantine as a whole, and the book is past it."""
    await book.database.execute("UPDATE log_offsets SET last_seq = 1 WHERE partition = 0")
    await book.database.execute(
        "INSERT INTO quarantine (partition, seq, reason, payload, booked) VALUES (0, 1, 'refused', $1, false)", data
    )


async def test_a_retry_does_not_open_a_pool_again_that_was_closed_meanwhile(book: Book) -> None:
    """Fails when a late charge of a closed pool says that the pool is open."""
    await store_whole(book, log.entry([log.usage("late", 5)]))
    await book.append(0, 2, log.entry([(log.change(Kind.EXPIRY), "95")], [log.opening("", "100")]))
    await book.roll_up()
    await quarantine.retry(book.database, (await only(book)).id, books.NOW)
    [row] = await book.rows("SELECT closed, balance FROM pool_balances")
    assert (row["closed"], int(row["balance"])) == (True, 0)


async def test_what_is_dropped_stays_on_record_and_its_booked_effect_in_the_sums(book: Book, till: Till) -> None:
    """Fails when dropping deletes the row, or the sums forget the effect that the pools have."""
    await till.charge([tills.usage(1, "bad\0id", 30, opening=100), tills.usage(1, "good", 5, opening=100)])
    await book.roll_up()
    item = await only(book)
    await quarantine.drop(book.database, item.id, "sent by a broken client", books.NOW)
    assert await items(book) == []
    [kept] = await quarantine.every(book.database, with_dropped=True)
    assert (kept.what, kept.dropped_at, kept.dropped_because) == (item.what, books.NOW, "sent by a broken client")
    assert (await look(book)).is_clean
    with pytest.raises(errors.NotFound):
        await quarantine.drop(book.database, item.id, "again", books.NOW)
    with pytest.raises(errors.NotFound):
        await quarantine.retry(book.database, item.id, books.NOW)


async def test_what_has_no_known_effect_makes_the_sums_differ_until_it_is_dropped(book: Book, till: Till) -> None:
    """Fails when an unknown effect is silently clean, or a dropped one is held against the books for ever."""
    await till.tick(0)
    await book.append(0, 2, b"nonsense")
    await book.redis.execute_command("HSET", "{p00}:m", "seq", 2)
    await book.roll_up()
    what = "items in quarantine = those with a known effect"
    assert [one.what for one in (await look(book)).sums if not one.is_equal] == [what]
    await quarantine.drop(book.database, (await only(book)).id, "written by hand", books.NOW)
    assert (await look(book)).is_clean


async def test_the_list_says_where_it_stood_whose_it_is_and_why_it_is_here(book: Book, till: Till) -> None:
    """Fails when the list lacks what an operator decides by."""
    await till.charge([tills.usage(7, "bad\0id", 30, opening=100)])
    await book.roll_up()
    item = await only(book)
    line = command.described(item)
    assert line.startswith(
        f"{item.id}  partition {tills.partition_of(7)} entry 1 record 0  pools have it  tenant 1 customer 7 pool"
    )
    assert line.endswith("event_id contains NUL")
    await quarantine.drop(book.database, item.id, "a client's bug", books.NOW)
    [dropped] = await quarantine.every(book.database, with_dropped=True)
    assert command.described(dropped).endswith(": a client's bug")
