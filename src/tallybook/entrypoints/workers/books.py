"""Keeps a process's price book current, and shows how the catalog stands: any process can answer a scrape for it."""

import asyncio
import logging
from datetime import datetime

from tallybook.ai_models import actions as ai_models
from tallybook.ai_models.actions import CatalogStatus
from tallybook.ai_models.model import ChangeKind, SyncStatus
from tallybook.entrypoints import metrics
from tallybook.entrypoints.workers import pause
from tallybook.flows import current_book
from tallybook.flows.services import Services
from tallybook.storage import postgres

_LOG = logging.getLogger(__name__)
_EVERY_S = 1.0
"""A fraction of `ai_models.actions.LEAD`, so that a price is known everywhere when it comes into force."""
_SHOW_EVERY = 10
_RECORDED = tuple(status for status in SyncStatus if status is not SyncStatus.BUSY)


async def follow(services: Services, stop: asyncio.Event) -> None:
    """Look for a newer book every second until `stop` is set; while Postgres is away the one at hand stays in use."""
    looks = 0
    while not stop.is_set():
        try:
            if looks % _SHOW_EVERY == 0:
                await show(services)
            if await current_book.refresh(services):
                _LOG.info("price book: version %d with %d models", services.book.version, len(services.book))
        except postgres.SERVER_ERRORS as error:
            _LOG.warning("price book waits: %s: %s", type(error).__name__, error)
        looks += 1
        await pause.rest(stop, _EVERY_S)


async def show(services: Services) -> None:
    """Set the catalog's metrics from what the book says."""
    async with postgres.snapshot(services.database) as connection:
        status = await ai_models.catalog_status(connection)
    _set_metrics(status, services.clock())


def _set_metrics(status: CatalogStatus, now: datetime) -> None:
    metrics.CATALOG_VERSION.set(status.version)
    age_s = float("inf") if status.good is None else (now - status.good.started_at).total_seconds()
    metrics.CATALOG_SYNC_AGE_SECONDS.set(age_s)
    last = status.last
    for each in _RECORDED:
        metrics.CATALOG_SYNC_STATUS.labels(each.value).set(last is not None and last.status is each)
    for kind in ChangeKind:
        metrics.CATALOG_CHANGES.labels(kind.value).set(0 if last is None else last.changes.get(kind.value, 0))
    read = status.good if last is None or last.status is SyncStatus.FAILED else last
    if read is not None:
        metrics.CATALOG_MODELS.labels("priced").set(read.priced)
        metrics.CATALOG_MODELS.labels("unpriced").set(read.models - read.priced)
        metrics.CATALOG_QUARANTINED.set(len(read.quarantined))
