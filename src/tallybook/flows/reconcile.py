"""Conservation, to the unit, while traffic flows: the book against itself, the till against the book, invoices against pools.

Each part is exact at one moment of its own: the book's sums are read in one snapshot; the till is read together with its log
sequence, and compared with the book's snapshot plus the log entries in between. A pool that differs is frozen and told loudly.
Nothing is mended.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from tallybook.flows import freezing, reconcile_identities, reconcile_till
from tallybook.rollup import sums
from tallybook.rollup.sums import Customers, PoolDifference, Sum
from tallybook.storage import postgres
from tallybook.storage.postgres import Pool
from tallybook.storage.redis import Redis

_LOG = logging.getLogger(__name__)

Freeze = Callable[[int, int, str], Awaitable[None]]
"""Stops a customer's pools: tenant, customer, reason."""


@dataclass(frozen=True, slots=True)
class Report:
    """Every sum, and each pool that differs. `frozen` are the customers that were frozen for it."""

    sums: Sequence[Sum]
    differences: Sequence[PoolDifference]
    frozen: Sequence[int] = ()

    @property
    def is_clean(self) -> bool:
        """Whether everything agrees."""
        return not self.differences and all(one.is_equal for one in self.sums)


async def reconcile(
    database: Pool, client: Redis, partitions: int, freeze: Freeze | None = None, hot_window_s: int | None = None
) -> Report:
    """Compare everything with everything. With `freeze`, customers with a differing pool take no more charges.

    What the till remembers is compared when it is said how long it does.

    Raises what Postgres and Redis raise; what could not be compared is then not known to be equal.
    """
    book_sums, book_differences = await _book(database)
    till_sums, till_differences = await reconcile_till.compare(database, client, partitions)
    differences = [*book_differences, *till_differences]
    for difference in differences:
        _LOG.critical("pool differs: %s", difference)
    frozen = await _freeze(differences, freeze) if freeze is not None else []
    memory = [] if hot_window_s is None else [await reconcile_identities.compare(database, client, partitions, hot_window_s)]
    return Report([*book_sums, *till_sums, *memory], differences, frozen)


async def customer(database: Pool, client: Redis, partitions: int, tenant_id: int, customer_id: int) -> Report:
    """Compare everything there is of one customer. Freezes nothing."""
    of = Customers(customer_id, customer_id)
    async with postgres.snapshot(database) as connection:
        events = await sums.events_and_hours(connection, of)
        pools, differences = await sums.pools(connection, of)
    chunk = reconcile_till.chunk_of(tenant_id, customer_id, partitions)
    of_till = await reconcile_till.compare_chunk(database, client, chunk)
    lost = reconcile_till.stopped([] if of_till is not None else [chunk])
    return Report([*events, *pools, lost], [*differences, *(of_till or [])])


async def _book(database: Pool) -> tuple[list[Sum], list[PoolDifference]]:
    async with postgres.snapshot(database) as connection:
        events = await sums.events_and_hours(connection)
        pools, differences = await sums.pools(connection)
        rest = [await sums.beyond_offsets(connection), await sums.quarantine(connection), *await sums.invoices(connection)]
        return [*events, *pools, *rest], differences


async def _freeze(differences: Sequence[PoolDifference], freeze: Freeze) -> list[int]:
    frozen: list[int] = []
    for difference in differences:
        if difference.customer_id in frozen:
            continue
        if difference.tenant_id == 0:
            _LOG.critical("customer %d differs and is not in the book, so it was not frozen", difference.customer_id)
            continue
        why = freezing.reason(difference.pool, f"does not reconcile: {difference.what}")
        await freeze(difference.tenant_id, difference.customer_id, why)
        frozen.append(difference.customer_id)
    return frozen
