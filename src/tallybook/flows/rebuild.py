"""The till made anew from the book: close it → read what its log still holds → new epoch → write it → open it.

From the first step to the last nothing is charged: what carries the old epoch is closed, and the new epoch is opened only when
everything is written. So a crash anywhere leaves a till that is refused, and running it again finishes the work.
What the till had acknowledged, and neither the book nor a log that still exists holds, is lost; nothing here can know of it.
"""

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NoReturn

from tallybook.charge.remaking import OpenPool, PartitionState, Remaking, Remembered
from tallybook.core import clock, errors
from tallybook.flows import alerting, freezing
from tallybook.flows.services import Services
from tallybook.rollup import actions as rollup
from tallybook.rollup import freezes, memory
from tallybook.rollup import store as rollup_store
from tallybook.rollup.memory import Position
from tallybook.rollup.model import GapError, OffsetMovedError
from tallybook.storage import locks, postgres
from tallybook.subscriptions import period_store
from tallybook.tenancy import actions as tenancy
from tallybook.tenancy import store as tenants
from tallybook.tenancy.model import Installation

_LOG = logging.getLogger(__name__)
_LOCK = 0x7A11_B0DE
_AT_ONCE = 5000


class Found(StrEnum):
    """What Redis was found to hold."""

    EMPTY = "an empty Redis"
    FOREIGN = "the till of another installation"
    OLDER = "an older copy of this installation's till"
    CLOSED = "this installation's till, closed"
    WHOLE = "this installation's till, whole"


_NEEDS_FORCE = {
    Found.WHOLE: ("till_is_whole", "The till is this installation's and whole. To make it anew all the same, use --force."),
    Found.FOREIGN: (
        "till_is_foreign",
        "Redis holds the till of another installation: look whether TALLYBOOK_REDIS_URL is right. If that one is still in use, making "
        "the till anew takes its pools and identities away from it. To do it all the same, use --force.",
    ),
}
"""What is not made anew by mistake: code and message of the refusal."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What was done. `drained` are entries read from the old log; `lost` describes entries that it lacked; `aside` logs set aside."""

    found: Found
    drained: int
    lost: Sequence[str]
    aside: int
    epoch: str
    customers: int
    pools: int
    identities: int


async def rebuild(services: Services, *, force: bool = False) -> Rebuilt:
    """Make the till anew from the book. `force` also remakes a whole till or another's, and goes on over entries that its log lacks.

    Raises Conflict (`till_is_whole`, `till_is_foreign`, `log_entries_lost`) without force, and Unavailable when another rebuild is
    under way.
    """
    lock = locks.alone(services.settings.postgres_url, _LOCK, application_name="tallybook rebuild")
    async with lock as is_alone:
        if not is_alone:
            raise errors.Unavailable("rebuild_in_progress", "Another rebuild is under way.")
        async with services.database.acquire() as connection:
            made = await tenants.find_installation(connection)
            read = await rollup_store.offsets(connection, range(services.settings.partitions))
        assert made is not None
        making = Remaking(services.redis, made.partitions, services.till.hot_window_s)
        states = await making.look()
        found = _judge(states, made, read)
        if found in _NEEDS_FORCE and not force:
            raise errors.Conflict(*_NEEDS_FORCE[found])
        _LOG.warning("rebuild: found %s", found)
        await making.close(made.epoch)
        drained, lost = await _drain(services, making, made, force=force)
        return await _remake(services, making, made, Rebuilt(found, drained, lost, 0, "", 0, 0, 0))


def _judge(states: Sequence[PartitionState], made: Installation, read: dict[int, int]) -> Found:
    known = (None, made.epoch, made.former_epoch)
    if any(state.epoch not in known for state in states):
        return Found.FOREIGN
    if all(state.epoch is None for state in states):
        return Found.EMPTY
    if any(state.epoch != made.epoch or state.sequence < read.get(partition, 0) for partition, state in enumerate(states)):
        return Found.OLDER
    return Found.CLOSED if any(state.closed for state in states) else Found.WHOLE


