"""What shares a partition or a server with the till and is not the same: another customer's ids, another installation's epoch."""

import pytest

from tallybook.charge.till import Outcome, Till
from tallybook.core import errors, partitions
from tallybook.storage.postgres import Pool
from tallybook.storage.redis import Redis
from tests.support import book as books
from tests.support import tills
from tests.support.book import Book


@pytest.fixture
async def book(database: Pool, redis_client: Redis) -> Book:
    return await books.empty(database, redis_client)


@pytest.fixture
async def till(book: Book) -> Till:
    return await tills.open_till(book.redis)


async def test_the_same_id_of_another_customer_in_the_same_partition_is_another_event(till: Till) -> None:
    first = 1
    second = next(other for other in range(2, 100) if tills.partition_of(other) == tills.partition_of(first))
    receipts = [
        *await till.charge([tills.usage(first, "a", 10, opening=100)]),
        *await till.charge([tills.usage(second, "a", 10, opening=100)]),
    ]
    assert [receipt.outcome for receipt in receipts] == [Outcome.ACCEPTED, Outcome.ACCEPTED]
    assert {left for one in (first, second) for left in [state.left for state in (await till.read(1, one)).pools.values()]} == {
        90
    }


async def test_a_till_that_was_given_another_epoch_in_the_same_run_of_its_server_takes_nothing(book: Book, till: Till) -> None:
    await till.charge([tills.usage(1, "before", 10, opening=100)])
    prefix = partitions.prefix(tills.partition_of(1))
    await book.redis.execute_command("HSET", f"{prefix}:m", "epoch", "another installation's")
    with pytest.raises(errors.Unavailable) as refusal:
        await till.charge([tills.usage(1, "after", 10, opening=100)])
    assert refusal.value.code == "till_unknown"
    assert await book.redis.execute_command("XLEN", f"{prefix}:log") == 1
