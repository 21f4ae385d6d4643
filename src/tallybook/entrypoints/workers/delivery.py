"""The loop that tells the till of changed terms which a crash, or a till that was away, left behind."""

import asyncio
import logging

from tallybook.core import errors
from tallybook.entrypoints.workers import pause
from tallybook.flows import terms
from tallybook.storage import postgres, redis

_LOG = logging.getLogger(__name__)
_EVERY_S = 1.0
_OUTSIDE = (*postgres.SERVER_ERRORS, redis.RedisError, errors.Unavailable)


async def run(services: terms.Services, stop: asyncio.Event) -> None:
    """Look once a second until `stop` is set. Any number of processes may run it: telling the till twice changes nothing."""
    while not stop.is_set():
        try:
            told = await terms.publish_stragglers(services)
        except _OUTSIDE as error:
            _LOG.warning("terms wait: %s: %s", type(error).__name__, error)
        else:
            if told:
                _LOG.info("terms: told the till %d changes that were left over", told)
        await pause.rest(stop, _EVERY_S)
