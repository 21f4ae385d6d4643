"""One sync of the catalog, from fetching the list to publishing it. Whatever goes wrong, the last prices stay in force."""

import contextlib
import hashlib
from collections.abc import AsyncGenerator, Collection
from datetime import datetime, timedelta

from tallybook.ai_models import actions, fetch, gateway, locks
from tallybook.ai_models.actions import Announce, Attempt
from tallybook.ai_models.fetch import FetchError
from tallybook.ai_models.gateway import UnreadableListError
from tallybook.ai_models.model import Plan, SyncReport, SyncStatus
from tallybook.ai_models.store import StoredSync
from tallybook.core.clock import Clock
from tallybook.storage import postgres
from tallybook.storage.postgres import Pool

DAILY = timedelta(hours=24)
RETRY = timedelta(minutes=30)
_REASON_MAX = 500


async def sync_if_due(database: Pool, source: str, clock: Clock, *, announce: Announce | None = None) -> SyncReport | None:
    """Sync when the last good one is a day old and the last attempt half an hour; None when it is not time. Call it often.

    Any number of processes may: one leads, and who led before it decides whether there is anything left to do.
    """
    if not await _is_due(database, clock()):
        return None
    async with _leading(database) as leads:
        if not leads or not await _is_due(database, clock()):
            return None
        return await _sync(database, source, clock, (), announce)


async def _is_due(database: Pool, now: datetime) -> bool:
    async with database.acquire() as connection:
        good = await actions.last_good_sync(connection)
        latest = [each for each in await actions.last_syncs(connection, 1) if each.source != actions.PACKAGED]
    if good is not None and now < good.started_at + DAILY:
        return False
    return not latest or now >= latest[0].started_at + RETRY


async def sync_once(
    database: Pool, source: str, clock: Clock, *, accepted: Collection[str] = (), announce: Announce | None = None
) -> SyncReport:
    """Fetch a list and publish what is safe of it; one process at a time, the others get BUSY.

    `accepted` names models whose price jump was looked at. Failures are recorded and reported, not raised; only the database's
    own errors are.
    """
    async with _leading(database) as leads:
        if not leads:
            return SyncReport(SyncStatus.BUSY, source)
        return await _sync(database, source, clock, accepted, announce)


@contextlib.asynccontextmanager
async def _leading(database: Pool) -> AsyncGenerator[bool]:
    """Whether this process is the one that syncs, until the block ends or its connection does."""
    async with database.acquire() as holder:
        if not await locks.try_sync_lock(holder):
            yield False
            return
        try:
            yield True
        finally:
            await locks.release_sync_lock(holder)


async def note_failure(database: Pool, source: str, reason: str, now: datetime) -> SyncReport:
    """Record a sync that broke off, so that it is seen and tried again half an hour later."""
    return await _note(database, SyncReport(SyncStatus.FAILED, source, error=reason[:_REASON_MAX]), now)


async def _sync(database: Pool, source: str, clock: Clock, accepted: Collection[str], announce: Announce | None) -> SyncReport:
    started_at = clock()
    async with database.acquire() as connection:
        last = await actions.last_good_sync(connection)
    # A price jump that is accepted now may stand in the very list that was seen before.
    etag = last.etag if last is not None and last.source == source and not accepted else None
    try:
        fetched = await fetch.fetch(source, etag)
    except FetchError as error:
        return await _note(database, SyncReport(SyncStatus.FAILED, source, error=str(error)), started_at)
    if fetched.body is None:
        return await _note(database, _still(last, source), started_at, etag)
    attempt = Attempt(source, started_at, hashlib.sha256(fetched.body).hexdigest(), fetched.etag)
    try:
        listed = gateway.parse(fetched.body)
    except UnreadableListError as error:
        return await _note(database, SyncReport(SyncStatus.FAILED, source, digest=attempt.digest, error=str(error)), started_at)
    async with postgres.transaction(database) as connection:
        return await actions.publish(connection, listed, attempt, clock, accepted=accepted, announce=announce)


def _still(last: StoredSync | None, source: str) -> SyncReport:
    """The list is the one of the last good sync, with the same rows in quarantine."""
    if last is None:
        return SyncReport(SyncStatus.UNCHANGED, source)
    plan = Plan(quarantined=last.quarantined, repaired=last.repaired)
    return SyncReport(SyncStatus.UNCHANGED, source, plan, last.models, last.priced, last.digest)


async def _note(database: Pool, report: SyncReport, started_at: datetime, etag: str | None = None) -> SyncReport:
    async with postgres.transaction(database) as connection:
        await actions.note_sync(connection, report, started_at, etag)
    return report
