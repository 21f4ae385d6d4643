"""Where a command goes on a Redis Cluster, and how the cluster is named."""

import pytest

from tallybook.storage import redis, redis_cluster
from tallybook.storage.redis_client import Word
from tallybook.storage.redis_cluster import Cluster


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
