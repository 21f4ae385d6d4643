"""The loop that compares this process' clock with the stores'. Which period pays and whether an id is remembered hang on them.

Above a second it is told; above `flows.old_ids.SKEW_MS` the process is not ready, because then the second look for old ids could miss,
and it does nothing that can't be undone by what its clock says: it closes no periods, forgets nothing and drops no months.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime

from tallybook.core.clock import Clock
from tallybook.entrypoints import metrics
from tallybook.entrypoints.workers import pause
from tallybook.flows import old_ids
from tallybook.flows.services import Services
from tallybook.storage import postgres, redis

_LOG = logging.getLogger(__name__)
TOLD_S = 1.0
_EVERY_S = 10.0
_OUTSIDE = (redis.RedisError, *postgres.SERVER_ERRORS)

Ask = Callable[[], Awaitable[datetime]]


async def watch(services: Services, stop: asyncio.Event, *, postgres_too: bool) -> None:
    """Compare every few seconds until `stop` is set; a store that is away keeps the last word about it."""
    asked: dict[str, Ask] = {"redis": lambda: redis.server_time(services.redis)}
    if postgres_too:
        asked["postgres"] = lambda: postgres.server_time(services.database)
    found: dict[str, float] = {}
    while not stop.is_set():
        await compare(services, asked, found)
        await pause.rest(stop, _EVERY_S)


async def compare(services: Services, asked: Mapping[str, Ask], found: dict[str, float]) -> None:
    """Ask each store once, note how far apart the clocks are at least, and tell of it above a second."""
    for store, ask in asked.items():
        try:
            found[store] = await skew_s(ask, services.clock)
        except _OUTSIDE as error:
            _LOG.warning("clocks: %s did not say what time it is: %s", store, type(error).__name__)
            continue
        metrics.CLOCK_SKEW_SECONDS.labels(store).set(abs(found[store]))
        if abs(found[store]) > TOLD_S:
            _LOG.error("clocks: this process is %.3f s off the clock of %s; check the time service of both", found[store], store)
    services.clock_skew_s = max((abs(skew) for skew in found.values()), default=0.0)


async def is_trusted(services: Services) -> bool:
    """Whether this process' clock, compared with Postgres' now and with Redis' when it was last, is good enough to bill and drop by.

    Says so when it is not. Raises what a Postgres that is away raises.
    """
    now_s = await skew_s(lambda: postgres.server_time(services.database), services.clock)
    off_s = max(abs(now_s), services.clock_skew_s)
    if off_s * 1000 <= old_ids.SKEW_MS:
        return True
    _LOG.critical("clocks: this process is %.1f s off a store's clock; it bills and drops nothing until that is mended", off_s)
    return False


async def skew_s(ask: Ask, clock: Clock) -> float:
    """How far this clock is ahead of a store's (below zero: behind), less what the way there and back can explain."""
    before = clock()
    told = await ask()
    after = clock()
    if told < before:
        return (before - told).total_seconds()
    return min(0.0, (after - told).total_seconds())
