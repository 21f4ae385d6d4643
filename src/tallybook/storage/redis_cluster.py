"""A Redis Cluster: the same commands, each sent to the server that holds its key. Knows no key, only where a command names one.

Which server holds which slot is asked of the cluster once, and again when a server says that a slot has moved or does not answer;
commands to the other servers go on meanwhile. `MOVED` is followed, because nothing has run. `ASK` is not: it means that a slot is on
its way from one server to another, and what the script reads beside its keys could be on either. Such a slot takes nothing until it
has arrived. A server that let a command run into the timeout is sent no other, and whoever wants it is told at once, until it has
answered a PING: else everybody in turn would wait as long as the first.
"""

import asyncio
import logging
from binascii import crc_hqx
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache, partial
from typing import Any
from urllib.parse import SplitResult, urlsplit

from tallybook.storage.redis_client import (
    AskError,
    ClusterDownError,
    ConnectionLostError,
    MovedError,
    Redis,
    RedisError,
    SilenceError,
    Word,
    connect_one,
    moved_to,
)

SLOTS = 16384
_MOVES_MAX = 5
_LOOK_AGAIN_S = 1.0
_PING_AGAIN_S = 0.1
_SCHEMES = {"redis+cluster": "redis", "rediss+cluster": "rediss"}
_KEYLESS = frozenset({"ACL", "BGREWRITEAOF", "CLIENT", "CLUSTER", "CONFIG", "FLUSHALL", "INFO", "PING", "SCAN", "SCRIPT", "TIME"})
_KEY_IS_THIRD = frozenset({"MEMORY", "OBJECT", "XINFO"})
_KEY_COUNT, _FIRST_KEY_OF_SCRIPT = 2, 3
_PERHAPS_ELSEWHERE = (ConnectionLostError, SilenceError, ClusterDownError, AskError)
"""After these the slot may be somebody else's."""
_LOG = logging.getLogger(__name__)

Address = tuple[str, int]


class _Nobody(Redis):
    """Stands for the server of slots that no server holds. Its name is empty."""

    def __init__(self) -> None:
        self.name = ""

    async def execute_command(self, *_words: Word) -> Any:  # noqa: ANN401 - see `Redis`
        """Raise ClusterDownError."""
        raise ClusterDownError("the slot is held by no server")

    async def pipeline(self, *_commands: tuple[Word, ...], atomic: bool) -> list[Any]:  # noqa: ARG002 - see `Redis`
        """Raise ClusterDownError."""
        return await self.execute_command()

    async def replies(self, commands: Sequence[tuple[Word, ...]]) -> list[Any]:  # noqa: ARG002 - see `Redis`
        """Raise ClusterDownError."""
        return await self.execute_command()


_NOBODY = _Nobody()


def is_cluster_url(url: str) -> bool:
    """Whether a URL names a cluster: `redis+cluster://[user:password@]host:port[,host:port…]`, with TLS `rediss+cluster://`."""
    return urlsplit(url).scheme in _SCHEMES


@lru_cache(maxsize=4096)
def slot_of(key: Word) -> int:
    """The slot of a key: of what stands in its first braces, if anything does. Source: Redis Cluster specification."""
    name = key if isinstance(key, bytes) else str(key).encode()
    opened = name.find(b"{")
    closed = name.find(b"}", opened + 1)
    if opened >= 0 and closed > opened + 1:
        name = name[opened + 1 : closed]
    return crc_hqx(name, 0) % SLOTS


def key_of(words: Sequence[Word]) -> Word:
    """The first key that a command names. Raises ValueError for one that is said to a server, not of a key."""
    verb = str(words[0]).upper()
    if verb in ("EVAL", "EVALSHA") and len(words) > _FIRST_KEY_OF_SCRIPT and int(words[_KEY_COUNT]) > 0:
        return words[_FIRST_KEY_OF_SCRIPT]
    if verb in _KEYLESS or verb.startswith("EVAL") or len(words) == 1:
        raise ValueError(f"{verb} names no key, so it has to be sent to one of `servers()`")
    return words[2 if verb in _KEY_IS_THIRD else 1]


