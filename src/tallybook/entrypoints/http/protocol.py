"""HTTP that can't even be parsed gets an answer in the API's own form, and no header of it gets into a log."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Self, cast

from aiohttp import web

from tallybook.core import errors
from tallybook.entrypoints import metrics
from tallybook.entrypoints.http import replies, shapes

Line = tuple[str, str]
"""Method and path as they stand in the request."""
Handler = Callable[[Any], Awaitable[web.StreamResponse]]

_log = logging.getLogger(__name__)
_CALLERS_FAULT = 400
_new_request_id = replies.request_ids()


class _Protocol(web.RequestHandler):
    """One connection."""

    __slots__ = ()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or say at once that there are too many."""
        server = cast("_Server", self._manager)
        if server.is_full:
            self._force_close = True
            metrics.CONNECTIONS_REFUSED.inc()
            cast("asyncio.Transport", transport).write(_too_many())
            transport.close()
            return
        super().connection_made(transport)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """The answer to what is no request. aiohttp's own text quotes the line it stumbled over, which may hold a key."""
        del message
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun; nothing can be added to it")
        request_id = _new_request_id()
        if status == _CALLERS_FAULT:
            _log.info("not HTTP: %s", type(exc).__name__, extra={"request_id": request_id})
            problem: errors.TallybookError = errors.invalid("", "This is not a valid HTTP request, or its headers are too large.")
        else:
            _log.error("unhandled exception", exc_info=exc, extra={"request_id": request_id})
            problem = errors.TallybookError(
                "internal_error", "Something broke on this side; the request id finds it in the logs."
            )
        reply = replies.error_reply(problem, request_id)
        reply.force_close()
        return reply


class _Server(web.Server):
    """Makes a `_Protocol` for each connection, up to a number of them."""

    connections_max = 0

    @classmethod
    def like(cls, server: web.Server, connections_max: int, straight: Mapping[Line, Handler]) -> Self:
        """A server with the same handler and settings."""
        made = cls(_past_the_router(straight, server.request_handler), request_factory=server.request_factory, **server._kwargs)  # noqa: SLF001 - a subclass reads its own kind
        made.connections_max = connections_max
        return made

    @property
    def is_full(self) -> bool:
        """Whether no more connections are taken."""
        return len(self._connections) >= self.connections_max

    def __call__(self) -> web.RequestHandler:
        """The protocol of a new connection."""
        return _Protocol(self, loop=self._loop, **self._kwargs)


def _past_the_router(straight: Mapping[Line, Handler], general: Handler) -> Handler:
    """Look the handler up by what the request line says, word for word; whatever else it says is for the router."""

    def handle(request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
        handler = straight.get((request.method, request.raw_path))
        return general(request) if handler is None or "Expect" in request.headers else handler(request)

    return handle


class Runner(web.AppRunner):
    """Runs an application with the protocol above, on `connections_max` connections at most.

    Requests with one of the methods and paths of `straight` go to its handler without a detour.
    """

    def __init__(
        self,
        application: web.Application,
        *,
        connections_max: int,
        straight: Mapping[Line, Handler],
        **settings: Any,  # noqa: ANN401 - aiohttp's own
    ) -> None:
        super().__init__(application, **settings)
        self._connections_max = connections_max
        self._straight = straight

    async def _make_server(self) -> web.Server:
        return _Server.like(await super()._make_server(), self._connections_max, self._straight)


def _too_many() -> bytes:
    """A whole answer, written without a request."""
    problem = errors.Unavailable("too_many_connections", "This process takes no more connections; come back shortly.")
    body = shapes.error(problem)
    head = (
        "HTTP/1.1 503 Service Unavailable\r\nServer: tallybook\r\nConnection: close\r\n"
        f"Content-Type: {replies.JSON}\r\n{replies.REQUEST_ID_HEADER}: {_new_request_id()}\r\n"
        f"Retry-After: {problem.retry_after_s}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
