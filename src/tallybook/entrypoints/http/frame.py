"""What every request goes through, in order: key, permission, bounds, decoding, one transaction, shape. No handler knows of it.

One function an operation and no middlewares: the hot ones pay for what they use only.
"""

import time
from collections.abc import Awaitable, Callable
from typing import cast

import orjson
from aiohttp import web

from tallybook.core import errors
from tallybook.entrypoints import logs, metrics
from tallybook.entrypoints.http import auth, bodies, decoding, replies, shapes, writes
from tallybook.entrypoints.http.routing import Call, HotCall, HotHandler, Operation
from tallybook.flows.services import Services
from tallybook.storage.postgres import Connection
from tallybook.tenancy import actions as tenancy
from tallybook.tenancy import rules

IN_FLIGHT_MAX = 4096
"""Requests that one process works on at once; more are told to come back."""
IDEMPOTENCY_HEADER = "Idempotency-Key"
VERSION_HEADER = "commet-version"

HttpHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_Answering = Callable[[web.Request, str], Awaitable[bytes]]


class Frame:
    """What the operations of one process share."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.keys = auth.KeyRing(services.database, services.clock)
        self.new_request_id = replies.request_ids()
        self.draining = False
        self.in_flight = 0

    def handler(self, operation: Operation) -> HttpHandler:
        """The function that answers an operation."""
        answering = self._hot(operation) if operation.hot else self._ordinary(operation)
        return self._framed(operation, answering)

    def _framed(self, operation: Operation, answering: _Answering) -> HttpHandler:
        new_request_id, status = self.new_request_id, operation.status
        observe = None if operation.hot else metrics.HTTP_SECONDS.labels(operation.id).observe

        async def handle(request: web.Request) -> web.StreamResponse:
            started = time.perf_counter()
            request_id = new_request_id()
            logs.request_id.set(request_id)
            self.in_flight += 1
            try:
                self._check_room()
                body = await answering(request, request_id)
                if shapes.is_enveloped(request.headers.get(VERSION_HEADER)):
                    body = shapes.enveloped(body)
                reply = replies.json_reply(status, body, request_id)
            except Exception as error:  # noqa: BLE001 - the one place that turns whatever happens into an answer
                problem = replies.explain(error)
                metrics.count_error(operation.id, problem.code)
                reply = replies.error_reply(problem, request_id)
            finally:
                self.in_flight -= 1
            metrics.count_request(operation.id, reply.status)
            if observe is not None:
                observe(time.perf_counter() - started)
            return reply

        return handle

    def _check_room(self) -> None:
        if self.in_flight > IN_FLIGHT_MAX:
            raise errors.RateLimited(f"More than {IN_FLIGHT_MAX} requests are being worked on; come back shortly.")

    def _hot(self, operation: Operation) -> _Answering:
        handler = cast("HotHandler", operation.handler)
        authenticate, clock, services, bytes_max = self.keys.authenticate, self.services.clock, self.services, operation.body_max

        async def answer(request: web.Request, request_id: str) -> bytes:
            now = clock()
            key = await authenticate(request.headers.get(auth.KEY_HEADER), now)
            if key.permissions is not None:
                auth.require(key, operation)
            body = await bodies.read(request, bytes_max)
            idempotency_key = _idempotency_key(request)
            result = await handler(HotCall(key.tenant, key, body, now, services, idempotency_key, request_id))
            return result if isinstance(result, bytes) else orjson.dumps(result)

        return answer

    def _ordinary(self, operation: Operation) -> _Answering:
        async def answer(request: web.Request, request_id: str) -> bytes:
            call, raw = await self._receive(operation, request, request_id)
            if not operation.writes:
                return await self._read(operation, call)
            path, query = call.path, list(request.query.items())
            fingerprint = b"" if call.idempotency_key is None else writes.fingerprint(operation, call.key.id, path, query, raw)
            return await writes.perform(operation, call, fingerprint, request.headers[auth.KEY_HEADER])

        return answer

    async def _receive(self, operation: Operation, request: web.Request, request_id: str) -> tuple[Call, bytes]:
        now = self.services.clock()
        key = await self.keys.authenticate(request.headers.get(auth.KEY_HEADER), now)
        auth.require(key, operation)
        raw = await bodies.read(request, operation.body_max)
        call = Call(
            tenant=key.tenant,
            key=key,
            now=now,
            real_now=now,
            connection=cast("Connection", None),
            body=decoding.body(raw, operation.body),
            query=decoding.query(list(request.query.items()), operation.query),
            path=decoding.path(request.match_info),
            services=self.services,
            idempotency_key=_idempotency_key(request) if operation.writes else None,
            request_id=request_id,
        )
        return call, raw

    async def _read(self, operation: Operation, call: Call) -> bytes:
        async with self.services.database.acquire(timeout=writes.ACQUIRE_TIMEOUT_S) as connection:
            call.connection = connection
            call.now = await tenancy.clock_now(connection, call.tenant, call.real_now)
            return await writes.run(operation, call)


def _idempotency_key(request: web.Request) -> str | None:
    key = request.headers.get(IDEMPOTENCY_HEADER)
    return None if key is None else rules.check_idempotency_key(key)