class Cluster(Redis):
    """All masters of one cluster. Belongs to one event loop."""

    def __init__(self, seeds: Sequence[Address], open_server: Callable[[Address], Redis]) -> None:
        """The slots are asked of any of `seeds` that answers."""
        self._open_server = open_server
        self._opened = {address: open_server(address) for address in seeds}
        self._holders: list[Redis] = []
        self._loading = asyncio.Lock()
        self._looking: asyncio.Task[None] | None = None
        self._silent: dict[str, asyncio.Task[None]] = {}
        """By name of a server that did not answer in time: what waits for a sign of life."""
        self.name = ""

    @property
    def is_cluster(self) -> bool:
        """Keys live on several servers."""
        return True

    async def execute_command(self, *words: Word) -> Any:  # noqa: ANN401 - the reply's type depends on the command
        """Send one command to the server of its key. Raises RedisError; ValueError when it names no key."""
        return await self._follow(slot_of(key_of(words)), lambda server: server.execute_command(*words))

    async def pipeline(self, *commands: tuple[Word, ...], atomic: bool) -> list[Any]:
        """Send commands together: with `atomic` all of one slot, else to all servers at once. Raises the first error."""
        if atomic:
            [slot] = {slot_of(key_of(command)) for command in commands}
            return await self._follow(slot, lambda server: server.pipeline(*commands, atomic=True))
        found = await self.replies(commands)
        for reply in found:
            if isinstance(reply, Exception):
                raise reply
        return found

    async def replies(self, commands: Sequence[tuple[Word, ...]]) -> list[Any]:
        """Send commands to all servers at once, and return errors in the places of their replies."""
        replies: list[Any] = [None] * len(commands)

        async def ask(server: Redis, places: Sequence[int]) -> None:
            try:
                found = await self._ask(server, lambda: server.replies([commands[place] for place in places]))
            except RedisError as error:
                self._look_again()
                found = [error] * len(places)
            for place, reply in zip(places, found, strict=True):
                replies[place] = await self._one(commands[place]) if isinstance(reply, MovedError) else reply

        groups = await self.by_server([key_of(command) for command in commands])
        if len(groups) == 1:
            await ask(*groups[0])
            return replies
        await asyncio.gather(*(ask(server, places) for server, places in groups))
        return replies

    async def _one(self, command: tuple[Word, ...]) -> Any:  # noqa: ANN401 - see execute_command
        try:
            return await self.execute_command(*command)
        except RedisError as error:
            return error

    def together(self, keys: Sequence[Word]) -> list[list[int]]:
        """The places of keys that one script may name together: those of one slot."""
        by_slot: dict[int, list[int]] = defaultdict(list)
        for place, key in enumerate(keys):
            by_slot[slot_of(key)].append(place)
        return list(by_slot.values())

    async def by_server(self, keys: Sequence[Word]) -> list[tuple[Redis, list[int]]]:
        """Each server with the places of the keys it holds, as far as is known. Raises RedisError.

        Keys that no server holds come together, with a server that answers nothing.
        """
        await self._load_once()
        found: dict[str, tuple[Redis, list[int]]] = {}
        for place, key in enumerate(keys):
            server = self._holders[slot_of(key)]
            found.setdefault(server.name, (server, []))[1].append(place)
        return list(found.values())

    def server_of(self, key: str) -> str:
        """The name of the server that holds a key; "" while that is not known, and when none does."""
        return self._holders[slot_of(key)].name if self._holders else ""

    async def servers(self) -> list[Redis]:
        """Every master that holds slots. Raises RedisError."""
        await self._load_once()
        return list({server.name: server for server in self._holders if server is not _NOBODY}.values())

    async def close(self) -> None:
        """Close every connection to every server."""
        if self._looking is not None:
            self._looking.cancel()
        for waiting in self._silent.values():
            waiting.cancel()
        for server in self._opened.values():
            await server.close()

    async def _follow(self, slot: int, send: Callable[[Redis], Any]) -> Any:  # noqa: ANN401 - see execute_command
        await self._load_once()
        for _ in range(_MOVES_MAX):
            server = self._holders[slot]
            try:
                return await self._ask(server, partial(send, server))
            except MovedError as moved:
                self._note_moved(moved, server)
            except _PERHAPS_ELSEWHERE:
                self._look_again()
                raise
        raise ClusterDownError(f"slot {slot} is sent from one server to the next")

    async def _ask(self, server: Redis, send: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ANN401 - see execute_command
        """Send something to a server, unless it is waited for already."""
        if server.name in self._silent:
            raise SilenceError(f"{server.name} has not answered in time, and is waited for")
        try:
            return await send()
        except SilenceError:
            if server.name not in self._silent:
                self._silent[server.name] = asyncio.create_task(self._wait_for(server))
            raise

    async def _wait_for(self, server: Redis) -> None:
        """Until a silent server answers, or can't be reached any more, which is noticed without waiting."""
        try:
            while True:
                try:
                    await server.execute_command("PING")
                except SilenceError:
                    await asyncio.sleep(_PING_AGAIN_S)
                else:
                    return
        except RedisError:
            _LOG.info("Redis Cluster: %s was silent, and can't be reached now", server.name)
        finally:
            del self._silent[server.name]

    def _note_moved(self, moved: MovedError, by: Redis) -> None:
        slot, host, port = moved_to(moved)
        self._holders[slot] = self._server((host or by.name.rpartition(":")[0].strip("[]"), port))
        self._look_again()

    def _server(self, address: Address) -> Redis:
        if address not in self._opened:
            self._opened[address] = self._open_server(address)
        return self._opened[address]

    async def _load_once(self) -> None:
        if not self._holders:
            async with self._loading:
                if not self._holders:
                    await self._load()

    def _look_again(self) -> None:
        """Ask in the background where the slots are now, unless that is being done; at most once a second."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._reload())

    async def _reload(self) -> None:
        try:
            await self._load()
        except RedisError as error:
            _LOG.warning("Redis Cluster: nobody says where the slots are: %s", error)
        await asyncio.sleep(_LOOK_AGAIN_S)

    async def _load(self) -> None:
        """Take the map of the first server that gives one. Raises RedisError when none does."""
        why: RedisError = ClusterDownError("no server is known")
        for (host, _), server in sorted(self._opened.items(), key=lambda opened: opened[1].name in self._silent):
            try:
                ranges = await server.execute_command("CLUSTER", "SLOTS")
            except RedisError as error:
                why = error
                continue
            if ranges:
                self._take(ranges, host)
                return
            why = ClusterDownError("the cluster has given no slot to any server")
        raise why

    def _take(self, ranges: Sequence[Sequence[Any]], asked: str) -> None:
        holders: list[Redis] = [_NOBODY] * SLOTS
        for first, last, master, *_replicas in ranges:
            host, port = master[0], int(master[1])
            server = self._server((host.decode() if host else asked, port))
            holders[int(first) : int(last) + 1] = [server] * (int(last) - int(first) + 1)
        self._holders = holders


def connect(url: str, *, connections_max: int, timeout_s: float) -> Cluster:
    """A client of the cluster at a URL (see `is_cluster_url`); connections are counted by server. Raises ValueError."""
    parts = urlsplit(url)
    _, _, places = parts.netloc.rpartition("@")
    seeds = [_address(place, url) for place in places.split(",")]

    def open_server(address: Address) -> Redis:
        place = _written(address)
        return connect_one(_url_of(parts, place), connections_max=connections_max, timeout_s=timeout_s, name=place)

    return Cluster(seeds, open_server)


def _address(place: str, url: str) -> Address:
    host, _, port = place.rpartition(":")
    if not host or not port.isdigit() or urlsplit(url).path not in ("", "/", "/0"):
        raise ValueError(
            f"{place!r} is not host:port; a cluster is named redis+cluster://host:port,host:port and has database 0 only"
        )
    return host.strip("[]"), int(port)


def _written(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _url_of(parts: SplitResult, place: str) -> str:
    login, at, _ = parts.netloc.rpartition("@")
    return parts._replace(scheme=_SCHEMES[parts.scheme], netloc=f"{login}{at}{place}", path="").geturl()
