"""A Redis killed in the middle of a write, twice: nothing of the torn transaction may come back with the second start."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tallybook.charge.commands import Receipt
from tallybook.core import partitions
from tallybook.embedded import folders
from tallybook.embedded.redis_server import RedisServer
from tallybook.storage import redis
from tests.support import log_builder, tills

CUSTOMER = 1
OPENING = 1000
COUNTER = """
redis.replicate_commands()
redis.call('INCRBY', 'total', ARGV[1])
redis.call('XADD', 'total-log', '*', 'd', ARGV[1])
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of this test's own, to be killed."""
    data = folders.make(tmp_path / "data")
    server = RedisServer(data, folders.sockets(data))
    server.start()
    yield server
    server.stop()


def kill(server: RedisServer) -> None:
    """SIGKILL and a new start."""
    os.kill(server.child.pid, signal.SIGKILL)
    server.child.wait(60)
    server.start()


def kill_and_tear(server: RedisServer, data: Path) -> None:
    """SIGKILL, and cut the append-only file inside the last script's last command, as a kill during the write can."""
    os.kill(server.child.pid, signal.SIGKILL)
    server.child.wait(60)
    [file] = data.rglob("appendonly.aof")
    os.truncate(file, file.read_bytes().rfind(b"XADD") + 10)
    server.start()


async def take(server: RedisServer, event_id: str, amount: int) -> Receipt:
    """One event through the till of a process that has just started."""
    client = redis.connect(server.url)
    till = await tills.open_till(client)
    [receipt] = await till.charge([tills.usage(CUSTOMER, event_id, amount, opening=OPENING)])
    await client.close()
    return receipt


async def left_and_logged(server: RedisServer) -> tuple[int, int]:
    """What is left in the customer's pool, and how many entries its log holds."""
    client = redis.connect(server.url)
    till = await tills.open_till(client)
    prefix = partitions.prefix(tills.partition_of(CUSTOMER))
    entries = int(await client.execute_command("XLEN", f"{prefix}:log"))
    left = (await till.read(1, CUSTOMER)).pools[log_builder.POOL].left
    await client.close()
    return left, entries


async def count(server: RedisServer) -> None:
    """One script without a till around it: a number and its log."""
    client = redis.connect(server.url)
    await client.execute_command("EVAL", COUNTER, 0, "1")
    await client.close()


async def test_a_torn_transaction_never_comes_back(server: RedisServer, tmp_path: Path) -> None:
    await take(server, "whole", 100)
    await take(server, "torn", 100)
    kill_and_tear(server, tmp_path)
    assert await left_and_logged(server) == (900, 1)
    await take(server, "after", 100)
    kill(server)
    assert await left_and_logged(server) == (800, 2)
    assert (await take(server, "torn", 100)).left == 700


async def test_a_server_that_is_used_without_a_rewrite_carries_the_torn_half_out(server: RedisServer, tmp_path: Path) -> None:
    """What the rewrite is for. When this fails, Redis has been mended, and `torn_tail.py` may go."""
    for _ in range(2):
        await count(server)
    kill_and_tear(server, tmp_path)
    await count(server)
    kill(server)
    client = redis.connect(server.url)
    total, entries = await client.execute_command("GET", "total"), await client.execute_command("XLEN", "total-log")
    await client.close()
    assert (int(total), int(entries)) == (3, 2)
