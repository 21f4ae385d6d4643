"""Log entries to what they do to the book: event rows, hourly totals, pool changes, ledger rows. Pure.

Sums are 128-bit integers; a value that does not fit its column sends its record to quarantine, so nothing can wrap or round.
"""

# pyright: reportUnknownMemberType=false
# polars types its arguments only partly; what leaves this module is typed in `model.py`.

import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import Any

import msgspec
import polars as pl

from tallybook.core import clock
from tallybook.core.pools import PURCHASED_CREDITS
from tallybook.core.usage_log import Kind, Record
from tallybook.rollup import decoding, rules
from tallybook.rollup.decoding import Decoded, Table
from tallybook.rollup.model import Effects, HourlyTotal, LedgerRow, PoolChange, Quarantined, RawEntry

HOUR_MS = 3_600_000
EVENT_COLUMNS = (
    *("tenant_id", "customer_id", "feature_id", "digest", "event_id", "kind"),
    *("occurred_at", "accepted_at", "rolled_at", "period_start", "belongs_to"),
    *("pool", "quantity_nano", "amount", "spare_amount", "cost_nano", "margin_bps", "price_id"),
    *("model", "matched_by", "service_tier"),
    *("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "cache_write_1h_tokens", "web_searches"),
    *("input_pico", "output_pico", "cache_read_pico", "cache_write_pico", "cache_write_1h_pico"),
    *("web_search_pico", "catalog_version"),
    *("properties", "reason", "voids", "fingerprint", "partition", "seq", "position"),
    *("pool_left", "spare_left"),
)
"""The columns of `usage_events` in the order of `Effects.events_csv`."""

_FIELDS = [field.name for field in msgspec.structs.fields(Record)]
_OTHER_TYPES: dict[str, type[pl.DataType]] = {
    "digest": pl.Binary,
    "pool": pl.String,
    "fingerprint": pl.Binary,
    **dict.fromkeys(rules.TEXT_FIELDS, pl.String),
}
_HOURLY_KEY = ("tenant_id", "customer_id", "feature_id", "hour", "period_start_s", "price_id")
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


class UnstorableError(Exception):
    """Some record holds a value that its column cannot; the columns do not say which."""


def effects(entries: Sequence[RawEntry], rolled_at: datetime) -> Effects:
    """What the entries, in log order per partition, do to the book. Never raises for what an entry holds."""
    table = decoding.table(entries)
    decoded = table.beside if table is not None else decoding.decode(entries)
    try:
        records = _frame(decoded) if table is None else _frame_of_table(table)
    except (UnstorableError, TypeError, OverflowError, pl.exceptions.PolarsError):
        decoded = decoding.decode(entries, distrust=True)
        records = _frame(decoded)
    return _effects(decoded, records, rolled_at)


def of_item(item: Quarantined, rolled_at: datetime) -> Effects:
    """What an item of quarantine does to the book now; nothing is done to pools that have its effect already."""
    decoded = decoding.decode_item(item)
    found = _effects(decoded, _frame(decoded), rolled_at)
    return dataclasses.replace(found, pools=[], ledger=[]) if item.booked else found


def _effects(decoded: Decoded, records: pl.DataFrame, rolled_at: datetime) -> Effects:
    changes = _pool_changes(records, decoded)
    events = records.filter("kept")
    return Effects(
        events=len(events),
        events_csv=_events_csv(events, rolled_at),
        hourly=_hourly(events),
        pools=_pools(changes),
        ledger=_ledger(changes),
        quarantined=decoded.quarantined,
        months=_months(events),
        accepted_at={partition: clock.from_ms(ms) for partition, ms in decoded.last_accepted_ms.items()},
        oldest_accepted_at=None if decoded.oldest_accepted_ms is None else clock.from_ms(decoded.oldest_accepted_ms),
    )


def set_aside(entry: RawEntry, reason: str) -> Effects:
    """The effects of an entry that is quarantined whole."""
    refused = Quarantined(entry.partition, entry.seq, None, reason, entry.data)
    return Effects(0, b"", [], [], [], [refused], [], {})


def _frame(decoded: Decoded) -> pl.DataFrame:
    """One row a record that changes something. Raises when any value does not fit its column."""
    values = list(chain.from_iterable(map(msgspec.structs.astuple, decoded.records)))
    fields = {name: values[place :: len(_FIELDS)] for place, name in enumerate(_FIELDS)}
    amounts = [
        pl.Series("outcome", decoded.outcomes, pl.String).replace("", "0").cast(pl.Int64),
        pl.Series("pool_left", decoded.lefts, pl.String).replace("", "0").cast(pl.Int64),
        pl.Series("spare_left", decoded.spare_lefts, pl.String).replace("", "0").cast(pl.Int64),
    ]
    return _checked(fields, amounts, decoded)


def _frame_of_table(table: Table) -> pl.DataFrame:
    """The same, of records that were never made."""
    amounts = [
        pl.Series("outcome", table.outcomes, pl.Int64),
        pl.Series("pool_left", table.lefts, pl.Int64),
        pl.Series("spare_left", table.spare_lefts, pl.Int64),
    ]
    return _checked(table.fields, amounts, table.beside)


def _checked(fields: Mapping[str, list[Any]], amounts: Iterable[pl.Series], decoded: Decoded) -> pl.DataFrame:
    properties = [msgspec.json.encode(value).decode() if value else None for value in fields["properties"]]
    frame = pl.DataFrame(
        [
            *[
                pl.Series(name, values, _OTHER_TYPES.get(name, pl.Int64))
                for name, values in fields.items()
                if name != "properties"
            ],
            *amounts,
            pl.Series("properties", properties, pl.String),
            pl.Series("kept", decoded.kept, pl.Boolean),
            pl.Series("partition", decoded.partitions, pl.Int32),
            pl.Series("seq", decoded.seqs, pl.Int64),
            pl.Series("position", decoded.positions, pl.Int32),
            pl.Series("accepted_ms", decoded.accepted_ms, pl.Int64),
        ]
    )
    if not frame.is_empty() and not frame.select(_storable()).item():
        raise UnstorableError
    return frame.filter(pl.col("kind") != Kind.TICK).with_columns(_spare(), hour=pl.col("accepted_ms") // HOUR_MS)


def _storable() -> pl.Expr:
    """The same rules as `rules.effect_problem` and `rules.detail_problem`, for all rows at once."""
    nul_free = [~pl.col(name).str.contains("\0", literal=True).any() for name in ("pool", *rules.TEXT_FIELDS)]
    return pl.all_horizontal(
        pl.col("kind").is_between(0, max(rules.KINDS)).all(),
        pl.col("tenant_id").min() >= 0,
        pl.col("customer_id").min() >= 0,
        *[pl.col(name).min() > -rules.INT64_MAX - 1 for name in (*rules.INT64_FIELDS, "outcome", "pool_left", "spare_left")],
        *[pl.col(name).abs().max() <= rules.INT32_MAX for name in rules.INT32_FIELDS],
        pl.col("occurred_at_ms").is_between(0, rules.MOMENT_MS_MAX).all(),
        *[pl.col(name).is_between(0, rules.MOMENT_MS_MAX // 1000).all() for name in rules.SECOND_FIELDS],
        (~_USAGE | pl.col("outcome").is_between(0, pl.col("amount"))).all(),
        (~_VOID | pl.col("outcome").is_between(pl.col("amount"), 0)).all(),
        (~_ADJUSTMENT | pl.col("outcome").is_between(pl.min_horizontal(pl.col("amount"), 0), 0)).all(),
        *nul_free,
        pl.col("pool").str.len_chars().max() <= rules.POOL_NAME_MAX,
        ~pl.col("properties").str.contains("\\u0000", literal=True).any(),
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
    """Openings as pool changes. Within an entry they come before its records."""
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
        .group_by(_HOURLY_KEY)
        .agg(pl.when(_VOID).then(-1).otherwise(1).sum().alias("events"), *sums)
        .sort(_HOURLY_KEY)
        .rows()
    )


def _pools(changes: pl.DataFrame) -> list[PoolChange]:
    sums = [pl.col(name).sum() for name in _POOL_SUMS]
    key = ["customer_id", "pool", "tenant_id"]
    return changes.group_by(key).agg(*sums, pl.col("closes").sort_by("seq", "place").last()).sort(key).rows()


def _ledger(changes: pl.DataFrame) -> list[LedgerRow]:
    key = ["customer_id", "pool", "hour", "kind", "tenant_id"]
    signed = pl.col("opening") + pl.col("adjusted") - pl.col("charged") - pl.col("expired")
    return changes.group_by(key).agg(signed.sum().alias("amount"), pl.len()).sort(key).rows()


def _months(events: pl.DataFrame) -> list[tuple[int, int]]:
    moment = pl.from_epoch("accepted_ms", time_unit="ms")
    return events.select(moment.dt.year().alias("year"), moment.dt.month().alias("month")).unique().sort("year", "month").rows()


def _events_csv(events: pl.DataFrame, rolled_at: datetime) -> bytes:
    """The rows for COPY. `amount` is what was taken from the pool, whatever the kind; what was added is negative."""
    taken = (
        pl.when(_ADJUSTMENT).then(-pl.col("amount")).when(_SET).then(pl.col("outcome") - pl.col("amount"))
        .when(_EXPIRY).then(pl.col("outcome")).otherwise(pl.col("amount"))
    )  # fmt: skip
    belongs_to = pl.when(pl.col("belongs_to_s") != 0).then(pl.col("belongs_to_s") * 1000)
    rows = events.with_columns(
        digest="\\x" + pl.col("digest").bin.encode("hex"),
        fingerprint="\\x" + pl.col("fingerprint").bin.encode("hex"),
        amount=taken,
        occurred_at=pl.from_epoch("occurred_at_ms", time_unit="ms"),
        accepted_at=pl.from_epoch("accepted_ms", time_unit="ms"),
        rolled_at=pl.lit(rolled_at.replace(tzinfo=None)).dt.cast_time_unit("ms"),
        period_start=pl.from_epoch(pl.col("period_start_s") * 1000, time_unit="ms"),
        belongs_to=pl.from_epoch(belongs_to, time_unit="ms"),
    ).select(EVENT_COLUMNS)
    buffer = io.BytesIO()
    rows.write_csv(buffer, include_header=False, datetime_format="%Y-%m-%d %H:%M:%S%.3f+00")
    return buffer.getvalue()
