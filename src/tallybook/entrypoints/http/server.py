"""The HTTP server: which function answers which path, and how it starts and stops."""

import asyncio
import contextlib
import logging
import re
import signal
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping

import orjson
from aiohttp import web

from tallybook.core import errors
from tallybook.entrypoints import metrics
from tallybook.entrypoints.http import bodies, docs_page, older_wire, openapi, protocol, replies, resources, routing, shapes
from tallybook.entrypoints.http.dashboard.pages import Dashboard
from tallybook.entrypoints.http.frame import VERSION_HEADER, Frame, HttpHandler
from tallybook.entrypoints.http.health import HealthPages
from tallybook.entrypoints.http.routing import Operation
from tallybook.flows.services import Services

BASE = "/api/v1"
LEGACY_BASE = "/api"
_BACKLOG = 1024
_KEEPALIVE_S = 75.0
_LINGER_S = 2.0
_ANYTHING = "/{anything}"
_ANYTHING_PATTERN = r"/{anything:[\s\S]*}"
_SHOWN_CHARACTERS_MAX = 200
_OLDER_ROUTE = "older_"
_PARAMETER = re.compile(r"\{[^{}]*\}")

FRAME = web.AppKey("frame", Frame)
STRAIGHT = web.AppKey("straight", dict[protocol.Line, HttpHandler])
"""Handlers of the usage path by the request line, for the runner to call without the router."""
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
    application[STRAIGHT] = {
        (operation.method, BASE + operation.path): frame.handler(operation, replies.Straight)
        for operation in every
        if operation.hot
    }
    handlers = {operation.id: frame.handler(operation) for operation in every}
    for operation in every:
        _add(application, operation, _as_it_was(operation, handlers))
    unknown = _unknown(frame, application)
    _add_older_routes(application, handlers, unknown)
    _add_pages(application, frame, every)
    Dashboard(frame).add_to(application)
    application.router.add_route("*", _ANYTHING_PATTERN, unknown)
    application.cleanup_ctx.append(_noting_last_use)
    application.cleanup_ctx.append(_giving_up)
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
        connections_max=services.settings.connections_max,
        straight=application[STRAIGHT],
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


def _add(application: web.Application, operation: Operation, handler: HttpHandler) -> None:
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


def _as_it_was(operation: Operation, handlers: Mapping[str, HttpHandler]) -> HttpHandler:
    """The operation's own handler, unless older clients meant another operation when they named a customer."""
    handler, of_a_customer = handlers[operation.id], handlers.get(older_wire.OF_A_CUSTOMER.get(operation.id, ""))
    if of_a_customer is None:
        return handler

    async def handle(request: web.Request) -> web.StreamResponse:
        is_of_a_customer = _is_older(request) and "customerId" in request.query
        return await (of_a_customer if is_of_a_customer else handler)(request)

    return handle


def _add_older_routes(application: web.Application, handlers: Mapping[str, HttpHandler], unknown: HttpHandler) -> None:
    """Routes that are there for older clients and for nobody else."""

    def only_older(handler: HttpHandler) -> HttpHandler:
        async def handle(request: web.Request) -> web.StreamResponse:
            return await (handler if _is_older(request) else unknown)(request)

        return handle

    for number, (method, path, operation_id) in enumerate(older_wire.ROUTES):
        if operation_id in handlers:
            resource = application.router.add_resource(BASE + path, name=f"{_OLDER_ROUTE}{number}")
            resource.add_route(method, only_older(handlers[operation_id]))


def _is_older(request: web.Request) -> bool:
    return shapes.is_enveloped(request.headers.get(VERSION_HEADER))


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
    """Methods that the path would take, as the most literal of the described paths that fit it says."""
    found: dict[str, set[str]] = {}
    for resource in application.router.resources():
        if resource.canonical != _ANYTHING and not (resource.name or "").startswith(_OLDER_ROUTE):
            literal = _PARAMETER.sub("", resource.canonical)
            found.setdefault(literal, set()).update((await resource.resolve(request))[1])
    fitting = [literal for literal, methods in found.items() if methods]
    return sorted(found[max(fitting, key=len)]) if fitting else []


def _shown(request: web.Request) -> str:
    return f"{request.method} {request.rel_url.raw_path}"[:_SHOWN_CHARACTERS_MAX]


async def _noting_last_use(application: web.Application) -> AsyncGenerator[None]:
    keys = application[FRAME].keys
    noting = asyncio.create_task(keys.touch_forever())
    yield
    noting.cancel()
    await asyncio.gather(noting, return_exceptions=True)
    await keys.touch()


async def _giving_up(application: web.Application) -> AsyncGenerator[None]:
    sweeping = asyncio.create_task(application[FRAME].give_up_forever())
    yield
    sweeping.cancel()
    await asyncio.gather(sweeping, return_exceptions=True)


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop
