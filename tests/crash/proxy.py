"""A proxy between client and API that now and then loses a response: the request arrived, and its sender never hears of it."""

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

_CHUNK = 65_536


@dataclass(slots=True)
class Proxy:
    """One listening place in front of one API process."""

    upstream: str
    dice: random.Random
    drop_share: float
    url: str = ""
    dropped: int = 0
    _serving: dict[asyncio.Task[Any], asyncio.StreamWriter] = field(default_factory=dict[asyncio.Task[Any], asyncio.StreamWriter])

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection to its end, or to the first response that is lost."""
        task = asyncio.current_task()
        assert task is not None
        self._serving[task] = writer
        task.add_done_callback(self._serving.pop)
        target = urlsplit(self.upstream)
        with contextlib.suppress(OSError), contextlib.closing(writer):
            up_reader, up_writer = await asyncio.open_connection(target.hostname, target.port)
            with contextlib.closing(up_writer):
                ways = [self._carry(reader, up_writer, 0.0), self._carry(up_reader, writer, self.drop_share)]
                await asyncio.wait([asyncio.create_task(way) for way in ways], return_when=asyncio.FIRST_COMPLETED)

    async def close(self) -> None:
        """End what is carried now."""
        for writer in self._serving.values():
            writer.close()
        await asyncio.gather(*self._serving)

    async def _carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, drop_share: float) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(_CHUNK):
                if self.dice.random() < drop_share:
                    self.dropped += 1
                    return
                target.write(data)
                await target.drain()


@contextlib.asynccontextmanager
async def in_front_of(upstream: str, dice: random.Random, drop_share: float) -> AsyncGenerator[Proxy]:
    """A proxy on a free port of this machine."""
    proxy = Proxy(upstream, dice, drop_share)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    proxy.url = f"http://{host}:{port}"
    async with server:
        yield proxy
        await proxy.close()
