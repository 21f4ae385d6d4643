"""Redis, one server or a cluster: how it is reached, what time it says it is, and the settings that the till relies on. Knows no key."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from tallybook.storage import redis_client, redis_cluster
from tallybook.storage.redis_client import ConnectionLostError, NoScriptError, Redis, RedisError, ResponseError, Word
from tallybook.storage.safety import UnreadableSettingsError, Unsafe, UnsafeStoreError

__all__ = ["ConnectionLostError", "NoScriptError", "Redis", "RedisError", "ResponseError", "Word"]

_NEEDED: Mapping[str, str] = {
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "maxmemory-policy": "noeviction",
}


def connect(url: str, *, connections_max: int = 32, timeout_s: float = 5.0) -> Redis:
    """A client for `redis://`, `rediss://` or `unix://` URLs, or of a cluster: `redis+cluster://host:port,host:port`, `rediss+cluster://`.

    Connects on first use; connections are counted by server. Raises ValueError for another URL.
    """
    if redis_cluster.is_cluster_url(url):
        return redis_cluster.connect(url, connections_max=connections_max, timeout_s=timeout_s)
    return redis_client.connect_one(url, connections_max=connections_max, timeout_s=timeout_s)


async def atomically(client: Redis, *commands: tuple[Word, ...]) -> list[Any]:
    """Run commands as one step and return their raw replies in order. On a cluster their keys are of one slot."""
    return await client.pipeline(*commands, atomic=True)


async def server_time(client: Redis) -> datetime:
    """What time it is on the server, UTC; on a cluster, on that which is furthest ahead of those that answer."""
    return max([_moment(reply) for reply in await everywhere(client, "TIME")])


async def everywhere(client: Redis, *words: Word) -> list[Any]:
    """What every server that answers says to a command. Raises RedisError when none does."""
    servers = await client.servers()
    replies = await asyncio.gather(*(server.execute_command(*words) for server in servers), return_exceptions=True)
    answers = [reply for reply in replies if not isinstance(reply, BaseException)]
    if not answers:
        raise next(reply for reply in replies if isinstance(reply, BaseException))
    return answers


async def scan(client: Redis, pattern: str) -> AsyncIterator[list[bytes]]:
    """Keys that match, of every server, some at a time; each at least once."""
    for server in await client.servers():
        cursor: bytes = b"0"
        while True:
            cursor, found = await server.execute_command("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
            yield found
            if cursor == b"0":
                break


def _moment(reply: Sequence[bytes]) -> datetime:
    seconds, microseconds = reply
    return datetime.fromtimestamp(int(seconds), UTC).replace(microsecond=int(microseconds))


def info(reply: bytes) -> dict[str, str]:
    """A section of INFO by name."""
    lines = (line.partition(":") for line in reply.decode().splitlines())
    return {name: value for name, colon, value in lines if colon}


def text(reply: bytes | None) -> str | None:
    """A bulk reply as text; None stays None."""
    return None if reply is None else reply.decode()


def pairs(reply: list[bytes]) -> dict[bytes, bytes]:
    """A flat reply of names and values (HGETALL, CONFIG GET) as a dict."""
    return dict(zip(reply[::2], reply[1::2], strict=True))


async def assert_durable(client: Redis, *, accept_unreadable: bool = False) -> None:
    """Raise UnsafeStoreError unless an acknowledged write is on disk and nothing is ever evicted, on every server that answers.

    A server that forbids CONFIG (many hosted ones do) raises UnreadableSettingsError, or passes when `accept_unreadable` says
    that the operator vouches for its settings.
    """
    problems: list[Unsafe] = []
    if not client.is_cluster:
        problems += await _misnamed(client)
    try:
        for name, needed in _NEEDED.items():
            replies = await everywhere(client, "CONFIG", "GET", name)
            problems += _unsafe(name, needed, [pairs(reply).get(name.encode(), b"").decode() for reply in replies])
    except ResponseError as error:
        if not accept_unreadable:
            raise UnreadableSettingsError(_unreadable(str(error))) from error
    if problems:
        raise UnsafeStoreError("Redis", problems)


def _unsafe(name: str, needed: str, found: Sequence[str]) -> Iterator[Unsafe]:
    for value in sorted(set(found) - {needed}):
        remedy = f"run `CONFIG SET {name} {needed}` and put `{name} {needed}` in redis.conf"
        yield Unsafe(name, value, repr(needed), remedy)


async def _misnamed(client: Redis) -> list[Unsafe]:
    """A server of a cluster that is reached as if it were alone would refuse most partitions."""
    try:
        told = info(await client.execute_command("INFO", "cluster"))
    except ResponseError:
        return []
    if told.get("cluster_enabled", "0") == "0":
        return []
    remedy = "set TALLYBOOK_REDIS_URL=redis+cluster://host:port,host:port"
    return [Unsafe("cluster-enabled", "yes", "'no' for a redis:// URL", remedy)]


def _unreadable(answer: str) -> str:
    wanted = ", ".join(f"{name} {needed}" for name, needed in _NEEDED.items())
    return (
        f"Redis does not let its settings be read ({answer}), so it cannot be checked that acknowledged usage is on disk. "
        f"Allow this user `CONFIG GET`; or make sure of {wanted} yourself and set TALLYBOOK_REDIS_CONFIG_VOUCHED=true."
    )
