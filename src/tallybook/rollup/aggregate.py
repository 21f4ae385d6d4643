"""Log entries to what they do to the book: event rows, hourly totals, pool changes, ledger rows. Pure.

Sums are 128-bit integers; a value that does not fit its column sends its record to quarantine, so nothing can wrap or round.
"""

# pyright: reportUnknownMemberType=false
# polars types its arguments only partly; what leaves this module is typed in `model.py`.

import dataclasses
import struct
from collections.abc import Sequence
from datetime import datetime
from itertools import compress
from typing import Any, TypeVar, cast

import msgspec
import polars as pl

from tallybook.core import clock
from tallybook.core.pools import PURCHASED_CREDITS
from tallybook.core.usage_log import Kind
from tallybook.rollup import copy_rows, decoding, plain_effects, plain_usage, rules
from tallybook.rollup.decoding import Decoded, Table, UnstorableError
from tallybook.rollup.model import Effects, HourlyTotal, LedgerRow, PoolChange, Quarantined, RawEntry
from tallybook.rollup.plain_effects import HOURLY_KEY, LEDGER_KEY, POOL_KEY

HOUR_MS = 3_600_000
_SUMMED = (
    *("kind", "tenant_id", "customer_id", "feature_id", "period_start_s", "price_id", "occurred_at_ms", "belongs_to_s"),
    *("amount", "quantity_nano", "cost_nano", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"),
)
"""The numbers of a record that totals are made of, and times, which are checked with them; the pool is beside them."""
_HOURLY_SUMS = (
    *("quantity_nano", "amount", "cost_nano"),
    *("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"),
)
_POOL_SUMS = ("opening", "charged", "adjusted", "expired")
_USAGE, _ADJUSTMENT = pl.col("kind") == Kind.USAGE, pl.col("kind") == Kind.ADJUSTMENT
_SET, _EXPIRY, _VOID = pl.col("kind") == Kind.SET, pl.col("kind") == Kind.EXPIRY, pl.col("kind") == Kind.VOID
_COUNTED = _USAGE | _VOID
"""Usage and what takes it back, which has the same measures with the other sign."""
_NOTHING = pl.lit(0, pl.Int128)
_UNUSUAL = (
    *(plain_usage.UnusualError, copy_rows.NulError, struct.error, msgspec.MsgspecError, pl.exceptions.PolarsError),
    *(TypeError, ValueError, OverflowError, IndexError),
)
"""What a value of usage raises that is not as usual."""
_Row = TypeVar("_Row", HourlyTotal, PoolChange, LedgerRow)
_DISTRUSTED = (UnstorableError, TypeError, OverflowError, pl.exceptions.PolarsError)


def effects(entries: Sequence[RawEntry], rolled_at: datetime) -> Effects:
    """What the entries, in log order per partition, do to the book.

    Raises UnstorableError when it can't be told which of their records does not fit.
    """
    try:
        usage, others = plain_usage.read(entries, rolled_at)
        found = plain_effects.effects(usage) if usage.accepted_ms else None
    except _UNUSUAL:
        return _of_any(entries, rolled_at)
    if found is None:
        return _of_any(entries, rolled_at)
    return _together(found, _of_any(others, rolled_at)) if others else found


def _of_any(entries: Sequence[RawEntry], rolled_at: datetime) -> Effects:
    try:
        table = decoding.table(entries)
        return _effects(decoding.by_column(decoding.decode(entries)) if table is None else table, rolled_at)
    except _DISTRUSTED:
        return _effects(decoding.by_column(decoding.decode(entries, distrust=True)), rolled_at)


def _together(one: Effects, other: Effects) -> Effects:
    """The effects of some partitions and of the others."""
    return Effects(
        events=one.events + other.events,
        event_rows=copy_rows.together(one.event_rows, other.event_rows),
        hourly=_added(one.hourly, other.hourly, len(HOURLY_KEY)),
        pools=_added(one.pools, other.pools, len(POOL_KEY)),
        ledger=_added(one.ledger, other.ledger, len(LEDGER_KEY)),
        quarantined=other.quarantined,
        months=sorted({*one.months, *other.months}),
        accepted_at=one.accepted_at | other.accepted_at,
        oldest_accepted_at=min(moment for moment in (one.oldest_accepted_at, other.oldest_accepted_at) if moment is not None),
    )


def _added(rows: Sequence[_Row], others: Sequence[_Row], key: int) -> list[_Row]:
    """Both, by primary key; a customer's are in one partition, but nothing here depends on it."""
    found: dict[tuple[Any, ...], _Row] = {row[:key]: row for row in rows}
    for row in others:
        same = found.get(row[:key])
        found[row[:key]] = row if same is None else cast("_Row", (*row[:key], *map(_sum, same[key:], row[key:])))
    return [found[name] for name in sorted(found)]


def _sum(one: Any, other: Any) -> Any:  # noqa: ANN401 - numbers, and whether a pool is closed
    return one or other if isinstance(one, bool) else one + other


def of_item(item: Quarantined, rolled_at: datetime) -> Effects:
    """What an item of quarantine does to the book now; nothing is done to pools that have its effect already."""
    found = _effects(decoding.by_column(decoding.decode_item(item)), rolled_at)
    return dataclasses.replace(found, pools=[], ledger=[]) if item.booked else found


def _effects(table: Table, rolled_at: datetime) -> Effects:
    records, beside = _frame(table), table.beside
    changes = _pool_changes(records, beside)
    events = records.filter("kept")
    return Effects(
        events=len(events),
        event_rows=_event_rows(table, records, rolled_at) if len(events) else b"",
        hourly=_hourly(events),
        pools=_pools(changes),
        ledger=_ledger(changes),
        quarantined=beside.quarantined,
        months=_months(events),
        accepted_at={partition: clock.from_ms(ms) for partition, ms in beside.last_accepted_ms.items()},
        oldest_accepted_at=None if beside.oldest_accepted_ms is None else clock.from_ms(beside.oldest_accepted_ms),
    )


def set_aside(entry: RawEntry, reason: str) -> Effects:
    """The effects of an entry that is quarantined whole."""
    refused = Quarantined(entry.partition, entry.seq, None, reason, entry.data)
    return Effects(0, b"", [], [], [], [refused], [], {})


def _frame(table: Table) -> pl.DataFrame:
    """One row a record that changes something, with what totals are made of. Raises when a value of these does not fit its column."""
    beside = table.beside
    frame = pl.DataFrame(
        [
            *[pl.Series(name, table.fields[name], pl.Int64) for name in _SUMMED],
            pl.Series("pool", table.fields["pool"], pl.String),
            pl.Series("outcome", table.outcomes, pl.Int64),
            pl.Series("pool_left", table.lefts, pl.Int64),
            pl.Series("spare_left", table.spare_lefts, pl.Int64),
            pl.Series("kept", beside.kept, pl.Boolean),
            pl.Series("seq", beside.seqs, pl.Int64),
            pl.Series("position", beside.positions, pl.Int32),
            pl.Series("accepted_ms", beside.accepted_ms, pl.Int64),
        ]
    )
    if not frame.is_empty() and not frame.select(_storable()).item():
        raise UnstorableError
    return frame.filter(pl.col("kind") != Kind.TICK).with_columns(_spare(), hour=pl.col("accepted_ms") // HOUR_MS)


def _storable() -> pl.Expr:
    """What `rules` asks of a record, for all rows at once, but for what `copy_rows` refuses by itself."""
    change = pl.col("outcome").cast(pl.Int128) - pl.col("amount").cast(pl.Int128)
    return pl.all_horizontal(
        pl.col("kind").is_between(0, max(rules.KINDS)).all(),
        pl.col("tenant_id").is_between(0, rules.INT32_MAX).all(),
        pl.col("customer_id").min() >= 0,
        *[pl.col(name).min() >= -rules.INT64_MAX for name in (*_SUMMED, "outcome", "pool_left", "spare_left")],
        pl.col("occurred_at_ms").is_between(0, rules.MOMENT_MS_MAX).all(),
        *[pl.col(name).is_between(0, rules.MOMENT_MS_MAX // 1000).all() for name in rules.SECOND_FIELDS],
        (~_SET | ~pl.col("kept") | change.is_between(-rules.INT64_MAX, rules.INT64_MAX)).all(),
        (~_USAGE | pl.col("outcome").is_between(0, pl.col("amount"))).all(),
        (~_VOID | pl.col("outcome").is_between(pl.col("amount"), 0)).all(),
        (~_ADJUSTMENT | pl.col("outcome").is_between(pl.min_horizontal(pl.col("amount"), 0), 0)).all(),
        ~pl.col("pool").str.contains("\0", literal=True).any(),
        pl.col("pool").str.len_chars().max() <= rules.POOL_NAME_MAX,
    )


def _spare() -> pl.Expr:
    """The part of a usage record, or of what was taken by hand, that purchased credits paid; negative for what a void gives back."""
    return pl.when(_COUNTED).then(pl.col("outcome")).when(_ADJUSTMENT).then(-pl.col("outcome")).otherwise(0).alias("spare_amount")


def _pool_changes(records: pl.DataFrame, decoded: Decoded) -> pl.DataFrame:
    """One row a change of a pool; (`seq`, `place`) says which came first."""
    amount, outcome, spare = (pl.col(name).cast(pl.Int128) for name in ("amount", "outcome", "spare_amount"))
    key = ("customer_id", "pool", "tenant_id", "hour")
    own = records.filter(pl.col("pool") != "").select(
        *key,
        opening=_NOTHING,
        charged=pl.when(_COUNTED).then(amount - spare).otherwise(_NOTHING),
        adjusted=pl.when(_ADJUSTMENT).then(amount + spare).when(_SET).then(amount - outcome).otherwise(_NOTHING),
        expired=pl.when(_EXPIRY).then(outcome).otherwise(_NOTHING),
        kind=_ledger_kind(),
        closes=_EXPIRY,
        seq="seq",
        place=pl.col("position") + 1,
    )
    paid_elsewhere = records.filter(pl.col("spare_amount") != 0).select(
        "customer_id",
        pl.lit(PURCHASED_CREDITS).alias("pool"),
        *key[2:],
        opening=_NOTHING,
        charged=pl.when(_COUNTED).then(spare).otherwise(_NOTHING),
        adjusted=pl.when(_ADJUSTMENT).then(_NOTHING - spare).otherwise(_NOTHING),
        expired=_NOTHING,
        kind=_ledger_kind(),
        closes=pl.lit(value=False),
        seq="seq",
        place=pl.col("position") + 1,
    )
    return pl.concat([own, paid_elsewhere, _openings(decoded)])


def _ledger_kind() -> pl.Expr:
    kinds = pl.when(_USAGE).then(pl.lit("charge")).when(_VOID).then(pl.lit("void")).when(_EXPIRY).then(pl.lit("expiry"))
    return kinds.otherwise(pl.lit("adjustment"))


def _openings(decoded: Decoded) -> pl.DataFrame:
    """Openings as pool changes. Within an entry they come before its records.

    So a pool that ended stays closed: terms that name the next one are told first, and what was priced with older ones is stale.
    """
    columns = list(zip(*decoded.openings, strict=True)) or [()] * 6
    seqs, accepted_ms, tenants, customers, names, deltas = columns
    frame = pl.DataFrame(
        [
            pl.Series("customer_id", customers, pl.Int64),
            pl.Series("pool", names, pl.String),
            pl.Series("tenant_id", tenants, pl.Int64),
            pl.Series("accepted_ms", accepted_ms, pl.Int64),
            pl.Series("opening", deltas, pl.Int128),
            pl.Series("seq", seqs, pl.Int64),
        ]
    )
    return frame.select(
        "customer_id",
        "pool",
        "tenant_id",
        pl.col("accepted_ms").floordiv(HOUR_MS).alias("hour"),
        "opening",
        charged=_NOTHING,
        adjusted=_NOTHING,
        expired=_NOTHING,
        kind=pl.lit("opening"),
        closes=pl.lit(value=False),
        seq="seq",
        place=pl.lit(0, pl.Int32),
    )


def _hourly(events: pl.DataFrame) -> list[HourlyTotal]:
    sums = [pl.col(name).cast(pl.Int128).sum() for name in _HOURLY_SUMS]
    return (
        events.filter(_COUNTED)
        .with_columns(hour=pl.col("occurred_at_ms") // HOUR_MS)
        .group_by(HOURLY_KEY)
        .agg(pl.when(_VOID).then(-1).otherwise(1).sum().alias("events"), *sums)
        .sort(HOURLY_KEY)
        .rows()
    )


def _pools(changes: pl.DataFrame) -> list[PoolChange]:
    sums = [pl.col(name).sum() for name in _POOL_SUMS]
    key = list(POOL_KEY)
    return changes.group_by(key).agg(*sums, pl.col("closes").sort_by("seq", "place").last()).sort(key).rows()


def _ledger(changes: pl.DataFrame) -> list[LedgerRow]:
    key = list(LEDGER_KEY)
    signed = pl.col("opening") + pl.col("adjusted") - pl.col("charged") - pl.col("expired")
    return changes.group_by(key).agg(signed.sum().alias("amount"), pl.len()).sort(key).rows()


def _months(events: pl.DataFrame) -> list[tuple[int, int]]:
    moment = pl.from_epoch("accepted_ms", time_unit="ms")
    return events.select(moment.dt.year().alias("year"), moment.dt.month().alias("month")).unique().sort("year", "month").rows()


def _event_rows(table: Table, records: pl.DataFrame, rolled_at: datetime) -> bytes:
    """The rows for COPY. `taken` is what was taken from the pool, whatever the kind; what was added is negative."""
    taken = (
        pl.when(_ADJUSTMENT).then(-pl.col("amount")).when(_SET).then(pl.col("outcome") - pl.col("amount"))
        .when(_EXPIRY).then(pl.col("outcome")).otherwise(pl.col("amount"))
    )  # fmt: skip
    amounts = records.filter("kept").select(taken.alias("taken"), "spare_amount")
    beside, kinds = table.beside, table.fields["kind"]
    columns: dict[str, Sequence[Any]] = {
        **table.fields,
        "partition": beside.partitions,
        "seq": beside.seqs,
        "position": beside.positions,
        "accepted_ms": beside.accepted_ms,
        "pool_left": table.lefts,
        "spare_left": table.spare_lefts,
    }
    if len(amounts) < len(kinds):
        chosen = [kept and kind != Kind.TICK for kept, kind in zip(beside.kept, kinds, strict=True)]
        columns = {name: list(compress(values, chosen)) for name, values in columns.items()}
    columns |= {name: amounts[name].to_list() for name in amounts.columns}
    try:
        return copy_rows.encode(columns, rolled_at)
    except (struct.error, copy_rows.NulError) as error:
        raise UnstorableError from error
