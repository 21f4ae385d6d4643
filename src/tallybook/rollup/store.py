"""The only SQL that writes the book's offsets, events, totals, pools, ledger and quarantine."""

import dataclasses
import io
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from typing import Protocol, cast

from tallybook.rollup import copy_rows, rules
from tallybook.rollup.model import Effects, Offset, OffsetMovedError, Quarantined
from tallybook.storage import queries
from tallybook.storage.postgres import Connection, Querying

_SQL = queries.load("tallybook.rollup")
_NARROW_SQL = {name: text.replace("::numeric[]", "::bigint[]") for name, text in _SQL.items() if "::numeric[]" in text}


class _Copying(Protocol):
    copy_to_table: Callable[..., Awaitable[str]]


async def ensure_offsets(connection: Querying, partitions: int) -> None:
    """Give partitions 0 … `partitions` - 1 an offset of 0 where they have none."""
    await connection.execute(_SQL["ensure_offsets"], list(range(partitions)))


async def offsets(connection: Querying, partitions: Iterable[int]) -> dict[int, int]:
    """The last log sequence in the book, by partition."""
    rows = await connection.fetch(_SQL["offsets"], sorted(partitions))
    return {row["partition"]: row["last_seq"] for row in rows}


async def commit(
    connection: Connection, passed: Sequence[Offset], effects: Effects, rolled_at: datetime, epoch: str | None = None
) -> None:
    """Write a pass over the log of the till with this epoch: offsets and effects, in the caller's one transaction.

    Raises OffsetMovedError when an offset is not where the pass began; the transaction must then be rolled back.
    """
    await advance(connection, passed, effects, rolled_at, epoch)
    await write(connection, effects)


async def advance(
    connection: Connection, passed: Sequence[Offset], effects: Effects, rolled_at: datetime, epoch: str | None = None
) -> None:
    """Compare-and-set the offsets. Raises OffsetMovedError when any of them has moved."""
    moved = await connection.fetch(
        _SQL["advance_offsets"],
        [offset.partition for offset in passed],
        [offset.previous for offset in passed],
        [offset.last for offset in passed],
        [effects.accepted_at.get(offset.partition) for offset in passed],
        rolled_at,
        epoch,
    )
    if len(moved) != len(passed):
        expected = {offset.partition for offset in passed} - {row["partition"] for row in moved}
        raise OffsetMovedError(f"partitions {sorted(expected)} were rolled up by another worker")


async def write(connection: Connection, effects: Effects) -> None:
    """Everything a pass does to the book besides its offsets. Rows go in primary key order."""
    if effects.events:
        await _copy_events(connection, effects.event_rows)
    await _add(connection, "add_hourly", effects.hourly)
    await _add(connection, "add_pools", effects.pools)
    await _add(connection, "add_ledger", effects.ledger)
    await set_aside(connection, effects.quarantined)


async def write_again(connection: Connection, effects: Effects) -> None:
    """The effects of what was in quarantine: like `write`, but a pool that was closed meanwhile is not opened again."""
    await write(connection, dataclasses.replace(effects, pools=[]))
    await _add(connection, "add_pools_again", effects.pools)


async def set_aside(connection: Connection, items: Sequence[Quarantined]) -> None:
    """Put items into quarantine."""
    await _add(connection, "add_quarantined", [_quarantine_row(item) for item in items])


async def skip_lost(connection: Connection, lost: Offset, now: datetime) -> None:
    """Move an offset over what is lost. Raises OffsetMovedError when it does not stand there."""
    moved = await connection.fetchval(_SQL["skip_lost"], lost.partition, lost.previous, lost.last, now)
    if moved is None:
        raise OffsetMovedError(f"partition {lost.partition} no longer waits for entry {lost.previous + 1}")


async def _copy_events(connection: Connection, rows: bytes) -> None:
    copying = cast("_Copying", connection)
    await copying.copy_to_table("usage_events", source=io.BytesIO(rows), columns=copy_rows.COLUMNS, format="binary")


async def _add(connection: Connection, query: str, rows: Sequence[Sequence[object]]) -> None:
    if rows:
        columns = [list(column) for column in zip(*rows, strict=True)]
        await connection.execute(_statement(query, columns), *columns)


def _statement(query: str, columns: Iterable[Sequence[object]]) -> str:
    """Sums travel as 64-bit integers when all of them are: asyncpg writes those in a third of the time that wider ones take it."""
    if query not in _NARROW_SQL:
        return _SQL[query]
    numbers = (cast("Sequence[int]", column) for column in columns if type(column[0]) is int)
    is_narrow = all(min(column) >= -rules.INT64_MAX and max(column) <= rules.INT64_MAX for column in numbers)
    return (_NARROW_SQL if is_narrow else _SQL)[query]


def _quarantine_row(item: Quarantined) -> tuple[object, ...]:
    return (
        item.partition,
        item.seq,
        item.position,
        item.reason.replace("\0", "\\0")[:500],
        item.payload,
        item.accepted_at,
        item.booked,
    )


async def months_made(connection: Querying) -> set[str]:
    """Names of the month partitions that exist."""
    return {row["name"] for row in await connection.fetch(_SQL["months_made"])}


def month_name(year: int, month: int) -> str:
    """The table that holds the raw events of one month of arrival."""
    return f"usage_events_{year:04d}_{month:02d}"


async def make_months(connection: Connection, months: Iterable[tuple[int, int]]) -> None:
    """Make the month partitions that are missing, in the caller's transaction; safe when several processes do it at once.

    A table is made beside the parent and attached, which blocks neither reading nor writing of the other months.
    """
    await connection.execute(_SQL["lock_months"])
    made = await months_made(connection)
    for year, month in months:
        name = month_name(year, month)
        if name in made:
            continue
        starts_at, ends_at = rules.month_bounds(year, month)
        bounds = f"FROM ('{starts_at.isoformat()}') TO ('{ends_at.isoformat()}')"
        await connection.execute(f"CREATE TABLE {name} (LIKE usage_events INCLUDING ALL)")
        await connection.execute(f"ALTER TABLE usage_events ATTACH PARTITION {name} FOR VALUES {bounds}")
