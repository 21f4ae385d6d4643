"""One pass of the rollup: read what the book does not hold yet, write it with the offset in one transaction, then trim."""

import asyncio
import dataclasses
import gc
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime

from tallybook.core import clock, failpoints
from tallybook.rollup import aggregate, log_reader, rules, store
from tallybook.rollup.decoding import UnstorableError
from tallybook.rollup.model import Effects, GapError, Offset, PassResult, Quarantined, RawEntry
from tallybook.storage import postgres
from tallybook.storage.postgres import Connection, Pool
from tallybook.storage.redis import Redis

_ATTEMPTS = 3

Also = Callable[[Connection, Sequence[int]], Awaitable[None]]
"""What else is done in the transaction of a pass, for the customers (ids, ascending) whose pools it changed."""


async def roll_up(
    database: Pool, client: Redis, owned: Sequence[int], now: datetime, epoch: str | None = None, also: Also | None = None
) -> PassResult:
    """Bring what the log holds beyond the book's offsets into the book, for the owned partitions, about 90,000 events at most.

    With an epoch, only the log of the till that has it; raises UnknownLogError when Redis holds another one or an older copy.
    Raises OffsetMovedError when another worker was faster, GapError when an entry is missing (after writing what comes before it
    and the other partitions), and what Postgres or Redis raise; in each case the pass counted wholly or not at all, and the next
    one begins where the book stands.
    """
    after = await store.offsets(database, owned)
    reading = await log_reader.read(client, after, epoch)
    left_out = tuple((partition, f"{type(error).__name__}: {error}") for partition, error in reading.left_out.items())
    if not reading.entries:
        return PassResult(left_out=left_out)
    failpoints.reach("rollup.read")
    passed, whole, gap = _dense(reading.entries, after)
    result = await _book(database, passed, whole, now, epoch, also) if passed else PassResult()
    failpoints.reach("rollup.before_trim")
    await log_reader.trim(client, [(offset.partition, offset.last) for offset in passed], epoch)
    failpoints.reach("rollup.after_trim")
    if gap is not None and await _still_stands(database, gap):
        raise gap
    return dataclasses.replace(result, more=reading.more, left_out=left_out)


async def _book(
    database: Pool, passed: Sequence[Offset], entries: Sequence[RawEntry], now: datetime, epoch: str | None, also: Also | None
) -> PassResult:
    try:
        effects = await asyncio.to_thread(_effects, entries, now)
        await _write(database, passed, effects, now, epoch, also)
    except postgres.TRANSIENT_ERRORS:
        raise
    except (postgres.PostgresError, UnstorableError):
        return PassResult(0, len(entries), await _write_apart(database, entries, now, epoch, also))
    return PassResult(effects.events, len(entries), len(effects.quarantined), _lag_ms(effects.oldest_accepted_at, now))


def _effects(entries: Sequence[RawEntry], now: datetime) -> Effects:
    """Without looking for garbage meanwhile: half a million objects that all live until the pass is written make each look long."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        return aggregate.effects(entries, now)
    finally:
        if was_on:
            gc.enable()


async def skip_lost(database: Pool, gap: GapError, now: datetime) -> None:
    """Go on after entries that are lost for good, by an operator's word. What is lost stands in quarantine until it is dropped.

    Raises OffsetMovedError when the book no longer waits for them.
    """
    last = gap.found - 1
    reason = f"log entries {gap.expected} to {last} are lost"
    async with postgres.transaction(database) as connection:
        await store.skip_lost(connection, Offset(gap.partition, gap.expected - 1, last), now)
        await store.set_aside(connection, [Quarantined(gap.partition, gap.expected, None, reason, b"")])


def _dense(entries: Sequence[RawEntry], after: Mapping[int, int]) -> tuple[list[Offset], list[RawEntry], GapError | None]:
    """The offsets and entries up to the first missing sequence of each partition, and the first gap."""
    last = dict(after)
    whole: list[RawEntry] = []
    gap: GapError | None = None
    broken: set[int] = set()
    for entry in entries:
        expected = last[entry.partition] + 1
        if entry.partition in broken:
            continue
        if entry.seq != expected:
            broken.add(entry.partition)
            gap = gap or GapError(entry.partition, expected, entry.seq)
            continue
        last[entry.partition] = entry.seq
        whole.append(entry)
    passed = [Offset(partition, after[partition], seq) for partition, seq in sorted(last.items()) if seq > after[partition]]
    return passed, whole, gap


async def _still_stands(database: Pool, gap: GapError) -> bool:
    """Whether the book still waits for the missing entry: another worker may have taken and trimmed it meanwhile."""
    return (await store.offsets(database, [gap.partition]))[gap.partition] < gap.expected


async def _write(
    database: Pool, passed: Sequence[Offset], effects: Effects, now: datetime, epoch: str | None, also: Also | None
) -> None:
    """Commit offsets and effects together, trying again when Postgres says that this may help."""
    await make_months(database, effects.months)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            async with postgres.transaction(database) as connection:
                await store.commit(connection, passed, effects, now, epoch)
                if also is not None and effects.pools:
                    await also(connection, sorted({change[0] for change in effects.pools}))
                failpoints.reach("rollup.before_commit")
            failpoints.reach("rollup.after_commit")
        except postgres.TRANSIENT_ERRORS:
            if attempt == _ATTEMPTS:
                raise
        else:
            return


async def _write_apart(database: Pool, entries: Sequence[RawEntry], now: datetime, epoch: str | None, also: Also | None) -> int:
    """Commit entry by entry after Postgres refused them together. Returns how many were set aside: those it will never take.

    Raises what is the server's fault and not the entry's; entries before that one are in the book.
    """
    refused = 0
    for entry in entries:
        passed = [Offset(entry.partition, entry.seq - 1, entry.seq)]
        try:
            await _write(database, passed, aggregate.effects([entry], now), now, epoch, also)
        except (postgres.PostgresError, UnstorableError) as error:
            if isinstance(error, postgres.PostgresError) and not postgres.blames_data(error):
                raise
            effects = aggregate.set_aside(entry, f"{type(error).__name__}: {error}")
            await _write(database, passed, effects, now, epoch, None)
            refused += 1
    return refused


async def prepare(database: Pool, partitions: int, now: datetime) -> None:
    """Give the book what it needs before the first event: offsets, and the months that events arrive in."""
    await store.ensure_offsets(database, partitions)
    await make_coming_months(database, now)


async def make_coming_months(database: Pool, now: datetime) -> None:
    """Make the running month and the next, so that nobody waits for it at midnight; waits itself while an old one is dropped."""
    coming = (now.year + 1, 1) if now.month == rules.DECEMBER else (now.year, now.month + 1)
    await make_months(database, [(now.year, now.month), coming])


async def make_months(database: Pool, months: Iterable[tuple[int, int]]) -> None:
    """These months, where they are not there yet."""
    wanted = set(months)
    if {store.month_name(*month) for month in wanted} - await store.months_made(database):
        async with postgres.transaction(database) as connection:
            await store.make_months(connection, sorted(wanted))


def _lag_ms(oldest: datetime | None, now: datetime) -> int:
    return 0 if oldest is None else max(0, clock.to_ms(now) - clock.to_ms(oldest))
