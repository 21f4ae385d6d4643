"""Is it alive, may it get traffic, and what are its numbers. No key needed; nothing of any customer is shown."""

import asyncio
from collections.abc import Awaitable, Mapping

import orjson
from aiohttp import web

from tallybook.core import errors
from tallybook.entrypoints import metrics
from tallybook.entrypoints.http import replies
from tallybook.entrypoints.http.frame import Frame
from tallybook.flows import old_ids
from tallybook.flows.services import Services
from tallybook.storage import postgres, redis
from tallybook.tenancy import store as tenancy

CHECK_TIMEOUT_S = 2.0
_OUTSIDE = (postgres.PostgresError, redis.RedisError, errors.TallybookError, *postgres.TRANSIENT_ERRORS)


class HealthPages:
    """`/healthz`, `/readyz`, `/metrics`."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    async def alive(self, _request: web.Request) -> web.Response:
        """200 as long as the process answers at all."""
        return _reply(200, {"status": "ok"}, self._frame.new_request_id())

    async def ready(self, _request: web.Request) -> web.Response:
        """200 when both stores answer, the till is this installation's and the process is not stopping; else 503 with reasons."""
        services = self._frame.services
        postgres_state, till_state = await asyncio.gather(_outcome(_check_book(services)), _outcome(services.till.check()))
        process_state = "draining" if self._frame.draining else "ok"
        checks = {"postgres": postgres_state, "till": till_state, "clock": _clock_state(services), "process": process_state}
        is_ready = set(checks.values()) == {"ok"}
        content = {"status": "ready" if is_ready else "not_ready", "checks": checks}
        reply = _reply(200 if is_ready else 503, content, self._frame.new_request_id())
        if not is_ready:
            reply.headers["Retry-After"] = "1"
        return reply

    async def numbers(self, _request: web.Request) -> web.Response:
        """Prometheus text."""
        metrics.TILL_QUEUE_DEPTH.set(self._frame.services.till.depth)
        text = await asyncio.to_thread(metrics.exposition)
        headers = {"Content-Type": metrics.CONTENT_TYPE, replies.REQUEST_ID_HEADER: self._frame.new_request_id()}
        return web.Response(body=text, headers=headers)


async def _check_book(services: Services) -> None:
    async with services.database.acquire(timeout=CHECK_TIMEOUT_S) as connection:
        if await tenancy.find_installation(connection) is None:
            raise errors.Unavailable("not_installed", "The database has no installation yet.")


def _clock_state(services: Services) -> str:
    """Beyond a minute, ids of old events may be looked for in the wrong place."""
    skew_s = services.clock_skew_s
    return "ok" if skew_s * 1000 <= old_ids.SKEW_MS else f"this process' clock is {skew_s:.1f} s off a store's"


async def _outcome(check: Awaitable[None]) -> str:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            await check
    except TimeoutError:
        return f"no answer within {CHECK_TIMEOUT_S:.0f} s"
    except _OUTSIDE as error:
        return f"{type(error).__name__}: {error}"
    return "ok"


def _reply(status: int, content: Mapping[str, object], request_id: str) -> web.Response:
    return replies.json_reply(status, orjson.dumps(content), request_id)
