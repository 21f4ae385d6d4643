"""The loop that has what was counted twice looked for, once a day. Any number of processes may run it; one at a time searches."""

import asyncio
import logging

from tallybook.core import errors
from tallybook.entrypoints import metrics
from tallybook.entrypoints.workers import pause
from tallybook.flows import repeats
from tallybook.flows.services import Services
from tallybook.storage import postgres, redis

_LOG = logging.getLogger(__name__)
_LOOK_EVERY_S = 600.0
_FAILED_S = 60.0
_OUTSIDE = (*postgres.SERVER_ERRORS, redis.RedisError, errors.Unavailable, errors.RateLimited)


async def run(services: Services, stop: asyncio.Event) -> None:
    """Work until `stop` is set. A search that broke off is begun anew: what it took back stays taken back."""
    while not stop.is_set():
        try:
            await step(services)
            rest_s = _LOOK_EVERY_S
        except _OUTSIDE as error:
            _LOG.warning("repeats wait: %s: %s", type(error).__name__, error)
            rest_s = _FAILED_S
        await pause.rest(stop, rest_s)


async def step(services: Services) -> None:
    """Search if it is time to."""
    swept = await repeats.sweep_if_due(services)
    if swept is not None:
        metrics.REPEATS_STUCK.set(len(swept.stuck))
        _LOG.info("repeats: searched; took back %d events of %d customers", swept.voided, swept.customers)
