"""Small duties at the side: what is remembered only for a time is forgotten, and the coming month has its place."""

import asyncio
import logging
from collections.abc import Coroutine

from tallybook.alerts import actions as alerts
from tallybook.entrypoints.workers import clocks, pause
from tallybook.flows.services import Services
from tallybook.rollup import actions as rollup
from tallybook.rollup import retention
from tallybook.storage import postgres, redis
from tallybook.tenancy import actions as tenancy
from tallybook.webhooks import actions as webhooks

_LOG = logging.getLogger(__name__)
_HOUR_S = 3600.0


async def keep_tidy(services: Services, stop: asyncio.Event) -> None:
    """Once an hour: free old dedupe generations in the till and what the book keeps only for a time; make the coming month."""
    while not stop.is_set():
        for duty in (services.till.forget, lambda: tidy_book(services, stop)):
            try:
                await duty()
            except (*postgres.SERVER_ERRORS, redis.RedisError) as error:
                _LOG.warning("upkeep waits: %s: %s", type(error).__name__, error)
        await pause.rest(stop, _HOUR_S)


async def tidy_book(services: Services, stop: asyncio.Event) -> None:
    """Make the coming month, forget what is old, and drop old months; nothing of it by a clock that is off."""
    if not await clocks.is_trusted(services):
        return
    await rollup.make_coming_months(services.database, services.clock())
    await forget_in_book(services, stop)
    await _unless(stop, retention.drop_old(services.database, services.clock(), services.settings.raw_events_months))


async def _unless(stop: asyncio.Event, work: Coroutine[None, None, object]) -> None:
    """Do it until it is done, or broken off because `stop` is set: summing a month and waiting for its readers take long."""
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        working.cancel()
        await asyncio.wait((working,))
    if not working.cancelled():
        working.result()


async def forget_in_book(services: Services, stop: asyncio.Event) -> None:
    """Old responses, changes of terms and webhooks, in batches of their own transaction until none is left."""
    for forget in (
        tenancy.forget_responses,
        tenancy.forget_bumps,
        tenancy.forget_announcements,
        webhooks.forget_deliveries,
        alerts.forget,
    ):
        async with services.database.acquire() as connection:
            while not stop.is_set() and await forget(connection, services.clock()):
                pass
