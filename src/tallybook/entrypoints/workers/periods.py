"""The loops that close usage periods when they are due, and turn test clocks. Any number of processes may run them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from tallybook.core import errors
from tallybook.entrypoints.workers import clocks, pause
from tallybook.flows import period, test_clock
from tallybook.flows.services import Services
from tallybook.storage import postgres, redis

_LOG = logging.getLogger(__name__)
_IDLE_S = 0.25
_FAILED_S = 1.0
_LEFTOVERS_S = 5.0
_MISTRUSTED_S = 10.0
_OUTSIDE = (*postgres.SERVER_ERRORS, redis.RedisError, errors.Unavailable)


async def run(services: Services, stop: asyncio.Event) -> None:
    """Work until `stop` is set; what is under way then is finished first. Stores that are away are waited for.

    A long run of a sandbox's clock must not keep real periods waiting, nor a period that can't be closed the pools of those that
    were, so each duty has a loop of its own.
    """
    async with asyncio.TaskGroup() as loops:
        loops.create_task(_repeat(services, stop, close_periods))
        loops.create_task(_repeat(services, stop, drop_leftovers))
        loops.create_task(_repeat(services, stop, turn_clocks))


async def _repeat(services: Services, stop: asyncio.Event, step: Callable[[Services], Awaitable[float]]) -> None:
    while not stop.is_set():
        try:
            rest_s = await step(services)
        except _OUTSIDE as error:
            _LOG.warning("%s waits: %s: %s", step.__name__, type(error).__name__, error)
            rest_s = _FAILED_S
        await pause.rest(stop, rest_s)


async def close_periods(services: Services) -> float:
    """Close what is due, if that is so by the database's clock too. Returns how many seconds to rest."""
    due = await period.due(services)
    if due and not await clocks.is_trusted(services):
        return _MISTRUSTED_S
    results = await period.close(services, due)
    closed = [result for result in results if isinstance(result, period.Settled)]
    if closed:
        _LOG.info("periods: closed %d, invoiced %d", len(closed), sum(result.invoice is not None for result in closed))
    if len(closed) < len(results):
        why = sorted({str(result.error) for result in results if isinstance(result, period.Unsettled)})
        _LOG.warning("periods: %d could not be closed yet: %s", len(results) - len(closed), " ".join(why))
        return _FAILED_S
    return 0.0 if len(results) == period.BATCH else _IDLE_S


async def drop_leftovers(services: Services) -> float:
    """Drop the pools of periods that a crash has left between closing and that. Returns how many seconds to rest."""
    return 0.0 if await period.expire_leftovers(services) == period.BATCH else _LEFTOVERS_S


async def turn_clocks(services: Services) -> float:
    """Carry runs of test clocks on. Returns how many seconds to rest."""
    return 0.0 if await test_clock.carry_on(services) else _IDLE_S
