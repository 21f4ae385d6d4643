"""What a client of Redis can do, and the client of one server. A command is sent once; replies are raw.

Retries are off: after a lost reply nobody knows whether the command ran, and only the caller knows if running it again is safe.
Replies are what Redis sends in RESP2 (bytes, int, None, lists); nothing is decoded or reshaped.
"""

# pyright: reportUnknownMemberType=false
# redis-py types its raw commands only partly; the signatures below are the ones to rely on.

from collections.abc import Sequence
from typing import Any, cast

from redis import asyncio as driver
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

RedisError = exceptions.RedisError
NoScriptError = exceptions.NoScriptError
ResponseError = exceptions.ResponseError
ConnectionLostError = exceptions.ConnectionError
SilenceError = exceptions.TimeoutError
AskError = exceptions.AskError
MovedError = exceptions.MovedError
ClusterDownError = exceptions.ClusterDownError

Word = bytes | str | int | float
"""One word of a command. Money goes in as text."""


def moved_to(error: MovedError) -> tuple[int, str, int]:
    """Slot, host and port that a `MOVED` names; the host may be empty: that of who said it."""
    return cast("tuple[int, str, int]", (error.slot_id, error.host, error.port))


class Redis:
    """One server, many connections; a call that finds all of them busy waits up to five seconds for one."""

    def __init__(self, client: driver.Redis, name: str = "") -> None:
        self._client = client
        self._client.response_callbacks.clear()
        self.name = name
        """Tells servers of a cluster apart."""

    async def execute_command(self, *words: Word) -> Any:  # noqa: ANN401 - the reply's type depends on the command
        """Send one command and return its raw reply. Raises RedisError; after a lost connection or timeout it may have run."""
        return cast("Any", await self._client.execute_command(*words))

    async def pipeline(self, *commands: tuple[Word, ...], atomic: bool) -> list[Any]:
        """Send commands together; with `atomic`, nothing of others runs in between. Raises the first error reply."""
        async with self._client.pipeline(transaction=atomic) as waiting:
            for command in commands:
                waiting.execute_command(*command)
            return await waiting.execute()

    async def replies(self, commands: Sequence[tuple[Word, ...]]) -> list[Any]:
        """Send commands together, and return errors in the places of their replies."""
        async with self._client.pipeline(transaction=False) as waiting:
            for command in commands:
                waiting.execute_command(*command)
            return await waiting.execute(raise_on_error=False)

    @property
    def is_cluster(self) -> bool:
        """Whether keys live on several servers."""
        return False

    def together(self, keys: Sequence[str]) -> list[list[int]]:
        """The places of keys that one script may name together; here all of them."""
        return [list(range(len(keys)))] if keys else []

    async def by_server(self, keys: Sequence[str]) -> list[tuple["Redis", list[int]]]:
        """Each server with the places of the keys it holds."""
        return [(self, list(range(len(keys))))]

    def server_of(self, _key: str) -> str:
        """The name of the server that holds a key, as far as is known."""
        return self.name

    async def servers(self) -> list["Redis"]:
        """Every server that holds keys: for what is asked of a server, not of a key."""
        return [self]

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()


def connect_one(url: str, *, connections_max: int, timeout_s: float, name: str = "") -> Redis:
    """A client of the server at a URL. Connects on first use. Raises ValueError for a URL that is none of Redis."""
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
    return Redis(driver.Redis.from_pool(pool), name)
