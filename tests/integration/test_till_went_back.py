"""A till whose partitions say less than they have acknowledged, or than their logs hold: neither charged nor read."""

import pytest

from tallybook.charge.commands import Receipt
from tallybook.charge.till import Till
from tallybook.core import errors, partitions
from tallybook.storage import redis
from tallybook.storage.redis import Redis
from tests.support import tills

CUSTOMER = 1
PREFIX = partitions.prefix(tills.partition_of(CUSTOMER))


@pytest.fixture
async def till(redis_client: Redis) -> Till:
    await redis_client.execute_command("FLUSHALL")
    return await tills.open_till(redis_client)


async def use(till: Till, event_id: str) -> Receipt:
    [receipt] = await till.charge([tills.usage(CUSTOMER, event_id, 10, opening=100)])
    return receipt


async def go_back(till: Till, client: Redis) -> None:
    """Two events, of which the till knows one."""
    for event_id in "ab":
        await use(till, event_id)
    await client.execute_command("HSET", f"{PREFIX}:m", "seq", 1)


async def test_what_is_left_is_not_read_from_a_till_that_went_back(till: Till, redis_client: Redis) -> None:
    """Fails when a read takes a copy's word that is older than what this process was told."""
    await go_back(till, redis_client)
    with pytest.raises(errors.Unavailable, match="older than what it acknowledged"):
        await till.read(1, CUSTOMER)


async def test_a_till_that_cannot_be_closed_for_others_is_refused_all_the_same(
    till: Till, redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when the connection that breaks while it is closed reaches the caller in place of the refusal."""
    await go_back(till, redis_client)
    send = redis_client.execute_command

    async def send_unless_closing(*words: redis.Word) -> object:
        if "close" in words:
            raise redis.ConnectionLostError("gone")
        return await send(*words)

    monkeypatch.setattr(redis_client, "execute_command", send_unless_closing)
    with pytest.raises(errors.Unavailable, match="older than what it acknowledged"):
        await use(till, "c")


async def test_a_log_that_is_ahead_of_the_till_is_found_before_anything_is_charged(till: Till, redis_client: Redis) -> None:
    """Fails when only the append to the log finds it out: after pools and identities were written."""
    await redis_client.execute_command("XADD", f"{PREFIX}:log", "9-0", "d", "nobody's")
    with pytest.raises(errors.Unavailable, match="its log is at 9"):
        await till.check()
    with pytest.raises(errors.Unavailable):
        await use(till, "a")
    assert await redis_client.execute_command("EXISTS", f"{PREFIX}:c") == 0
