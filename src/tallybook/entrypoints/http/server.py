"""The HTTP server: which function answers which path, and how it starts and stops."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncGenerator, Callable, Iterable

import orjson
from aiohttp import web

from tallybook.core import errors
from tallybook.entrypoints import metrics
from tallybook.entrypoints.http import bodies, docs_page, openapi, protocol, replies, resources, routing
from tallybook.entrypoints.http.frame import Frame, HttpHandler
from tallybook.entrypoints.http.health import HealthPages
from tallybook.entrypoints.http.routing import Operation
from tallybook.flows.services import Services

BASE = "/api/v1"
LEGACY_BASE = "/api"
_BACKLOG = 1024
_KEEPALIVE_S = 75.0
_LINGER_S = 2.0
_ANYTHING = "/{anything}"
_ANYTHING_PATTERN = "/{anything:.*}"
_SHOWN_CHARACTERS_MAX = 200

FRAME = web.AppKey("frame", Frame)
_log = logging.getLogger(__name__)


class MethodNotAllowed(errors.TallybookError):
    """The path exists and does not take this method."""

    status = 405
    type = "not_found_error"


def make_application(services: Services, operations: Iterable[Operation] | None = None) -> web.Application:
    """The whole API on one aiohttp application. `operations` default to those of all resource modules."""
    every = routing.collect(resources.MODULES) if operations is None else tuple(operations)
    frame = Frame(services)
    application = web.Application(client_max_size=routing.BODY_BYTES_MAX)
    application[FRAME] = frame
    for operation in every:
        _add(application, frame, operation)
    _add_pages(application, frame, every)
    application.router.add_route("*", _ANYTHING_PATTERN, _unknown(frame, application))
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

    async def expect(request: web.Request) -> None:
        """Ask for the body, unless the headers say already that it would be refused."""
        with contextlib.suppress(errors.TallybookError):
            bodies.check_head(request, operation.body_max)
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0

    application.router.add_route(operation.method, BASE + operation.path, handler, expect_handler=expect)
    application.router.add_route(operation.method, LEGACY_BASE + operation.path, handle_legacy, expect_handler=expect)


def _add_pages(application: web.Application, frame: Frame, operations: tuple[Operation, ...]) -> None:
    health = HealthPages(frame)
    document = openapi.document(operations, BASE)
    description = orjson.dumps(document)
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


def _unknown(frame: Frame, application: web.Application) -> HttpHandler:
    async def handle(request: web.Request) -> web.StreamResponse:
        request_id = frame.new_request_id()
        allowed = await _methods_of(application, request)
        metrics.count_request("unknown", 405 if allowed else 404)
        if not allowed:
            return replies.error_reply(errors.NotFound("not_found", f"There is no {_shown(request)}."), request_id)
        problem = MethodNotAllowed("method_not_allowed", f"There is no {_shown(request)}; this path takes {', '.join(allowed)}.")
        reply = replies.error_reply(problem, request_id)
        reply.headers["Allow"] = ", ".join(allowed)
        return reply

    return handle


async def _methods_of(application: web.Application, request: web.Request) -> list[str]:
    """Methods that the path would take."""
    found: set[str] = set()
    for resource in application.router.resources():
        if resource.canonical != _ANYTHING:
            found |= (await resource.resolve(request))[1]
    return sorted(found)


def _shown(request: web.Request) -> str:
    return f"{request.method} {request.rel_url.raw_path}"[:_SHOWN_CHARACTERS_MAX]


async def _noting_last_use(application: web.Application) -> AsyncGenerator[None]:
    keys = application[FRAME].keys
    noting = asyncio.create_task(keys.touch_forever())
    yield
    noting.cancel()
    await asyncio.gather(noting, return_exceptions=True)
    await keys.touch()


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop
