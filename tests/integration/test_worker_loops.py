"""The loops of a process while Postgres answers with errors that are no outage: they say so, wait and go on; none ends the process."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from tallybook.entrypoints.workers import books, catalog, clocks, delivery, periods, repeats, upkeep
from tallybook.flows.services import Services
from tallybook.storage import postgres
from tallybook.storage.redis import Redis
from tests.support import api, waiting

Loop = Callable[[Services, asyncio.Event], Awaitable[None]]


async def watch_clocks(services: Services, stop: asyncio.Event) -> None:
    await clocks.watch(services, stop, postgres_too=True)


_LOOPS: dict[str, Loop] = {
    "price book": books.follow,
    "catalog": catalog.run,
    "terms": delivery.run,
    "close_periods": periods.run,
    "repeats": repeats.run,
    "upkeep": upkeep.keep_tidy,
    "clocks": watch_clocks,
}


class Refusing:
    """A pool whose server has something in the way."""

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        """Any call fails."""
        return self._refuse

    def _refuse(self, *_: object, **__: object) -> Any:  # noqa: ANN401 - never returns
        message = "canceling statement due to lock timeout"
        raise postgres.LockNotAvailableError(message)


@pytest.mark.parametrize("name", _LOOPS)
async def test_a_loop_waits_through_what_the_server_can_not_do_now(
    database: postgres.Pool, redis_client: Redis, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """Fails when it ends: with it go all other loops of its process, API or worker."""
    await redis_client.execute_command("FLUSHALL")
    services = await api.make_services(database, redis_client)
    services.database = cast("postgres.Pool", Refusing())
    stop = asyncio.Event()
    task = asyncio.ensure_future(_LOOPS[name](services, stop))

    async def has_told() -> bool:
        told = [record.getMessage() for record in caplog.records]
        return task.done() or any(text.startswith(name) and "LockNotAvailableError" in text for text in told)

    await waiting.until(has_told)
    assert not task.done()
    stop.set()
    await task
