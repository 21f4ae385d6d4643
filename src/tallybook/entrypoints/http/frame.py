"""What every request goes through, in order: key, permission, bounds, decoding, one transaction, shape. No handler knows of it.

One function an operation and no middlewares: the hot ones pay for what they use only.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import cast

import msgspec
from aiohttp import web

from tallybook.core import errors
from tallybook.entrypoints import logs, metrics
from tallybook.entrypoints.http import auth, bodies, decoding, older_wire, replies, shapes, writes
from tallybook.entrypoints.http.rates import Rates
from tallybook.entrypoints.http.routing import Call, HotCall, HotHandler, Operation
from tallybook.flows.services import Services
from tallybook.storage.postgres import Connection
from tallybook.tenancy import actions as tenancy
from tallybook.tenancy import rules

IN_FLIGHT_MAX = 4096
"""Requests that one process works on at once; more are told to come back."""
_SWEEP_S = 1.0
IDEMPOTENCY_HEADER = "Idempotency-Key"
VERSION_HEADER = "commet-version"

_encode = msgspec.json.Encoder().encode
HttpHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_Replying = Callable[[int, bytes, str], web.StreamResponse]
_Answering = Callable[[web.Request, str, bool], Awaitable[bytes]]


class Frame:
    """What the operations of one process share."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.keys = auth.KeyRing(services.database, services.clock, services.settings.key_grace_s)
        self.rates = Rates(services.settings.key_events_per_s)
        self.new_request_id = replies.request_ids()
        self.draining = False
        self.in_flight = 0
        self._began_s: dict[asyncio.Task[object], float] = {}
        self._overdue: set[asyncio.Task[object]] = set()

    def handler(self, operation: Operation, reply_with: _Replying = replies.json_reply) -> HttpHandler:
        """The function that answers an operation; `reply_with` makes its good answers."""
        answering = self._hot(operation) if operation.hot else self._ordinary(operation)
        return self._framed(operation, answering, reply_with)

    def _framed(self, operation: Operation, answering: _Answering, reply_with: _Replying) -> HttpHandler:
        new_request_id, status = self.new_request_id, operation.status
        observe = None if operation.hot else metrics.HTTP_SECONDS.labels(operation.id).observe

        async def handle(request: web.Request) -> web.StreamResponse:
            started = time.perf_counter()
            request_id = new_request_id()
            logs.request_id.set(request_id)
            task = cast("asyncio.Task[object]", asyncio.current_task())
            self._began_s[task] = started
            self.in_flight += 1
            try:
                self._check_room()
                is_older = shapes.is_enveloped(request.headers.get(VERSION_HEADER))
                body = await answering(request, request_id, is_older)
                if is_older:
                    body = shapes.enveloped(body)
                reply: web.StreamResponse = reply_with(status, body, request_id)
            except Exception as error:  # noqa: BLE001 - the one place that turns whatever happens into an answer
                problem = replies.explain(error)
                metrics.count_error(operation.id, problem.code)
                reply = replies.error_reply(problem, request_id)
            except asyncio.CancelledError:
                if task not in self._overdue:
                    raise
                reply = self._given_up(operation, task, request_id)
            finally:
                self.in_flight -= 1
                del self._began_s[task]
            metrics.count_request(operation.id, reply.status)
            if observe is not None:
                observe(time.perf_counter() - started)
            return reply

        return handle

    async def give_up_forever(self) -> None:
        """Once a second until cancelled: end requests that take longer than they may, whatever they wait for."""
        while True:
            await asyncio.sleep(_SWEEP_S)
            since_s = time.perf_counter() - self.services.settings.request_s_max
            for task in [task for task, began_s in self._began_s.items() if began_s < since_s]:
                self._overdue.add(task)
                task.cancel()

    def _given_up(self, operation: Operation, task: asyncio.Task[object], request_id: str) -> web.Response:
        """The answer to a request that took too long."""
        self._overdue.discard(task)
        task.uncancel()
        seconds = self.services.settings.request_s_max
        message = f"This took longer than {seconds} seconds, and it is not known what was done. Send the same request again."
        metrics.count_error(operation.id, "deadline_exceeded")
        reply = replies.error_reply(errors.Unavailable("deadline_exceeded", message), request_id)
        reply.force_close()
        return reply

    def _check_room(self) -> None:
        if self.in_flight > IN_FLIGHT_MAX:
            raise errors.RateLimited(f"More than {IN_FLIGHT_MAX} requests are being worked on; come back shortly.")

    def _hot(self, operation: Operation) -> _Answering:
        handler = cast("HotHandler", operation.handler)
        authenticate, clock, services, bytes_max = self.keys.authenticate, self.services.clock, self.services, operation.body_max
        pressure, writes_usage, spend = services.pressure, operation.writes, self.rates.take

        async def answer(request: web.Request, request_id: str, is_older: bool) -> bytes:  # noqa: FBT001 - an inner function
            if pressure.refuse is not None and writes_usage:
                raise pressure.refuse()
            now = clock()
            key = await authenticate(request.headers.get(auth.KEY_HEADER), now)
            if key.permissions is not None:
                auth.require(key, operation)
            body = await bodies.read(request, bytes_max)
            idempotency_key = _idempotency_key(request)
            if is_older:
                body, idempotency_key = older_wire.body(operation.id, body, idempotency_key)
            call = HotCall(key.tenant, key, body, now, services, idempotency_key, request_id, spend, is_older)
            result = await handler(call)
            if is_older:
                result = older_wire.named(operation.id, result, idempotency_key)
            return _encode(result)

        return answer

    def _ordinary(self, operation: Operation) -> _Answering:
        async def answer(request: web.Request, request_id: str, is_older: bool) -> bytes:  # noqa: FBT001 - an inner function
            call, raw = await self._receive(operation, request, request_id, is_older=is_older)
            if not operation.writes:
                body = await self._read(operation, call)
            else:
                path, query = call.path, list(request.query.items())
                fingerprint = (
                    b"" if call.idempotency_key is None else writes.fingerprint(operation, call.key.id, path, query, raw)
                )
                body = await writes.perform(operation, call, fingerprint, request.headers[auth.KEY_HEADER])
            return older_wire.answer(operation.id, body) if is_older else body

        return answer

    async def _receive(
        self, operation: Operation, request: web.Request, request_id: str, *, is_older: bool
    ) -> tuple[Call, bytes]:
        now = self.services.clock()
        key = await self.keys.authenticate(request.headers.get(auth.KEY_HEADER), now)
        auth.require(key, operation)
        raw = await bodies.read(request, operation.body_max)
        query = list(request.query.items())
        if is_older:
            raw, _ = older_wire.body(operation.id, raw, None)
            query = older_wire.query(operation.id, query)
        call = Call(
            tenant=key.tenant,
            key=key,
            now=now,
            real_now=now,
            connection=cast("Connection", None),
            body=decoding.body(raw, operation.body),
            query=decoding.query(query, operation.query),
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
