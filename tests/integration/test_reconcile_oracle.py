"""The judge of the fault tests can say guilty: each thing it looks for is done here on purpose."""

import pytest

from tallybook.charge.till import Outcome, Till
from tallybook.storage.postgres import Pool
from tallybook.storage.redis import Redis
from tests.crash import oracle
from tests.crash.oracle import Answer, Identity, Report, Sent
from tests.support import book as books
from tests.support import log_builder as log
from tests.support import tills
from tests.support.book import Book


@pytest.fixture
async def book(database: Pool, redis_client: Redis) -> Book:
    return await books.empty(database, redis_client)


@pytest.fixture
async def sent(book: Book) -> dict[Identity, Sent]:
    """Six events of 30 on a blocking pool of 100 and 40 credits, answered; four of them fit, and the book has them."""
    till: Till = await tills.open_till(book.redis)
    answers: dict[Identity, Sent] = {}
    for n in range(6):
        [receipt] = await till.charge([tills.usage(1, f"e{n}", 30, opening=100, blocks=True)])
        accepted = receipt.outcome is Outcome.ACCEPTED
        answers[Identity(1, 1, f"e{n}")] = Sent(Answer.ACCEPTED, 30) if accepted else Sent(Answer.REFUSED)
    await book.roll_up()
    return answers


async def judge(book: Book, sent: dict[Identity, Sent]) -> Report:
    return await oracle.verify(book.database, book.redis, sent, partitions=books.PARTITIONS, blocking=frozenset({log.POOL}))


async def test_honest_books_are_clean(book: Book, sent: dict[Identity, Sent]) -> None:
    report = await judge(book, sent)
    assert list(report.problems()) == []
    assert (report.acked, report.unknown, report.drift) == (3, 0, 0)


async def test_an_unknown_id_may_be_in_the_book_or_not(book: Book, sent: dict[Identity, Sent]) -> None:
    sent[Identity(1, 1, "e0")] = Sent(Answer.UNKNOWN)
    sent[Identity(1, 1, "never arrived")] = Sent(Answer.UNKNOWN)
    report = await judge(book, sent)
    assert report.is_clean
    assert report.unknown == 2


async def test_a_lost_event_is_named(book: Book, sent: dict[Identity, Sent]) -> None:
    sent[Identity(1, 1, "e9")] = Sent(Answer.ACCEPTED, 30)
    assert list((await judge(book, sent)).lost) == [Identity(1, 1, "e9")]


async def test_an_event_counted_twice_is_named(book: Book, sent: dict[Identity, Sent]) -> None:
    await book.database.execute("INSERT INTO usage_events SELECT * FROM usage_events WHERE event_id = 'e1'")
    report = await judge(book, sent)
    assert list(report.doubled) == [Identity(1, 1, "e1")]
    assert report.drift > 0


async def test_an_event_that_was_refused_or_never_sent_is_named(book: Book, sent: dict[Identity, Sent]) -> None:
    sent[Identity(1, 1, "e0")] = Sent(Answer.REFUSED)
    del sent[Identity(1, 1, "e1")]
    assert set((await judge(book, sent)).invented) == {Identity(1, 1, "e0"), Identity(1, 1, "e1")}


async def test_another_amount_than_answered_is_named(book: Book, sent: dict[Identity, Sent]) -> None:
    sent[Identity(1, 1, "e0")] = Sent(Answer.ACCEPTED, 29)
    assert list((await judge(book, sent)).other_amount) == [Identity(1, 1, "e0")]


async def test_a_pool_below_zero_on_the_way_is_named_even_if_it_ended_above(book: Book, sent: dict[Identity, Sent]) -> None:
    till = await tills.open_till(book.redis)
    await till.charge([tills.usage(1, "more", 30, opening=100)])
    await till.charge([tills.change(tills.Kind.ADJUSTMENT, 1, "grant", 500, opening=100)])
    await book.roll_up()
    sent[Identity(1, 1, "more")] = Sent(Answer.ACCEPTED, 30)
    report = await judge(book, sent)
    assert list(report.overdrawn) == [(1, log.POOL, -20)]
    assert report.drift == 0


async def test_a_book_that_is_behind_its_log_is_not_judged_clean(book: Book, sent: dict[Identity, Sent]) -> None:
    till = await tills.open_till(book.redis)
    await till.tick(2)
    assert list((await judge(book, sent)).behind) == [2]


async def test_a_till_that_drifted_is_found(book: Book, sent: dict[Identity, Sent]) -> None:
    await tills.shift_pool(book.redis, tills.partition_of(1), 1, log.POOL, -1)
    report = await judge(book, sent)
    assert report.drift > 0
    assert not report.is_clean


async def test_which_pools_block_can_be_asked_of_the_catalog(book: Book, sent: dict[Identity, Sent]) -> None:
    report = await oracle.verify(book.database, book.redis, sent, partitions=books.PARTITIONS)
    assert report.is_clean
