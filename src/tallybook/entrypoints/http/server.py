"""The HTTP server: which function answers which path, and how it starts and stops."""

import asyncio
import logging
import signal
from collections.abc import AsyncGenerator, Callable, Iterable

from aiohttp import web

from tallybook.core import errors
from tallybook.entrypoints.http import bodies, docs_page, openapi, protocol, replies, resources, routing
from tallybook.entrypoints.http.frame import Frame
from tallybook.entrypoints.http.health import HealthPages
from tallybook.entrypoints.http.routing import Operation
from tallybook.flows.services import Services

BASE = "/api/v1"
LEGACY_BASE = "/api"
_BACKLOG = 1024
_KEEPALIVE_S = 75.0
_LINGER_S = 2.0
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")

FRAME = web.AppKey("frame", Frame)
_log = logging.getLogger(__name__)


def make_application(services: Services, operations: Iterable[Operation] | None = None) -> web.Application:
    """The whole API on one aiohttp application. `operations` default to those of all resource modules."""
    every = routing.collect(resources.MODULES) if operations is None else tuple(operations)
    frame = Frame(services)
    application = web.Application(client_max_size=routing.BODY_BYTES_MAX)
    application[FRAME] = frame
    for operation in every:
        _add(application, frame, operation)
    _add_pages(application, frame, every)
    application.router.add_route("*", "/{anything:.*}", _unknown(frame, every))
    application.cleanup_ctx.append(_noting_last_use)
    return application


async def serve(
    services: Services,
    host: str,
    port: int,
    *,
    reuse_port: bool = False,
    stop: asyncio.Event | None = None,
    started: Callable[[int], None] = lambda _port: None,
) -> None:
    """Answer requests until `stop` is set (default: SIGTERM or Ctrl-C), then finish those in flight and return.

    `started` is told the port once connections are taken; port 0 picks a free one. Raises OSError when the port can't be had.
    """
    stopping = _stop_on_signals() if stop is None else stop
    application = make_application(services)
    runner = protocol.Runner(
        application,
        handle_signals=False,
        access_log=None,
        keepalive_timeout=_KEEPALIVE_S,
        lingering_time=_LINGER_S,
        auto_decompress=False,
        shutdown_timeout=float(services.settings.drain_s),
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, reuse_port=reuse_port or None, backlog=_BACKLOG)
        await site.start()
        started(runner.addresses[0][1])
        await stopping.wait()
    finally:
        application[FRAME].draining = True
        _log.info("draining", extra={"in_flight": application[FRAME].in_flight})
        await runner.cleanup()


def _add(application: web.Application, frame: Frame, operation: Operation) -> None:
    handler = frame.handler(operation)

    async def handle_legacy(request: web.Request) -> web.StreamResponse:
        reply = await handler(request)
        successor = BASE + request.rel_url.raw_path.removeprefix(LEGACY_BASE)
        reply.headers["Deprecation"] = "true"
        reply.headers["Link"] = f'<{successor}>; rel="successor-version"'
        return reply

    async def expect(request: web.Request) -> web.StreamResponse | None:
        """Tell a client that waits for 100 Continue not to send a body that would be refused."""
        try:
            bodies.check_head(request, operation.body_max)
        except errors.TallybookError as error:
            return replies.error_reply(error, frame.new_request_id())
        return await web.Response.__call__ if False else await _continue(request)

    application.router.add_route(operation.method, BASE + operation.path, handler, expect_handler=expect)
    application.router.add_route(operation.method, LEGACY_BASE + operation.path, handle_legacy, expect_handler=expect)


def _add_pages(application: web.Application, frame: Frame, operations: tuple[Operation, ...]) -> None:
    health = HealthPages(frame)
    document = openapi.document(operations, BASE)
    description = replies.encode(document)
    page = docs_page.render(document).encode()

    async def describe(_request: web.Request) -> web.Response:
        return replies.json_reply(200, description, frame.new_request_id())

    async def read(_request: web.Request) -> web.Response:
        headers = {
            "Content-Type": "text/html; charset=utf-8",
            "Content-Security-Policy": docs_page.CONTENT_SECURITY_POLICY,
            replies.REQUEST_ID_HEADER: frame.new_request_id(),
        }
        return web.Response(body=page, headers=headers)

    pages = {
        "/healthz": health.alive,
        "/readyz": health.ready,
        "/metrics": health.numbers,
        "/docs": read,
        f"{BASE}/openapi.json": describe,
        f"{LEGACY_BASE}/openapi.json": describe,
    }
    for path, page_handler in pages.items():
        application.router.add_get(path, page_handler)


def _unknown(frame: Frame, operations: tuple[Operation, ...]) -> Callable[[web.Request], object]:
    return None
