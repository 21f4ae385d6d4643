"""Turning a sandbox's test clock: a durable run that stops at each deadline on the way, closes what is due, and goes on.

Between runs the clock stands still. A run is a row; whoever holds the claim on the tenant's clock carries it on, so a crash costs
nothing but the time until the next worker looks.
"""

import asyncio
import logging
from datetime import datetime, timedelta

from tallybook.core import clock, errors, ids
from tallybook.core.tenant import Tenant
from tallybook.flows import period, terms
from tallybook.flows.services import Services
from tallybook.storage import postgres, redis
from tallybook.storage.postgres import Connection
from tallybook.subscriptions import clock_store, deadlines, period_store, store
from tallybook.subscriptions.model import ClockRun
from tallybook.tenancy import actions as tenancy
from tallybook.tenancy import store as tenants

_LOG = logging.getLogger(__name__)
AHEAD_MAX = timedelta(days=730)
"""How far one run may go."""
_RUNS_AT_ONCE = 3
"""Runs that one process works on; each holds a connection of its own for its claim."""


async def start(connection: Connection, tenant: Tenant, now: datetime, target: datetime) -> ClockRun:
    """Queue a run to `target`, inside the caller's transaction. `now` is the tenant's clock.

    Raises Forbidden (`sandbox_only`), ValidationError for a target that is not ahead or too far, and Conflict
    (`already_scheduled`) while another run is under way.
    """
    check_sandbox(tenant)
    if target <= now:
        message = f"The test clock shows {clock.iso(now)} and only goes forward; {clock.iso(target)} is not after that."
        raise errors.invalid("frozenTime", message)
    if target - now > AHEAD_MAX:
        raise errors.invalid("frozenTime", f"One run goes at most {AHEAD_MAX.days} days ahead of {clock.iso(now)}.")
    estimated = await period_store.count_deadlines(connection, tenant.id, target)
    try:
        async with connection.transaction():
            return await clock_store.insert(connection, tenant, ids.new("tcr"), now, target, estimated)
    except postgres.UniqueViolationError as error:
        raise errors.Conflict(
            "already_scheduled", "A run of the test clock is still under way; wait until it has ended."
        ) from error


def check_sandbox(tenant: Tenant) -> None:
    """Raises Forbidden (`sandbox_only`) for a live tenant."""
    if tenant.livemode:
        raise errors.Forbidden("sandbox_only", "Only a sandbox has a test clock.")


async def carry_on(services: Services) -> int:
    """Work on the runs that wait or were left half done. Returns how many were brought to an end.

    Raises the error of the first one that has to wait, after all of them were tried.
    """
    async with services.database.acquire() as connection:
        runs = await clock_store.unfinished(connection, _RUNS_AT_ONCE)
    results = await asyncio.gather(*(execute(services, run) for run in runs), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return sum(result is True for result in results)


async def execute(services: Services, run: ClockRun) -> bool:
    """Take a run to its end, unless somebody else is at it. Raises the errors of a lost store; the run then waits."""
    async with services.database.acquire() as claim:
        if not await clock_store.try_claim(claim, run.tenant.id):
            return False
        try:
            if not await clock_store.start(claim, run.id):
                return False
            await _run(services, run)
        finally:
            await clock_store.release(claim, run.tenant.id)
    return True


async def _run(services: Services, run: ClockRun) -> None:
    try:
        problem = await _turn(services, run)
    except (errors.Unavailable, redis.RedisError, *postgres.TRANSIENT_ERRORS):
        raise
    except Exception as error:  # noqa: BLE001 - the run ends as failed and says why
        _LOG.exception("test clock run failed", extra={"run": run.id})
        problem = f"{type(error).__name__}: {error}"
    async with postgres.transaction(services.database) as connection:
        await clock_store.finish(connection, run.id, problem)


async def _turn(services: Services, run: ClockRun) -> str | None:
    """From deadline to deadline, then to the target. Returns why it had to stop early."""
    while (due_at := await _next_deadline(services, run)) is not None:
        await _set(services, run.tenant, due_at)
        async with services.database.acquire() as connection:
            due = await period_store.due(connection, due_at, period.BATCH, run.tenant.id)
        stuck = [result for result in await period.close(services, due) if isinstance(result, period.Unsettled)]
        for result in stuck:
            if isinstance(result.error, errors.Unavailable):
                raise result.error
        if stuck:
            await _note_failures(services, run.tenant, stuck)
            return f"{len(stuck)} of the periods that ended at {clock.iso(due_at)} could not be closed: {stuck[0].error}"
    await _set(services, run.tenant, run.target_time)
    return None


async def _next_deadline(services: Services, run: ClockRun) -> datetime | None:
    async with services.database.acquire() as connection:
        return await period_store.next_deadline(connection, run.tenant.id, run.target_time)


async def _set(services: Services, tenant: Tenant, moment: datetime) -> None:
    """Move the clock to a moment, unless it is there already or past it, and tell the till."""
    async with postgres.transaction(services.database) as connection:
        shown = await tenants.simulated_at(connection, tenant)
        if shown is None or shown < moment:
            await tenancy.set_simulated_time(connection, tenant, moment)
    await terms.publish(services, tenant)


async def _note_failures(services: Services, tenant: Tenant, stuck: list[period.Unsettled]) -> None:
    async with postgres.transaction(services.database) as connection:
        for result in stuck:
            subscription = await store.by_id(connection, result.period.subscription_id)
            await clock_store.note(connection, tenant, deadlines.failed(result.period, subscription, result.error))
