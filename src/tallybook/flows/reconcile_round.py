"""Reconciliation that never ends: all customers, some at a time, with a rest after each part that keeps it gentle.

A customer with a pool that differs is looked at a second time, after the till was found to be this installation's: only what differs
twice is frozen. So a Redis that becomes another one in the middle freezes nobody.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from tallybook.flows import freezing, reconcile, reconcile_identities, reconcile_till
from tallybook.flows.reconcile_till import Chunk
from tallybook.flows.services import Services
from tallybook.rollup import retention, sums
from tallybook.rollup.sums import Customers, PoolDifference, Sum
from tallybook.storage import postgres

_LOG = logging.getLogger(__name__)
_CUSTOMERS_AT_ONCE = 200

Rest = Callable[[], Awaitable[bool]]
"""Called after each part; whether to go on."""


@dataclass(slots=True)
class Outcome:
    """What a round has found so far. `wrong` are sums that differ, `frozen` customers that were frozen for it."""

    customers: int = 0
    wrong: list[Sum] = field(default_factory=list[Sum])
    differences: list[PoolDifference] = field(default_factory=list[PoolDifference])
    frozen: list[int] = field(default_factory=list[int])
    finished: bool = False

    @property
    def problems(self) -> int:
        """How many things differ."""
        return len(self.wrong) + len(self.differences)


async def go_round(services: Services, rest: Rest) -> Outcome:
    """Compare everything once. Raises Unavailable when the till is not this installation's, and what the stores raise."""
    outcome = Outcome()
    await services.till.check()
    await freezing.keep(services)
    parts = await reconcile_till.chunks(services.database, services.redis, services.settings.partitions)
    for chunk in parts:
        await _compare_with_till(services, chunk, outcome)
        outcome.customers += len(chunk.customer_ids)
        if not await rest():
            return outcome
    known = sorted(parts[0].tenants) if parts else []
    for start in range(0, len(known), _CUSTOMERS_AT_ONCE):
        await _compare_book(services, known[start : start + _CUSTOMERS_AT_ONCE], outcome)
        if not await rest():
            return outcome
    async with postgres.snapshot(services.database) as connection:
        rest_of_book = [
            await sums.beyond_offsets(connection),
            await sums.quarantine(connection),
            *await sums.invoices(connection),
        ]
    _note(outcome, rest_of_book)
    if not await rest():
        return outcome
    stores = (services.database, services.redis, services.settings.partitions)
    _note(outcome, [*await reconcile_till.logs(*stores), await reconcile_identities.compare(*stores, services.till.hot_window_s)])
    outcome.finished = True
    return outcome


async def _compare_with_till(services: Services, chunk: Chunk, outcome: Outcome) -> None:
    found = await reconcile_till.compare_chunk(services.database, services.redis, chunk)
    if found is None:
        _note(outcome, [reconcile_till.stopped([chunk])])
        return
    for customer_id in sorted({one.customer_id for one in found}):
        await _look_again(services, chunk.tenants.get(customer_id, 0), customer_id, found, outcome)


async def _compare_book(services: Services, customer_ids: Sequence[int], outcome: Outcome) -> None:
    of = Customers(customer_ids[0], customer_ids[-1])
    async with retention.snapshot(services.database) as connection:
        hours = await sums.events_and_hours(connection, of)
        totals, differences = await sums.pools(connection, of)
    _note(outcome, hours)
    if not differences:
        _note(outcome, totals)
    for customer_id in sorted({one.customer_id for one in differences}):
        tenant_id = max(one.tenant_id for one in differences if one.customer_id == customer_id)
        await _look_again(services, tenant_id, customer_id, differences, outcome)


async def _look_again(
    services: Services, tenant_id: int, customer_id: int, found: Sequence[PoolDifference], outcome: Outcome
) -> None:
    await services.till.check()
    if tenant_id:
        report = await reconcile.customer(services.database, services.redis, services.settings.partitions, tenant_id, customer_id)
        differences = report.differences
    else:
        differences = [one for one in found if one.customer_id == customer_id]
    for one in differences:
        _LOG.critical("pool differs: %s", one)
    outcome.differences += differences
    if differences and tenant_id and customer_id not in outcome.frozen:
        why = freezing.reason(differences[0].pool, f"does not reconcile: {differences[0].what}")
        await freezing.freeze(services, tenant_id, customer_id, why)
        outcome.frozen.append(customer_id)
        _LOG.critical("customer %d of tenant %d is frozen: %s", customer_id, tenant_id, why)


def _note(outcome: Outcome, found: Sequence[Sum]) -> None:
    for one in found:
        if not one.is_equal:
            _LOG.critical("books differ: %s", one)
            outcome.wrong.append(one)
