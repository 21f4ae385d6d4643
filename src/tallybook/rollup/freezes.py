"""Which customers' pools are frozen, as the book knows it. The till refuses them; this is what a till made anew is told."""

from dataclasses import dataclass
from datetime import datetime

from tallybook.storage import queries
from tallybook.storage.postgres import Querying

_SQL = queries.load("tallybook.rollup")


@dataclass(frozen=True, slots=True)
class Frozen:
    """A customer that is charged nothing; the reason names the pool."""

    tenant_id: int
    customer_id: int
    reason: str
    frozen_at: datetime


async def note(connection: Querying, tenant_id: int, customer_id: int, reason: str) -> None:
    """A customer was frozen; one that is already keeps its first reason."""
    await connection.execute(_SQL["freeze"], customer_id, tenant_id, reason)


async def forget(connection: Querying, customer_id: int) -> None:
    """A customer was thawed."""
    await connection.execute(_SQL["thaw"], customer_id)


async def hold(connection: Querying, customer_id: int) -> bool:
    """Whether the customer is still frozen; it stays so until the transaction ends."""
    return await connection.fetchval(_SQL["hold_frozen"], customer_id) is not None


async def every(connection: Querying) -> list[Frozen]:
    """Those that are frozen, the longest first."""
    rows = await connection.fetch(_SQL["frozen"])
    return [Frozen(row["tenant_id"], row["customer_id"], row["reason"], row["frozen_at"]) for row in rows]
