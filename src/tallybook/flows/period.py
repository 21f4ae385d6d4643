"""Closing a usage period: stop it → prove that the book has read all of its usage → bill it → drop its pools.

1. `begin`: the period becomes `closing` and the customer's terms get a new version, in one transaction.
2. `publish`: the till learns of the new version. From here no event can take from the period's pools.
3. `openings.reopen`: its pools are granted what its terms granted in the end. Then `mark`: a tick is appended to the partition's
   log. Everything the period was granted and charged stands before it.
4. `catch_up`: wait until the book has read the log up to the tick. Partitions that are far behind are left for the next attempt.
   What turns out to have been counted twice is taken back now (`repeats`), and the book waited for once more. Who lacks something
   that is in quarantine waits until it is applied or dropped: nothing is added to a closed period.
5. `settle`: one transaction computes the lines from the book, issues the invoice, closes the period, opens the next one.
6. `expire`: the till drops the closed pools.

Each step may be repeated after a crash and by several workers at once: rows are locked, and the invoice of a boundary is unique.
Many periods are closed together, so that they share ticks and waiting. Those on a server of a cluster that is away are left for the
next attempt.
"""

import asyncio
import logging
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from tallybook.charge import fence
from tallybook.charge.commands import Charge
from tallybook.core import errors, failpoints, ids, partitions, pools, usage_log
from tallybook.core.pools import PoolKind
from tallybook.core.tenant import Tenant
from tallybook.flows import billing, openings, repeats, terms
from tallybook.flows.services import Services
from tallybook.invoice import store as invoice_store
from tallybook.invoice.model import Invoice
from tallybook.rollup import quarantine
from tallybook.storage import postgres, redis
from tallybook.storage.postgres import Connection
from tallybook.subscriptions import actions as subscriptions
from tallybook.subscriptions import clock_store, deadlines, period_store, store
from tallybook.subscriptions.deadlines import Billed
from tallybook.subscriptions.model import Subscription, UsagePeriod
from tallybook.tenancy import actions as tenancy

_LOG = logging.getLogger(__name__)
BATCH = 200
"""Periods closed together."""
_POLL_S = 0.02
CATCH_UP_S = 5.0
"""How long one attempt waits for the book; a partition that is further behind must not hold up the others."""
Away = dict[int, errors.Unavailable]
"""The partitions that this attempt can't bill, as far as it has come, with why: the till could not be told or asked there."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A closed period, the subscription after it, and what was billed, if anything was."""

    period: UsagePeriod
    subscription: Subscription
    invoice: Invoice | None


@dataclass(frozen=True, slots=True)
class Unsettled:
    """A period that could not be billed. It stays `closing`; its neighbours are not held up."""

    period: UsagePeriod
    error: Exception


async def close_due(services: Services) -> Sequence[Settled | Unsettled]:
    """Close what is due by each tenant's clock, and whatever an earlier attempt left half closed. Returns what was done."""
    return await close(services, await due(services))


async def due(services: Services) -> Sequence[UsagePeriod]:
    """What `close_due` would close now."""
    until = services.clock() - timedelta(seconds=services.settings.period_grace_s)
    async with services.database.acquire() as connection:
        return await period_store.due(connection, until, BATCH)


async def close(services: Services, periods: Sequence[UsagePeriod]) -> Sequence[Settled | Unsettled]:
    """Take periods through all steps; one result each. Raises Unavailable, and the errors of a lost store, to be tried again."""
    if not periods:
        return []
    away: Away = {}
    await begin(services, periods)
    failpoints.reach("period.begun")
    await _publish(services, periods, away)
    failpoints.reach("period.published")
    unsure = await _reopen(services, periods, away)
    failpoints.reach("period.reopened")
    sure = [period for period in periods if period.subscription_id not in unsure]
    goals = await mark(services, sure, away)
    failpoints.reach("period.marked")
    behind = await catch_up(services, goals)
    failpoints.reach("period.caught_up")
    ready = [period for period in sure if _partition(services, period) not in behind | away.keys()]
    swept = await repeats.before_billing(services, ready)
    if swept.customers:
        behind |= await catch_up(services, await _tick(services, ready, away))
    lacking = await quarantine.lacking(services.database, {_partition(services, period) for period in ready})
    results: list[Settled | Unsettled] = []
    for period in periods:
        if (problem := away.get(_partition(services, period))) is not None:
            results.append(Unsettled(period, problem))
        elif period.subscription_id in unsure:
            results.append(_not_yet(period, "pool_frozen", "What was included rose, and the pools take no change now."))
        elif _partition(services, period) in behind:
            results.append(_not_yet(period, "book_behind", "The book has not read the log far enough to bill this period."))
        elif period.customer_id in swept.stuck:
            results.append(_not_yet(period, "pool_frozen", "Something was counted twice, and the pools take no change now."))
        elif period.customer_id in lacking.customers or _partition(services, period) in lacking.partitions:
            results.append(_not_yet(period, "usage_quarantined", "Something that may be of this period is in quarantine."))
        else:
            results.append(await _settle_one(services, period))
            failpoints.reach("period.settled")
    await _defer(services, [result.period for result in results if isinstance(result, Unsettled)])
    await _publish(services, periods, away)
    await expire(services, [result.period for result in results if isinstance(result, Settled)])
    return results


