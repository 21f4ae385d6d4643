"""The loop that closes usage periods when they are due and turns test clocks. Any number of processes may run it."""

import asyncio
import logging

from tallybook.core import errors
from tallybook.entrypoints.workers import pause
from tallybook.flows import period, test_clock
from tallybook.flows.services import Services
from tallybook.storage import postgres, redis

_LOG = logging.getLogger(__name__)
_IDLE_S = 0.25
_FAILED_S = 1.0
_STUCK_S = 5.0
_OUTSIDE = (*postgres.TRANSIENT_ERRORS, redis.RedisError, errors.Unavailable)


async def run(services: Services, stop: asyncio.Event) -> None:
    """Work until `stop` is set; what is under way then is finished first. Stores that are away are waited for."""
    while not stop.is_set():
        try:
            rest_s = await step(services)
        except _OUTSIDE as error:
            _LOG.warning("periods wait: %s: %s", type(error).__name__, error)
            rest_s = _FAILED_S
        await pause.rest(stop, rest_s)


async def step(services: Services) -> float:
    """Close what is due, drop left-over pools, carry test clocks on. Returns how many seconds to rest."""
    results = await period.close_due(services)
    await period.expire_leftovers(services)
    await test_clock.carry_on(services)
    closed = [result for result in results if isinstance(result, period.Settled)]
    if closed:
        _LOG.info("periods: closed %d, invoiced %d", len(closed), sum(result.invoice is not None for result in closed))
    if len(closed) < len(results):
        return _STUCK_S
    return 0.0 if len(results) == period.BATCH else _IDLE_S
