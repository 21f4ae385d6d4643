"""Once a second: is the till still this installation's, how full is it, and how far behind is the book."""

import asyncio
import logging

from tallybook.core import errors
from tallybook.entrypoints import metrics
from tallybook.entrypoints.workers import pause
from tallybook.flows.pressure import Sample
from tallybook.flows.services import Services
from tallybook.storage import redis

_LOG = logging.getLogger(__name__)
_SECOND_S = 1.0


async def watch(services: Services, stop: asyncio.Event) -> None:
    """Look until `stop` is set. What is found is in `services.pressure`, in the till's own refusal, and in the metrics."""
    warned = False
    while not stop.is_set():
        sample = await look(services)
        if sample is not None and not sample.memory_most and not warned:
            _LOG.warning("Redis has no `maxmemory`: it can't be seen when its memory runs out; set it, with policy noeviction")
            warned = True
        await pause.rest(stop, _SECOND_S)


async def look(services: Services) -> Sample | None:
    """Look once; None when Redis says nothing, or is another one."""
    metrics.TILL_QUEUE_DEPTH.set(services.till.depth)
    try:
        await services.till.check()
        memory, written = await services.till.memory(), await services.till.written()
    except (errors.Unavailable, redis.RedisError) as error:
        metrics.TILL_REFUSED.set(isinstance(error, errors.Unavailable) and error.code == "till_unknown")
        _LOG.warning("the till can't be looked at: %s", error)
        return None
    sample = Sample(asyncio.get_running_loop().time(), memory.used, memory.most, written, services.till.booked)
    services.pressure.observe(sample, services.settings.rollup_lag_s_max)
    metrics.TILL_REFUSED.set(services.till.is_refused)
    metrics.TILL_MEMORY.labels("used").set(memory.used)
    metrics.TILL_MEMORY.labels("limit").set(memory.most)
    metrics.USAGE_TURNED_AWAY.set(services.pressure.refuse is not None)
    return sample
