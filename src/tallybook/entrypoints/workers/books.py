"""Keeps a process's price book current: a newer one in Postgres replaces the one at hand, whole, between two events."""

import asyncio
import logging

from tallybook.ai_models import actions as ai_models
from tallybook.entrypoints.workers import pause
from tallybook.flows.services import Services
from tallybook.storage import postgres

_LOG = logging.getLogger(__name__)
_EVERY_S = 5.0


async def follow(services: Services, stop: asyncio.Event) -> None:
    """Look for a newer book every few seconds until `stop` is set; while Postgres is away the one at hand stays in use."""
    while not stop.is_set():
        await pause.rest(stop, _EVERY_S)
        try:
            await _refresh(services)
        except postgres.TRANSIENT_ERRORS as error:
            _LOG.warning("price book waits: %s: %s", type(error).__name__, error)


async def _refresh(services: Services) -> None:
    async with services.database.acquire() as connection:
        if await ai_models.current_version(connection) == services.book.version:
            return
        services.book = await ai_models.load_book(connection)
    _LOG.info("price book: version %d with %d models", services.book.version, len(services.book))
