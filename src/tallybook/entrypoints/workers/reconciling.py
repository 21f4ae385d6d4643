"""The loop that reconciles all the time, gently. Any number of processes may run it; one at a time does."""

import asyncio
import logging

from tallybook.core import clock, errors
from tallybook.entrypoints import metrics
from tallybook.entrypoints.workers import pause
from tallybook.flows import freezing, reconcile_round
from tallybook.flows.services import Services
from tallybook.storage import locks, postgres, redis

_LOG = logging.getLogger(__name__)
LOCK = 0x7A11_0C4E
_NOT_LEADING_S = 15.0
_FAILED_S = 5.0
_SHARE = 9
"""Rests are this many times as long as what they follow, so that reconciling takes a tenth of a connection's time at most."""
_REST_S_MIN = 0.02
_REST_S_MAX = 5.0
_OUTSIDE = (*postgres.TRANSIENT_ERRORS, redis.RedisError, errors.Unavailable)


async def run(services: Services, stop: asyncio.Event) -> None:
    """Go round until `stop` is set; not at all where `reconcile_every_s` is 0."""
    while services.settings.reconcile_every_s and not stop.is_set():
        try:
            async with locks.alone(services.settings.postgres_url, LOCK, application_name="tallybook reconcile") as leads:
                if leads:
                    await go_round(services, stop)
            await pause.rest(stop, services.settings.reconcile_every_s if leads else _NOT_LEADING_S)
        except _OUTSIDE as error:
            _LOG.warning("reconcile waits: %s: %s", type(error).__name__, error)
            await pause.rest(stop, _FAILED_S)
        except Exception:  # noqa: BLE001 - must not stop the other loops of this process; a round is only read again
            _LOG.exception("reconcile: a round broke off")
            await pause.rest(stop, _FAILED_S)


async def go_round(services: Services, stop: asyncio.Event) -> reconcile_round.Outcome:
    """One round, its parts with rests in between, and what it found as metrics."""
    loop = asyncio.get_running_loop()
    began = worked_since = loop.time()

    async def rest() -> bool:
        nonlocal worked_since
        worked_s = loop.time() - worked_since
        await pause.rest(stop, min(_REST_S_MAX, max(_REST_S_MIN, worked_s * _SHARE)))
        worked_since = loop.time()
        return not stop.is_set()

    outcome = await reconcile_round.go_round(services, rest)
    if outcome.finished:
        metrics.RECONCILE_PROBLEMS.set(outcome.problems)
        metrics.RECONCILED_AT.set(clock.to_ms(services.clock()) / 1000)
        _LOG.info("reconcile: %d customers in %.1f s, %d differ", outcome.customers, loop.time() - began, outcome.problems)
    metrics.POOLS_FROZEN.set(len(await freezing.keep(services)))
    return outcome