async def _drain(services: Services, making: Remaking, made: Installation, *, force: bool) -> tuple[int, list[str]]:
    """Read what the log of this installation holds beyond the book. Returns how many entries, and what they lacked."""
    drained, lost = 0, list[str]()
    while True:
        read = await rollup_store.offsets(services.database, range(made.partitions))
        states = await making.look()
        waiting = [p for p, state in enumerate(states) if state.epoch == made.epoch and state.sequence > read.get(p, 0)]
        if not waiting:
            return drained, lost
        try:
            result = await rollup.roll_up(
                services.database, services.redis, waiting, services.clock(), made.epoch, alerting.judge_with(services.clock)
            )
            drained += result.entries
            if result.entries == 0:
                _lack_the_end(waiting[0], read, states)
        except OffsetMovedError:
            continue
        except GapError as gap:
            if not force:
                message = f"{gap}. To go on without them, use --force; they will stand in quarantine."
                raise errors.Conflict("log_entries_lost", message) from gap
            with contextlib.suppress(OffsetMovedError):
                await rollup.skip_lost(services.database, gap, services.clock())
                lost.append(f"partition {gap.partition}: {gap.expected} to {gap.found - 1}")


def _lack_the_end(partition: int, read: dict[int, int], states: Sequence[PartitionState]) -> NoReturn:
    raise GapError(partition, read.get(partition, 0) + 1, states[partition].sequence + 1)


async def _remake(services: Services, making: Remaking, made: Installation, so_far: Rebuilt) -> Rebuilt:
    renewed, positions = await _new_epoch(services)
    aside = await making.clear(made.epoch)
    ordered = [positions.get(partition, Position(0, 0)) for partition in range(made.partitions)]
    not_before_ms = max(position.accepted_at_ms for position in ordered)
    generation = await making.begin(renewed.epoch, [position.sequence for position in ordered], not_before_ms)
    customers = await _write_terms(services, making)
    pools = await _write_pools(services, making)
    identities = await _write_identities(services, making, generation)
    await making.open(renewed.epoch)
    await services.till.check()
    _LOG.warning("rebuild: epoch %s with %d pools and %d identities", renewed.epoch, pools, identities)
    return Rebuilt(so_far.found, so_far.drained, so_far.lost, aside, renewed.epoch, customers, pools, identities)


async def _new_epoch(services: Services) -> tuple[Installation, dict[int, Position]]:
    """From its commit on nobody charges the old till, rolls up its log or waits for a mark in it."""
    async with postgres.transaction(services.database) as connection:
        renewed = await tenancy.renew_epoch(connection)
        positions = await memory.begin_epoch(connection, renewed.epoch)
        await period_store.forget_closing_seqs(connection)
    return renewed, positions


async def _write_terms(services: Services, making: Remaking) -> int:
    """Terms versions, at least as new as those that the old till knew. Returns how many customers have one."""
    async with services.database.acquire() as connection:
        await making.write_tenants(await tenants.tenant_terms_versions(connection))
        count, after = 0, 0
        while versions := await tenants.customer_terms_versions(connection, after, _AT_ONCE):
            await making.write_customers(versions)
            count, after = count + len(versions), versions[-1][1]
    return count


async def _write_pools(services: Services, making: Remaking) -> int:
    """Open pools and frozen customers. Returns how many pools there are."""
    count = 0
    async with postgres.snapshot(services.database) as connection:
        async for pools in memory.open_pools(connection):
            await making.write_pools(OpenPool(one.tenant_id, one.customer_id, one.pool, one.opening, one.left) for one in pools)
            count += len(pools)
        unclear = await memory.reopened_pools(connection)
    async with services.database.acquire() as connection:
        for tenant_id, customer_id, pool in unclear:
            reason = freezing.reason(pool, "was opened again after it had expired, so its opening is not known")
            await freezes.note(connection, tenant_id, customer_id, reason)
        frozen = await freezes.every(connection)
    await making.write_frozen((one.tenant_id, one.customer_id, one.reason) for one in frozen)
    return count


async def _write_identities(services: Services, making: Remaking, generation: int) -> int:
    """What was accepted in this generation and the one before. Returns how many identities there are."""
    since = clock.from_ms((generation - 1) * services.till.hot_window_s * 1000)
    count = 0
    async with postgres.snapshot(services.database) as connection:
        async for found in memory.identities(connection, since):
            count += await making.write_identities([_remembered(one) for one in found], generation)
    return count


def _remembered(one: memory.Identity) -> Remembered:
    return Remembered(
        one.partition, one.digest, one.fingerprint, one.accepted_at_ms, one.amount, one.left, one.spare_left, one.found
    )
