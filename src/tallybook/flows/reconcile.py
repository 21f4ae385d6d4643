"""Conservation, to the unit, while traffic flows: the book against itself, the till against the book, invoices against pools.

Each part is exact at one moment of its own: the book's sums are read in one snapshot; the till is read together with its log
sequence, and compared with the book's snapshot plus the log entries in between. A pool that differs is told loudly, and its customer
frozen when a second look at all there is of it finds a difference too. Nothing is mended.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from tallybook.flows import freezing, reconcile_identities, reconcile_till
from tallybook.rollup import retention, sums
from tallybook.rollup.sums import Customers, PoolDifference, Sum
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
    """Compare everything with everything. With `freeze`, customers of whom a pool differs twice take no more charges.

    What the till remembers is compared when it is said how long it does.

    Raises what Postgres and Redis raise; what could not be compared is then not known to be equal.
    """
    book_sums, book_differences = await _book(database)
    till_sums, till_differences = await reconcile_till.compare(database, client, partitions)
    differences = [*book_differences, *till_differences]
    for difference in differences:
        _LOG.critical("pool differs: %s", difference)
    frozen = await _freeze_again_differing(database, client, partitions, differences, freeze) if freeze is not None else []
    memory = [] if hot_window_s is None else [await reconcile_identities.compare(database, client, partitions, hot_window_s)]
    return Report([*book_sums, *till_sums, *memory], differences, frozen)


async def customer(database: Pool, client: Redis, partitions: int, tenant_id: int, customer_id: int) -> Report:
    """Compare everything there is of one customer. Freezes nothing."""
    of = Customers(customer_id, customer_id)
    async with retention.snapshot(database) as connection:
        events = await sums.events_and_hours(connection, of)
        pools, differences = await sums.pools(connection, of)
    chunk = reconcile_till.chunk_of(tenant_id, customer_id, partitions)
    of_till = await reconcile_till.compare_chunk(database, client, chunk)
    lost = reconcile_till.stopped([] if of_till is not None else [chunk])
    return Report([*events, *pools, lost], [*differences, *(of_till or [])])


async def _book(database: Pool) -> tuple[list[Sum], list[PoolDifference]]:
    async with retention.snapshot(database) as connection:
        events = await sums.events_and_hours(connection)
        pools, differences = await sums.pools(connection)
        rest = [await sums.beyond_offsets(connection), await sums.quarantine(connection), *await sums.invoices(connection)]
        return [*events, *pools, *rest], differences


async def _freeze_again_differing(
    database: Pool, client: Redis, partitions: int, differences: Sequence[PoolDifference], freeze: Freeze
) -> list[int]:
    """Look at each customer that differs a second time, and freeze it if it still does."""
    frozen: list[int] = []
    tenants: dict[int, int] = {}
    for one in differences:
        tenants[one.customer_id] = max(one.tenant_id, tenants.get(one.customer_id, 0))
    for customer_id, tenant_id in tenants.items():
        if tenant_id == 0:
            _LOG.critical("customer %d differs and is not in the book, so it was not frozen", customer_id)
            continue
        again = (await customer(database, client, partitions, tenant_id, customer_id)).differences
        if not again:
            _LOG.critical("customer %d does not differ at a second look, so it was not frozen", customer_id)
            continue
        await freeze(tenant_id, customer_id, freezing.reason(again[0].pool, f"does not reconcile: {again[0].what}"))
        frozen.append(customer_id)
    return frozen
