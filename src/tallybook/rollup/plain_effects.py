"""What usage of the usual kind does to the book: rows, and sums in 64 bits. Pure."""

# pyright: reportUnknownMemberType=false
# polars types its arguments only partly; what leaves this module is typed in `model.py`.

from collections.abc import Sequence

import polars as pl

from tallybook.core import clock, money
from tallybook.rollup import copy_rows, rules
from tallybook.rollup.model import Effects, HourlyTotal, LedgerRow, PoolChange
from tallybook.rollup.plain_usage import Account, Own, UnusualError, Usage

_HOUR_MS = 3_600_000
_SUMS = ("quantity_nano", "amount", "cost_nano", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
_NUMBERS = ("account", "price_id", "occurred_us", "quantity_beyond", *_SUMS[1:])
HOURLY_KEY = ("tenant_id", "customer_id", "feature_id", "hour", "period_start_s", "price_id")
_ACCOUNT = {"tenant_id": pl.Int64, "customer_id": pl.Int64, "feature_id": pl.Int64, "period_start_s": pl.Int64, "pool": pl.String}
POOL_KEY = ("customer_id", "pool", "tenant_id")
LEDGER_KEY = ("customer_id", "pool", "hour", "kind", "tenant_id")
_NOTHING = pl.lit(0, pl.Int64)
_FIRST_US, _LAST_US = copy_rows.micros(0), copy_rows.micros(rules.MOMENT_MS_MAX)
_LARGEST = rules.INT64_MAX


def effects(usage: Usage) -> Effects:
    """Rows and sums. Raises UnusualError for a value, or a sum, that is beyond its column, struct.error, copy_rows.NulError."""
    own, accounts, moments = usage.own, list(usage.accounts), set(usage.accepted_ms)
    frame = pl.DataFrame(
        [
            *[pl.Series(name, getattr(own, name), pl.Int64) for name in _NUMBERS],
            pl.Series("accepted_ms", usage.accepted_ms, pl.Int64),
        ]
    )
    _check(frame, usage.lefts, accounts)
    frame = frame.with_columns(
        quantity_nano=pl.col("quantity_beyond") + (pl.col("input_tokens") + pl.col("output_tokens")) * money.NANO
    )
    table = pl.DataFrame(accounts, _ACCOUNT, orient="row")
    pools, ledger = _pools_and_ledger(frame, table)
    return Effects(
        events=len(frame),
        event_rows=_rows(usage, own, frame["quantity_nano"].to_list(), accounts),
        hourly=_hourly(frame, table),
        pools=pools,
        ledger=ledger,
        quarantined=[],
        months=sorted({(moment.year, moment.month) for moment in map(clock.from_ms, moments)}),
        accepted_at={partition: clock.from_ms(ms) for partition, ms in usage.last_accepted_ms.items()},
        oldest_accepted_at=clock.from_ms(min(moments)),
    )


def _check(frame: pl.DataFrame, lefts: Sequence[int], accounts: Sequence[Account]) -> None:
    """What `rules` asks of usage, but for what `copy_rows` refuses by itself; and that no sum can be beyond 64 bits."""
    least, most = (dict(zip(frame.columns, row, strict=True)) for row in (frame.min().row(0), frame.max().row(0)))
    largest = {name: max(-least[name], most[name]) for name in frame.columns}
    largest["quantity_nano"] = largest["quantity_beyond"] + (largest["input_tokens"] + largest["output_tokens"]) * money.NANO
    are_sums_narrow = all(largest[name] * len(frame) <= _LARGEST for name in _SUMS)
    are_times = least["occurred_us"] >= _FIRST_US and most["occurred_us"] <= _LAST_US
    if not (are_sums_narrow and are_times and least["amount"] >= 0 and min(*lefts, least["price_id"]) >= -_LARGEST):
        raise UnusualError
    for tenant_id, customer_id, _, period_start_s, pool in accounts:
        if not (0 <= tenant_id <= rules.INT32_MAX and customer_id >= 0 and 0 <= period_start_s <= rules.MOMENT_MS_MAX // 1000):
            raise UnusualError
        if len(pool) > rules.POOL_NAME_MAX:
            raise UnusualError


def _rows(usage: Usage, own: Own, quantities: Sequence[int], accounts: Sequence[Account]) -> bytes:
    beginnings = [copy_rows.account(*account) for account in accounts]
    tokens = (own.input_tokens, own.output_tokens, own.cache_read_tokens, own.cache_write_tokens)
    measures = (quantities, own.amount, own.cost_nano, *tokens, usage.lefts)
    return copy_rows.plain(
        [beginnings[number] for number in own.account],
        own.middle,
        (usage.accepted_ms, usage.positions, own.occurred_us),
        measures,
        (own.digest, own.fingerprint, own.event_id),
    )


def _hourly(frame: pl.DataFrame, table: pl.DataFrame) -> list[HourlyTotal]:
    """Numbers are added up first, by number of account, of which there are few."""
    hour = ((pl.col("occurred_us") + copy_rows.EPOCH_US) // (_HOUR_MS * 1000)).alias("hour")
    sums = frame.group_by("account", "price_id", hour).agg(
        pl.len().cast(pl.Int64).alias("events"), *[pl.col(name).sum() for name in _SUMS]
    )
    by_account = sums.with_columns(table[sums["account"]])
    if table.drop("pool").is_duplicated().any():
        by_account = by_account.group_by(HOURLY_KEY).agg(pl.col("events", *_SUMS).sum())
    return by_account.sort(HOURLY_KEY).select(*HOURLY_KEY, "events", *_SUMS).rows()


def _pools_and_ledger(frame: pl.DataFrame, table: pl.DataFrame) -> tuple[list[PoolChange], list[LedgerRow]]:
    hour = (pl.col("accepted_ms") // _HOUR_MS).alias("hour")
    sums = frame.group_by("account", hour).agg(pl.col("amount").sum(), pl.len().cast(pl.Int64).alias("entries"))
    paid = sums.with_columns(table[sums["account"]], kind=pl.lit("charge")).filter(pl.col("pool") != "")
    pools = paid.group_by(POOL_KEY).agg(
        opening=_NOTHING, charged=pl.col("amount").sum(), adjusted=_NOTHING, expired=_NOTHING, closed=pl.lit(value=False)
    )
    ledger = paid.group_by(LEDGER_KEY).agg(-pl.col("amount").sum(), pl.col("entries").sum())
    return pools.sort(POOL_KEY).rows(), ledger.sort(LEDGER_KEY).rows()
