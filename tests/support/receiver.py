"""A receiver of webhooks on this machine: it verifies each request with two clients, and answers as the test says."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import test_utils, web
from commet import Webhooks

from tallybook.client import verify_webhook

Json = dict[str, Any]


@dataclass(slots=True)
class Receiver:
    """What came in. `answers` are the statuses to come, then 200s; `secret` None: take it unseen."""

    url: str = ""
    secret: str | None = None
    answers: list[int] = field(default_factory=list[int])
    events: list[Json] = field(default_factory=list[Json])
    requests: list[tuple[dict[str, str], str]] = field(default_factory=list[tuple[dict[str, str], str]])
    now_s: Callable[[], float] | None = None
    before_answer: Callable[[], Awaitable[None]] | None = None

    async def take(self, request: web.Request) -> web.Response:
        """One delivery."""
        body = await request.text()
        self.requests.append((dict(request.headers), body))
        if self.secret is not None:
            official = Webhooks().verify_and_parse(
                raw_body=body, signature=request.headers.get("x-commet-signature"), secret=self.secret
            )
            own = verify_webhook(body, request.headers, self.secret, now_s=None if self.now_s is None else self.now_s())
            if official is None or official != own:
                return web.Response(status=401)
            self.events.append(official)
        if self.before_answer is not None:
            await self.before_answer()
        return web.Response(status=self.answers.pop(0) if self.answers else 200)

    @property
    def topics(self) -> list[str]:
        """Names of the events, in the order they came."""
        return [event["event"] for event in self.events]


@asynccontextmanager
async def receiving(path: str = "/hook") -> AsyncGenerator[Receiver]:
    """A receiver on a free port."""
    receiver = Receiver()
    application = web.Application()
    application.router.add_post(path, receiver.take)
    async with test_utils.TestServer(application) as server:
        receiver.url = str(server.make_url(path))
        yield receiver


@asynccontextmanager
async def listening(answer: bytes, *, holds: bool = False) -> AsyncGenerator[tuple[int, list[bytes]]]:
    """A port that answers every connection with these bytes, and what it was sent. `holds`: it does not hang up."""
    got: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await reader.read(65_536))
        writer.write(answer)
        if holds:
            await reader.read()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], got
