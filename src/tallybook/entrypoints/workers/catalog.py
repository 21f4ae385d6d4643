"""The loop that syncs the AI model catalog once a day. Any number of processes may run it; one of them does the work.

A sync that failed or looked wrong changes no price. It is told in the log, in `/metrics` (`books.show`), by `tallybook models
status` and by `GET /ai-models/sync`, and tried again half an hour later.
"""

import asyncio
import logging

from tallybook.ai_models import sync
from tallybook.ai_models.model import SyncReport, SyncStatus
from tallybook.entrypoints.workers import pause
from tallybook.flows import price_changes
from tallybook.flows.services import Services
from tallybook.storage import postgres

_LOG = logging.getLogger(__name__)
_EVERY_S = 20.0
_GOOD = (SyncStatus.PUBLISHED, SyncStatus.UNCHANGED)


async def run(services: Services, stop: asyncio.Event) -> None:
    """Look every few seconds whether a sync is due, until `stop` is set; nothing to do where no source is set."""
    while services.settings.catalog_url and not stop.is_set():
        try:
            report = await step(services)
        except postgres.SERVER_ERRORS as error:
            _LOG.warning("catalog waits: %s: %s", type(error).__name__, error)
        else:
            if report is not None:
                _tell(report)
        await pause.rest(stop, _EVERY_S)


async def step(services: Services) -> SyncReport | None:
    """Sync if it is time; None when it is not. A bug on the way is on record as a failed sync, and no price has moved."""
    source = services.settings.catalog_url
    try:
        return await sync.sync_if_due(services.database, source, services.clock, announce=price_changes.announce)
    except postgres.TRANSIENT_ERRORS:
        raise
    except Exception as error:  # noqa: BLE001 - must not stop the other loops of this process, and is on record
        _LOG.exception("catalog: the sync broke off")
        return await sync.note_failure(services.database, source, f"{type(error).__name__}: {error}", services.clock())


def _tell(report: SyncReport) -> None:
    counts = {kind.value: number for kind, number in report.plan.counts.items() if number}
    quarantined = len(report.plan.quarantined)
    level = logging.ERROR if report.status not in _GOOD else logging.WARNING if quarantined else logging.INFO
    what = report.error or f"{report.models} models, {report.priced} priced, changes {counts}, {quarantined} in quarantine"
    _LOG.log(level, "catalog sync %s: %s", report.status.value, what)
