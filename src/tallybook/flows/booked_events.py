"""One usage event by its public id, from the book; an event whose answer has just gone out may not be there yet, and is waited for."""

import asyncio
from collections.abc import Mapping

from tallybook.core import errors, ids
from tallybook.core.tenant import Tenant
from tallybook.flows.services import Services
from tallybook.rollup import events, store
from tallybook.rollup.events import Booked
from tallybook.storage.postgres import Connection

WAIT_S = 2.0
_POLL_S = 0.02


async def find(services: Services, connection: Connection, tenant: Tenant, public_id: str) -> Booked:
    """The tenant's usage event. Raises NotFound (`usage_event_not_found`), or Unavailable while the book is too far behind to say."""
    digest = ids.event_digest_of(public_id)
    if digest is not None:
        found = await events.find(connection, tenant, digest)
        if found is None:
            await _catch_up(services, connection)
            found = await events.find(connection, tenant, digest)
        if found is not None:
            return found
    raise errors.NotFound("usage_event_not_found", f"There is no usage event {public_id}.", param="id")


async def _catch_up(services: Services, connection: Connection) -> None:
    """Wait until the book has read all that the till has logged by now."""
    goals = dict(enumerate(await services.till.sequences()))
    deadline = asyncio.get_running_loop().time() + WAIT_S
    while _is_behind(goals, await store.offsets(connection, goals)):
        if asyncio.get_running_loop().time() > deadline:
            raise errors.Unavailable("book_behind", "The database has not read the log to its end yet; send the same again.")
        await asyncio.sleep(_POLL_S)


def _is_behind(goals: Mapping[int, int], read: Mapping[int, int]) -> bool:
    return any(read.get(partition, 0) < goal for partition, goal in goals.items())
