"""What could not be applied to the book: looked at, applied again, or given up. Nothing here touches offsets or the till.

The till has taken the effect of every such item; the book has it too where `booked`, and lacks only the event.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from tallybook.core import errors
from tallybook.rollup import actions, aggregate, decoding, store
from tallybook.rollup.model import Effects, Quarantined
from tallybook.storage import postgres, queries
from tallybook.storage.postgres import Pool, Querying, Row

_SQL = queries.load("tallybook.rollup")
_LOOKED_INTO_MAX = 200
"""Of more items than these nobody asks whose they are: they are everybody's."""


@dataclass(frozen=True, slots=True)
class Item:
    """A row of quarantine. `dropped_because` is why an operator gave it up."""

    id: int
    what: Quarantined
    created_at: datetime
    dropped_at: datetime | None
    dropped_because: str | None


@dataclass(frozen=True, slots=True)
class Lacking:
    """Whose pools lack something that is in quarantine: these customers', and those of all customers of these partitions."""

    customers: frozenset[int]
    partitions: frozenset[int]


async def every(connection: Querying, *, with_dropped: bool = False) -> list[Item]:
    """What is in quarantine, oldest first."""
    return [_item(row) for row in await connection.fetch(_SQL["quarantined"], with_dropped)]


async def lacking(connection: Querying, partitions: Iterable[int]) -> Lacking:
    """Whose pools in these partitions are not all that the till made of them, because something is neither applied nor dropped."""
    asked = sorted(set(partitions))
    rows = await connection.fetch(_SQL["unbooked"], asked, _LOOKED_INTO_MAX + 1)
    if len(rows) > _LOOKED_INTO_MAX:
        return Lacking(frozenset(), frozenset(asked))
    found = await asyncio.to_thread(lambda: [(row["partition"], decoding.customers_of(_what(row))) for row in rows])
    return Lacking(
        frozenset(customer for _, customers in found for customer in customers or ()),
        frozenset(partition for partition, customers in found if customers is None),
    )


async def retry(database: Pool, item_id: int, now: datetime) -> Effects:
    """Apply an item again and take it out, in one transaction: once, however often and by however many this is asked.

    What of an entry still can't be applied stays, as items of its own. Raises NotFound for an item that is not there, Conflict
    (`still_not_applicable`) when nothing of it can be applied, and PostgresError when Postgres refuses it.
    """
    item = next((one for one in await every(database) if one.id == item_id), None)
    if item is None:
        raise _not_found(item_id)
    effects = await asyncio.to_thread(aggregate.of_item, item.what, now)
    if [(again.position, again.booked) for again in effects.quarantined] == [(item.what.position, item.what.booked)]:
        raise errors.Conflict("still_not_applicable", f"Item {item_id} still can't be applied: {effects.quarantined[0].reason}")
    await actions.make_months(database, effects.months)
    async with postgres.transaction(database) as connection:
        if await connection.fetchval(_SQL["take_from_quarantine"], item_id) is None:
            raise _not_found(item_id)
        await store.write_again(connection, effects)
    return effects


async def drop(database: Pool, item_id: int, because: str, now: datetime) -> None:
    """Give an item up. Its row stays, with the reason; so does an effect that the pools have. Raises NotFound."""
    if await database.fetchval(_SQL["drop_from_quarantine"], item_id, now, because) is None:
        raise _not_found(item_id)


def _item(row: Row) -> Item:
    return Item(row["id"], _what(row), row["created_at"], row["dropped_at"], row["dropped_because"])


def _what(row: Row) -> Quarantined:
    return Quarantined(
        row["partition"], row["seq"], row["position"], row["reason"], row["payload"], row["accepted_at"], row["booked"]
    )


def _not_found(item_id: int) -> errors.NotFound:
    return errors.NotFound(
        "quarantine_item_not_found", f"There is no item {item_id} in quarantine; it was applied or dropped before."
    )
