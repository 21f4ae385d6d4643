"""HTTP that can't even be parsed gets an answer in the API's own form, and no header of it gets into a log."""

import logging
from typing import Self

from aiohttp import web

from tallybook.core import errors
from tallybook.entrypoints.http import replies

_log = logging.getLogger(__name__)
_CALLERS_FAULT = 400
_new_request_id = replies.request_ids()


class _Protocol(web.RequestHandler):
    """One connection."""

    __slots__ = ()

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
    """Makes a `_Protocol` for each connection."""

    @classmethod
    def like(cls, server: web.Server) -> Self:
        """A server with the same handler and settings."""
        return cls(server.request_handler, request_factory=server.request_factory, **server._kwargs)  # noqa: SLF001 - a subclass reads its own kind

    def __call__(self) -> web.RequestHandler:
        """The protocol of a new connection."""
        return _Protocol(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """Runs an application with the protocol above."""

    async def _make_server(self) -> web.Server:
        return _Server.like(await super()._make_server())
