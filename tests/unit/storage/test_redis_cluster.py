"""Where a command goes on a Redis Cluster, and how the cluster is named."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from tallybook.storage import redis, redis_cluster
from tallybook.storage.redis_client import ClusterDownError, Redis, SilenceError, Word
from tallybook.storage.redis_cluster import Address, Cluster
from tests.support import waiting


@pytest.mark.parametrize(
    ("key", "slot"),
    [
        ("123456789", 0x31C3),
        ("foo", 12182),
        (b"{user1000}.following", redis_cluster.slot_of("user1000")),
        ("foo{}{bar}", redis_cluster.slot_of(b"foo{}{bar}")),
        ("foo{{bar}}zap", redis_cluster.slot_of("{bar")),
        ("foo{bar}{zap}", redis_cluster.slot_of("bar")),
    ],
)
def test_the_slot_of_a_key_is_that_of_what_stands_in_its_first_braces(key: str | bytes, slot: int) -> None:
    """The first value is the one of the specification, the others are its examples."""
    assert redis_cluster.slot_of(key) == slot


def test_empty_braces_are_part_of_the_name() -> None:
    assert redis_cluster.slot_of("foo{}{bar}") != redis_cluster.slot_of("bar")


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (("HGET", "{p00}:m", "seq"), "{p00}:m"),
        (("EVALSHA", "0a", 1, "{p01}", "epoch"), "{p01}"),
        (("eval", b"return 1", "2", "{p02}:m", "{p02}:log", "epoch"), "{p02}:m"),
        (("XINFO", "STREAM", "{p03}:log"), "{p03}:log"),
    ],
)
def test_a_command_goes_to_the_server_of_its_first_key(words: tuple[Word, ...], key: str) -> None:
    assert redis_cluster.key_of(words) == key


@pytest.mark.parametrize("words", [("TIME",), ("INFO", "memory"), ("SCAN", 0), ("EVAL", b"return 1", 0), ("config", "get", "a")])
def test_a_command_without_a_key_is_not_sent_anywhere_by_chance(words: tuple[Word, ...]) -> None:
    with pytest.raises(ValueError, match="names no key"):
        redis_cluster.key_of(words)


async def test_a_cluster_is_named_by_some_of_its_servers() -> None:
    client = redis.connect("rediss+cluster://me:se,cret@one:7000,[::1]:7001?ssl_cert_reqs=none")
    assert isinstance(client, Cluster)
    assert client.is_cluster
    assert client.together(["{p00}:a", "{p01}:a", "{p00}:b"]) == [[0, 2], [1]]
    await client.close()


@pytest.mark.parametrize(
    "url", ["redis+cluster://one", "redis+cluster://one:7000,two", "redis+cluster://one:7000/3", "redis+cluster://"]
)
def test_a_cluster_that_is_named_otherwise_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"redis\+cluster://host:port"):
        redis.connect(url)


async def test_one_server_takes_all_keys_together() -> None:
    client = redis.connect("redis://nowhere:1")
    assert not client.is_cluster
    assert client.together(["{p00}", "{p01}"]) == [[0, 1]]
    assert await client.by_server(["{p00}", "{p01}"]) == [(client, [0, 1])]
    assert await client.servers() == [client]
    await client.close()


class ToldServer(Redis):
    """Answers what it is told with its verb, unless it is silent; the map says that `a` has the lower slots, `b` all others but one."""

    def __init__(self, address: Address) -> None:
        self.name = address[0]
        self.is_silent = False
        self.told: list[Word] = []
        self.speaks = asyncio.Event()

    async def execute_command(self, *words: Word) -> Any:  # noqa: ANN401 - as a server
        self.told.append(words[0])
        if words[0] == "PING":
            await self.speaks.wait()
        elif self.is_silent:
            raise SilenceError(self.name)
        return [[0, 8191, [b"a", 1]], [8192, 16382, [b"b", 1]]] if words[0] == "CLUSTER" else words[0]

    async def replies(self, commands: Sequence[tuple[Word, ...]]) -> list[Any]:
        return [await self.execute_command(*command) for command in commands]

    async def close(self) -> None:
        """Nothing is open."""


OF_A, OF_B, OF_NOBODY = "bar", "foo", "apX"


@pytest.fixture
async def servers() -> dict[str, ToldServer]:
    return {name: ToldServer((name, 1)) for name in "ab"}


@pytest.fixture
async def client(servers: dict[str, ToldServer]) -> AsyncGenerator[Cluster]:
    made = Cluster([("a", 1), ("b", 1)], lambda address: servers[address[0]])
    yield made
    await made.close()


async def test_a_server_that_let_a_command_run_into_the_timeout_is_sent_no_other_until_it_answers(
    client: Cluster, servers: dict[str, ToldServer]
) -> None:
    """Fails when each command that it holds the key of waits for the timeout in its turn."""
    await client.execute_command("GET", OF_A)
    servers["a"].is_silent = True
    with pytest.raises(SilenceError):
        await client.execute_command("GET", OF_A)
    servers["a"].told.clear()
    for _ in range(3):
        with pytest.raises(SilenceError):
            await client.execute_command("GET", OF_A)
        mine, others = await client.replies([("GET", OF_A), ("GET", OF_B)])
        assert isinstance(mine, SilenceError)
        assert others == "GET"
    assert set(servers["a"].told) == {"PING"}
    servers["a"].is_silent = False
    servers["a"].speaks.set()

    async def is_sent() -> bool:
        [reply] = await client.replies([("GET", OF_A)])
        return reply == "GET"

    await waiting.until(is_sent)


async def test_keys_that_no_server_holds_come_apart_and_only_they_are_refused(client: Cluster) -> None:
    """Fails when one such key is an error for all that are asked together."""
    keys = [OF_A, OF_NOBODY, OF_B]
    assert [(server.name, places) for server, places in await client.by_server(keys)] == [("a", [0]), ("", [1]), ("b", [2])]
    assert [server.name for server in await client.servers()] == ["a", "b"]
    replies = await client.replies([("GET", key) for key in keys])
    assert [isinstance(reply, ClusterDownError) for reply in replies] == [False, True, False]
    with pytest.raises(ClusterDownError):
        await client.pipeline(("GET", OF_NOBODY), atomic=True)