async def begin(services: Services, periods: Sequence[UsagePeriod]) -> None:
    """Step 1: stop the periods from taking usage."""
    for period in periods:
        async with postgres.transaction(services.database) as connection:
            if await period_store.begin_closing(connection, period, period.ends_at):
                await tenancy.bump_customer_terms(connection, period.tenant, period.customer_id)


async def _publish(services: Services, periods: Sequence[UsagePeriod], away: Away) -> None:
    """Step 2: the till learns of the customers' new terms. Those of a whole tenant are not waited for: no period ends by them."""
    customers = {period.customer_id: _partition(services, period) for period in periods}
    for tenant in {period.tenant.id: period.tenant for period in periods}.values():
        told = await terms.tell(services, tenant)
        away |= {customers[owner]: problem for owner, problem in told.untold.items() if owner is not None and owner in customers}


async def _reopen(services: Services, periods: Sequence[UsagePeriod], away: Away) -> set[int]:
    """Step 3, first half. Returns the subscriptions whose pools take no change now."""
    unsure: set[int] = set()
    for period in periods:
        partition = _partition(services, period)
        if period.closing_seq is None and partition not in away:
            with _noting(services, partition, away):
                unsure |= await openings.reopen(services, [period])
    return unsure


async def mark(services: Services, periods: Sequence[UsagePeriod], away: Away) -> dict[int, int]:
    """Step 3: a tick in each partition that has none yet for these periods. Returns the sequence to reach in each partition."""
    unmarked = [period for period in periods if period.closing_seq is None]
    goals = await _tick(services, unmarked, away)
    async with postgres.transaction(services.database) as connection:
        for period in unmarked:
            if (tick := goals.get(_partition(services, period))) is not None:
                await period_store.save_closing_seq(connection, period, tick)
    for period in periods:
        partition = _partition(services, period)
        if partition not in away:
            goals[partition] = max(goals.get(partition, 0), period.closing_seq or 0)
    return goals


async def _tick(services: Services, periods: Sequence[UsagePeriod], away: Away) -> dict[int, int]:
    """A tick in each of the periods' partitions that is there: its sequence, by partition."""
    ticks: dict[int, int] = {}
    for partition in {_partition(services, period) for period in periods} - away.keys():
        with _noting(services, partition, away):
            ticks[partition] = await services.till.tick(partition)
    return ticks


@contextmanager
def _noting(services: Services, partition: int, away: Away) -> Generator[None]:
    """Let the others go on where a partition is away by itself. A till that is one server raises."""
    try:
        yield
    except (errors.Unavailable, redis.RedisError) as error:
        if not services.till.fails_apart:
            raise
        away[partition] = error if isinstance(error, errors.Unavailable) else fence.unanswered(error)


async def catch_up(services: Services, goals: dict[int, int]) -> set[int]:
    """Step 4: wait until the book has read these partitions that far. Returns those that it has not within `CATCH_UP_S`."""
    deadline = asyncio.get_running_loop().time() + CATCH_UP_S
    while True:
        async with services.database.acquire() as connection:
            read = {partition: await invoice_store.rolled_up_to(connection, partition) for partition in goals}
        behind = {partition for partition, goal in goals.items() if read[partition] < goal}
        if not behind or asyncio.get_running_loop().time() > deadline:
            return behind
        await asyncio.sleep(_POLL_S)


async def _defer(services: Services, periods: Sequence[UsagePeriod]) -> None:
    """Let the next attempt take others first."""
    async with services.database.acquire() as connection:
        for period in periods:
            await period_store.defer(connection, period, services.clock())


def _not_yet(period: UsagePeriod, code: str, message: str) -> Unsettled:
    return Unsettled(period, errors.Unavailable(code, message))


