"""One usage event by its public id, from the book. What has just been answered may not be there yet, and is waited for."""

import asyncio
from collections.abc import Collection, Mapping

from tallybook.core import errors, ids
from tallybook.core.tenant import Tenant
from tallybook.flows import old_ids
from tallybook.flows.services import Services
from tallybook.rollup import events, retention, store
from tallybook.rollup.events import Booked
from tallybook.storage import postgres
from tallybook.storage.postgres import Connection

WAIT_S = 2.0
_POLL_S = 0.02
_LOOK_AGAIN_S = 0.05
_ACQUIRE_S = 2.0


async def find(services: Services, connection: Connection, tenant: Tenant, public_id: str) -> Booked:
    """The tenant's usage event. Raises NotFound (`usage_event_not_found`), or Unavailable while the book is too far behind to say."""
    digest = ids.event_digest_of(public_id)
    if digest is not None:
        found = await events.find(connection, tenant, digest)
        if found is None:
            await _until_it_is_known(services, connection)
            found = await events.find(connection, tenant, digest)
        if found is not None:
            return found
    since = await retention.usage_start(connection, tenant.id)
    why = "" if since is None else f" {retention.why_unknown(since)}"
    raise errors.NotFound("usage_event_not_found", f"There is no usage event {public_id}.{why}", param="id")


async def originals(services: Services, digests: Collection[bytes]) -> Mapping[bytes, Booked]:
    """By digest, events that the till has taken, as far as the book comes to know them soon; none while it does not answer."""
    since = services.clock() - old_ids.retention(services.settings)
    deadline = asyncio.get_running_loop().time() + WAIT_S
    found: Mapping[bytes, Booked] = {}
    while len(found) < len(digests):
        try:
            async with services.database.acquire(timeout=_ACQUIRE_S) as connection:
                found = await events.originals(connection, digests, since)
        except postgres.TRANSIENT_ERRORS:
            break
        if asyncio.get_running_loop().time() > deadline:
            break
        if len(found) < len(digests):
            await asyncio.sleep(_LOOK_AGAIN_S)
    return found


def not_read_yet() -> errors.Unavailable:
    """What is answered to a repeat that the till knows and the book does not yet."""
    return errors.Unavailable("book_behind", "The event is recorded, and the database has not read it yet. Send the same again.")


async def void_of(services: Services, connection: Connection, event: Booked) -> Booked | None:
    """What took an event back, if anything did by now; a book that is seconds behind is not waited for any longer."""
    view = await services.till.read(event.record.tenant_id, event.record.customer_id)
    await _catch_up(connection, {event.partition: view.sequence})
    return await events.void_of(connection, event)


async def _until_it_is_known(services: Services, connection: Connection) -> None:
    if not await _catch_up(connection, dict(enumerate(await services.till.sequences()))):
        raise errors.Unavailable("book_behind", "The database has not read the log to its end yet; send the same again.")


async def _catch_up(connection: Connection, goals: Mapping[int, int]) -> bool:
    """Wait until the book has read the log that far. False when it takes too long."""
    deadline = asyncio.get_running_loop().time() + WAIT_S
    while True:
        read = await store.offsets(connection, goals)
        if all(read.get(partition, 0) >= goal for partition, goal in goals.items()):
            return True
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(_POLL_S)
