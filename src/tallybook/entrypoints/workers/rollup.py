"""The loop that keeps the book up with the till's log. Any number of processes may run it."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tallybook.core import partitions
from tallybook.core.clock import Clock
from tallybook.entrypoints.workers import pause
from tallybook.rollup import actions, rules, store
from tallybook.rollup.leases import Leases
from tallybook.rollup.model import GapError, OffsetMovedError, PassResult, UnknownLogError
from tallybook.storage import postgres, redis
from tallybook.storage.postgres import Pool
from tallybook.storage.redis import Redis

_LOG = logging.getLogger(__name__)
_IDLE_S = 0.05
_FAILED_S = 0.5
_RENEW_S = 1.0
_STOPPED_S = 10.0
"""How long a partition with a gap rests before it is looked at, and complained about, again."""
_AWAY_S = 2.0
"""How long partitions rest that can't be read while others can."""
_OUTSIDE = (*postgres.TRANSIENT_ERRORS, redis.RedisError)


@dataclass(frozen=True, slots=True)
class Rollup:
    """What the loop works with.

    `epoch` is that of the till whose log is read (None: whatever is there). `also` is done in each pass's transaction. `observe` is
    told of each pass, `observe_gap` of each look at a partition that lost entries.
    """

    database: Pool
    redis: Redis
    postgres_url: str
    partitions: int
    clock: Clock
    epoch: Callable[[], str | None] = lambda: None
    also: actions.Also | None = None
    observe: Callable[[PassResult], None] = lambda _result: None
    observe_gap: Callable[[GapError], None] = lambda _gap: None


@dataclass(slots=True)
class _Progress:
    """What the loop remembers from pass to pass. Times are the event loop's."""

    leases: Leases
    owned: list[int] = field(default_factory=list[int])
    renew_at: float = 0.0
    level_at: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    """When the last pass that succeeded began: while passes fail, nothing that waits is known to be younger."""
    resting_until: dict[int, float] = field(default_factory=dict[int, float])


async def run(rollup: Rollup, stop: asyncio.Event) -> None:
    """Roll up until `stop` is set, then finish the pass and give the leases back. A failed pass is told and tried again."""
    progress = _Progress(Leases(rollup.postgres_url, rollup.partitions))
    try:
        while not stop.is_set():
            await pause.rest(stop, await _step(rollup, progress))
    finally:
        progress.leases.abandon()


async def _step(rollup: Rollup, progress: _Progress) -> float:
    """One pass over the owned partitions, whatever becomes of it. Returns how many seconds to rest."""
    now_s = asyncio.get_running_loop().time()
    try:
        return await _pass(rollup, progress, now_s)
    except OffsetMovedError as error:
        _LOG.info("rollup: %s", error)
        return _IDLE_S
    except GapError as gap:
        progress.resting_until[gap.partition] = now_s + _STOPPED_S
        rollup.observe_gap(gap)
        _LOG.critical("rollup stopped: %s", gap)
        return 0.0
    except UnknownLogError as error:
        _LOG.critical("rollup waits: %s", error)
    except _OUTSIDE as error:
        _LOG.warning("rollup waits: %s: %s", type(error).__name__, error)
    except postgres.PostgresError as error:
        _LOG.error("rollup waits: Postgres can't write now: %s: %s", type(error).__name__, error)
    except Exception:  # noqa: BLE001 - must not stop the other loops of this process, and a failed pass has changed nothing
        _LOG.exception("rollup: a pass failed and nothing of it counted; it is tried again")
    progress.renew_at = 0.0
    rollup.observe(PassResult(lag_ms=int((now_s - progress.level_at) * 1000)))
    return _FAILED_S


async def _pass(rollup: Rollup, progress: _Progress, now_s: float) -> float:
    if now_s >= progress.renew_at:
        await _renew(rollup, progress)
        progress.renew_at = now_s + _RENEW_S
    working = [partition for partition in progress.owned if progress.resting_until.get(partition, 0.0) <= now_s]
    if not working:
        return _RENEW_S / 4
    result = await _roll_up(rollup, progress, working)
    progress.level_at = now_s
    rollup.observe(result)
    return _pause(result, asyncio.get_running_loop().time() - now_s)


async def _roll_up(rollup: Rollup, progress: _Progress, working: Sequence[int]) -> PassResult:
    """A pass for each server that the till is on: one that is away, or another's, does not hold up the partitions of the others."""
    total, problem = None, None
    for _, places in await rollup.redis.by_server([partitions.prefix(partition) for partition in working]):
        own = [working[place] for place in places]
        try:
            result = await actions.roll_up(rollup.database, rollup.redis, own, rollup.clock(), rollup.epoch(), rollup.also)
        except (redis.RedisError, UnknownLogError) as error:
            problem = error
            if len(own) < len(working):
                _let_rest(progress, own, f"{type(error).__name__}: {error}")
        else:
            for partition, reason in result.left_out:
                _let_rest(progress, [partition], reason)
            total = result if total is None else total.with_more(result)
    if total is None:
        raise problem or AssertionError("a pass has partitions")
    return total


def _let_rest(progress: _Progress, unreadable: Sequence[int], reason: str) -> None:
    """From now on: it may have taken long to find out."""
    progress.resting_until |= dict.fromkeys(unreadable, asyncio.get_running_loop().time() + _AWAY_S)
    _LOG.warning("rollup of partitions %s waits: %s", unreadable, reason)


def _pause(result: PassResult, took_s: float) -> float:
    if result.quarantined:
        _LOG.error("rollup: %d items of the log went to quarantine", result.quarantined)
    if result.more:
        return 0.0
    return rules.gather_s(result.events, took_s) if result.entries else _IDLE_S


async def _renew(rollup: Rollup, progress: _Progress) -> None:
    before = progress.owned
    progress.owned = []
    progress.owned = await progress.leases.renew()
    if progress.owned != before:
        await store.ensure_offsets(rollup.database, rollup.partitions)
        _LOG.info("rollup: this worker now has partitions %s", progress.owned)