async def _settle_one(services: Services, period: UsagePeriod) -> Settled | Unsettled:
    try:
        async with postgres.transaction(services.database) as connection:
            return await settle(connection, period, services.clock())
    except (errors.Unavailable, *postgres.TRANSIENT_ERRORS):
        raise
    except Exception as error:  # noqa: BLE001 - one broken period must not hold up the others; it is told and logged
        _LOG.exception(
            "period not settled", extra={"subscription_id": period.subscription_id, "starts_at": period.starts_at.isoformat()}
        )
        return Unsettled(period, error)


async def settle(connection: Connection, period: UsagePeriod, real_now: datetime) -> Settled:
    """Step 5, one transaction: bill the period, close it, and open the next one or end the subscription."""
    subscription = await store.lock(connection, period.subscription_id)
    current = await period_store.lock(connection, period)
    if current.state == "closed":
        return Settled(current, subscription, await invoice_store.at_boundary(connection, subscription.id, current.ends_at))
    now = await tenancy.clock_now(connection, current.tenant, real_now)
    # The order of locks is the same as when a subscription starts: the customer's terms, then the invoice counter.
    await tenancy.bump_customer_terms(connection, current.tenant, current.customer_id)
    invoice = await billing.bill(connection, subscription, current, now)
    await period_store.close(connection, current, now)
    moved = await subscriptions.move_on(connection, subscription, current, now)
    if (subscription.status, moved.status) == ("trialing", "active"):
        await billing.announce_activation(connection, current.tenant, moved, current.ends_at, invoice)
    billed = None if invoice is None else Billed(invoice.public_id, invoice.number_text, invoice.total_cents)
    await clock_store.note(connection, current.tenant, deadlines.processed(current, moved, billed))
    failpoints.reach("period.before_settling")
    return Settled(replace(current, state="closed"), moved, invoice)


async def expire(services: Services, periods: Sequence[UsagePeriod]) -> int:
    """Step 6: the till drops the pools of closed periods; what is left in them is gone. Returns of how many, without those away."""
    done, away = 0, Away()
    for period in periods:
        partition = _partition(services, period)
        if partition not in away:
            with _noting(services, partition, away):
                await _expire(services, period)
                done += 1
    return done


async def _expire(services: Services, period: UsagePeriod) -> None:
    async with services.database.acquire() as connection:
        subscription = await store.by_id(connection, period.subscription_id)
        names = await _pools_to_drop(connection, subscription, period)
    if names:
        await services.till.charge([_expiry(services, period, name) for name in names])
    failpoints.reach("period.expired")
    async with services.database.acquire() as connection:
        await period_store.save_expired(connection, period, services.clock())
    failpoints.reach("period.noted")


async def expire_leftovers(services: Services) -> int:
    """Drop pools that a crash has left after their period was closed. Returns how many periods there were."""
    async with services.database.acquire() as connection:
        periods = await period_store.unexpired(connection, BATCH)
    return await expire(services, periods)


async def _pools_to_drop(connection: Connection, subscription: Subscription, period: UsagePeriod) -> list[str]:
    """The pools that end with a period. Balance and credits of a trial are granted once and end with the whole trial."""
    found = await invoice_store.pools_of_period(connection, period.customer_id, subscription.id, period.span.key_s)
    trial_ends_at = subscription.trial_ends_at
    if trial_ends_at is None or period.starts_at >= trial_ends_at:
        return [totals.pool for totals in found]
    features = [totals.pool for totals in found if pools.parse(totals.pool).kind is PoolKind.FEATURE]
    if period.ends_at < trial_ends_at and not subscriptions.has_ended(subscription, period.ends_at):
        return features
    granted = await invoice_store.pools_of_period(
        connection, period.customer_id, subscription.id, int(subscription.started_at.timestamp())
    )
    return features + [totals.pool for totals in granted if pools.parse(totals.pool).kind is not PoolKind.FEATURE]


def _expiry(services: Services, period: UsagePeriod, pool: str) -> Charge:
    digest = ids.event_digest(period.tenant.id, period.customer_id, f"\x01expiry\x01{pool}")
    record = usage_log.Record(usage_log.Kind.EXPIRY, period.tenant.id, period.customer_id, digest, pool, 0)
    return Charge(_partition(services, period), record, 0)


def _partition(services: Services, period: UsagePeriod) -> int:
    return partition_of(services, period.tenant, period.customer_id)


def partition_of(services: Services, tenant: Tenant, customer_id: int) -> int:
    """Where a customer's pools and log entries are."""
    return partitions.of(tenant.id, customer_id, services.settings.partitions)
