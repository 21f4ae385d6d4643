"""Redis: a client that never sends a command twice by itself, raw replies, and the settings the till relies on. Knows no key.

Retries are off: after a lost reply nobody knows whether the command ran, and only the caller knows if running it again is safe.
Replies are what Redis sends in RESP2 (bytes, int, None, lists); nothing is decoded or reshaped.
"""

# pyright: reportUnknownMemberType=false
# redis-py types its raw commands only partly; the signatures below are the ones to rely on.

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, cast

from redis import asyncio as driver
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tallybook.storage.safety import UnreadableSettingsError, Unsafe, UnsafeStoreError

RedisError = exceptions.RedisError
NoScriptError = exceptions.NoScriptError
ResponseError = exceptions.ResponseError
ConnectionLostError = exceptions.ConnectionError

Word = bytes | str | int | float
"""One word of a command. Money goes in as text."""

_NEEDED: Mapping[str, str] = {
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "maxmemory-policy": "noeviction",
}


class Redis:
    """One server, many connections; a call that finds all of them busy waits up to five seconds for one."""

    def __init__(self, client: driver.Redis) -> None:
        self._client = client
        self._client.response_callbacks.clear()

    async def execute_command(self, *words: Word) -> Any:  # noqa: ANN401 - the reply's type depends on the command
        """Send one command and return its raw reply. Raises RedisError; after a lost connection or timeout it may have run."""
        return cast("Any", await self._client.execute_command(*words))

    async def pipeline(self, *commands: tuple[Word, ...], atomic: bool) -> list[Any]:
        """Send commands together; with `atomic`, nothing of others runs in between. Raises the first error reply."""
        async with self._client.pipeline(transaction=atomic) as waiting:
            for command in commands:
                waiting.execute_command(*command)
            return await waiting.execute()

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()


def connect(url: str, *, connections_max: int = 32, timeout_s: float = 5.0) -> Redis:
    """A client for `redis://`, `rediss://` or `unix://` URLs. Connects on first use. Raises ValueError for another URL."""
    pool = driver.BlockingConnectionPool.from_url(
        url,
        max_connections=connections_max,
        timeout=timeout_s,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        retry_on_timeout=False,
        decode_responses=False,
        protocol=2,
    )
    return Redis(driver.Redis.from_pool(pool))


async def atomically(client: Redis, *commands: tuple[Word, ...]) -> list[Any]:
    """Run commands as one step and return their raw replies in order."""
    return await client.pipeline(*commands, atomic=True)


async def server_time(client: Redis) -> datetime:
    """What time it is on the server, UTC."""
    seconds, microseconds = await client.execute_command("TIME")
    return datetime.fromtimestamp(int(seconds), UTC).replace(microsecond=int(microseconds))


def text(reply: bytes | None) -> str | None:
    """A bulk reply as text; None stays None."""
    return None if reply is None else reply.decode()


def pairs(reply: list[bytes]) -> dict[bytes, bytes]:
    """A flat reply of names and values (HGETALL, CONFIG GET) as a dict."""
    return dict(zip(reply[::2], reply[1::2], strict=True))


async def assert_durable(client: Redis, *, accept_unreadable: bool = False) -> None:
    """Raise UnsafeStoreError unless an acknowledged write is on disk and nothing is ever evicted.

    A server that forbids CONFIG (many hosted ones do) raises UnreadableSettingsError, or passes when `accept_unreadable` says
    that the operator vouches for its settings.
    """
    try:
        found = {name: await _setting(client, name) for name in _NEEDED}
    except exceptions.ResponseError as error:
        if accept_unreadable:
            return
        raise UnreadableSettingsError(_unreadable(str(error))) from error
    problems = list(_unsafe(found))
    if problems:
        raise UnsafeStoreError("Redis", problems)


async def _setting(client: Redis, name: str) -> str:
    reply: list[bytes] = await client.execute_command("CONFIG", "GET", name)
    return pairs(reply).get(name.encode(), b"").decode()


def _unsafe(found: Mapping[str, str]) -> Iterator[Unsafe]:
    for name, needed in _NEEDED.items():
        if found[name] != needed:
            remedy = f"run `CONFIG SET {name} {needed}` and put `{name} {needed}` in redis.conf"
            yield Unsafe(name, found[name], repr(needed), remedy)


def _unreadable(answer: str) -> str:
    wanted = ", ".join(f"{name} {needed}" for name, needed in _NEEDED.items())
    return (
        f"Redis does not let its settings be read ({answer}), so it cannot be checked that acknowledged usage is on disk. "
        f"Allow this user `CONFIG GET`; or make sure of {wanted} yourself and set TALLYBOOK_REDIS_CONFIG_VOUCHED=true."
    )
