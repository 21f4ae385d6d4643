"""Single records of the log as rows of a report: usage, what took it back, and corrections; the last step of a drill-down."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import orjson

from tallybook.core import cursors, errors, ids, pools, usage_log
from tallybook.core.pools import PoolKind
from tallybook.core.usage_log import Kind
from tallybook.reports import composition, rules, store
from tallybook.reports.model import Column, EventFilters, RawRow, Unit
from tallybook.storage import queries
from tallybook.storage.postgres import Connection, Row

_SQL = queries.load(__package__)
_ROWS_AT_ONCE = 5_000
_CURSOR_PARTS = 4
_POOLS_REMEMBERED = 4096
KINDS = {"usage": Kind.USAGE, "void": Kind.VOID, "adjustment": Kind.ADJUSTMENT, "set": Kind.SET, "expiry": Kind.EXPIRY}
_KIND_NAMES = {int(kind): name for name, kind in KINDS.items()}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_COUNTS = {
    "inputTokens": "input_tokens",
    "outputTokens": "output_tokens",
    "cacheReadTokens": "cache_read_tokens",
    "cacheWriteTokens": "cache_write_tokens",
    "cacheWrite1hTokens": "cache_write_1h_tokens",
    "webSearches": "web_searches",
}
_PRICES = {
    "inputPrice": "input_pico",
    "outputPrice": "output_pico",
    "cacheReadPrice": "cache_read_pico",
    "cacheWritePrice": "cache_write_pico",
    "cacheWrite1hPrice": "cache_write_1h_pico",
}
COLUMNS = (
    *(Column(name, Unit.TEXT) for name in ("id", "eventId", "kind")),
    *(Column(name, Unit.INSTANT) for name in ("occurredAt", "acceptedAt", "periodStart", "belongsTo")),
    *(Column(name, Unit.TEXT) for name in ("customerId", "externalId", "featureCode", "planCode", "pool")),
    *(Column(name, Unit.NANO) for name in ("quantity", "taken", "charge", "credits", "cost", "margin")),
    *(Column(name, Unit.TEXT) for name in ("model", "matchedBy", "serviceTier")),
    *(Column(name, Unit.COUNT) for name in _COUNTS),
    *(Column(name, Unit.PICO_PER_TOKEN) for name in _PRICES),
    Column("webSearchPrice", Unit.PICO),
    Column("appliedMarginPercent", Unit.BPS),
    Column("catalogVersion", Unit.COUNT),
    *(Column(name, Unit.TEXT) for name in ("properties", "reason", "voids")),
)
"""`taken` is what the pool gave, in the pool's own unit: the sum over a pool's records is what its invoice line calls used."""


async def page(connection: Connection, which: EventFilters, cursor: str | None, limit: int) -> tuple[list[RawRow], str | None]:
    """Up to `limit` records, newest first, and the cursor of the next page. Raises ValidationError for a foreign cursor."""
    await _check_whole(connection, which)
    before = None if cursor is None else _decode(cursor)
    composed = composition.events(which, _SQL, before, limit + 1)
    found = await connection.fetch(composed.grouped, *composed.arguments.values)
    await _check_whole(connection, which)  # a month may have gone since it was looked
    next_cursor = _encode(found[limit - 1]) if len(found) > limit else None
    return [_row(row) for row in found[:limit]], next_cursor


async def stream(connection: Connection, which: EventFilters) -> AsyncIterator[list[RawRow]]:
    """All records, some thousand at a time. Wants a transaction."""
    await _check_whole(connection, which)
    composed = composition.events(which, _SQL, None, None)
    chunk: list[RawRow] = []
    async for row in connection.cursor(composed.grouped, *composed.arguments.values, prefetch=_ROWS_AT_ONCE):
        chunk.append(_row(row))
        if len(chunk) == _ROWS_AT_ONCE:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


async def _check_whole(connection: Connection, which: EventFilters) -> None:
    """What is asked for by its time, or by the period that paid, is listed whole or not at all."""
    earliest = which.starts_at or which.filters.period_start
    if earliest is not None:
        await store.check_whole(connection, which.tenant, earliest)


def _row(row: Row) -> RawRow:
    kind = _kind_of(row["pool"])
    amount, priced_by_model = row["amount"], row["price_id"] != 0
    charge = amount if kind is PoolKind.BALANCE else 0
    properties: dict[str, Any] | None = row["properties"]
    return {
        "id": ids.event_public_id(row["digest"]),
        "eventId": row["event_id"],
        "kind": _KIND_NAMES[row["kind"]],
        "occurredAt": row["occurred_at"],
        "acceptedAt": row["accepted_at"],
        "periodStart": row["period_start"],
        "belongsTo": row["belongs_to"],
        "customerId": row["customer"],
        "externalId": row["external"],
        "featureCode": row["feature"],
        "planCode": row["plan"],
        "pool": row["pool"],
        "quantity": row["quantity_nano"],
        "taken": amount - row["spare_amount"],
        "charge": charge,
        "credits": amount if kind in (PoolKind.CREDITS, PoolKind.PURCHASED) else 0,
        "cost": row["cost_nano"],
        "margin": charge - row["cost_nano"] if priced_by_model else 0,
        "model": row["model"],
        "matchedBy": row["matched_by"],
        "serviceTier": row["service_tier"],
        **{name: row[column] for name, column in _COUNTS.items()},
        **{name: row[column] if priced_by_model else None for name, column in _PRICES.items()},
        "webSearchPrice": row["web_search_pico"] if priced_by_model else None,
        "appliedMarginPercent": row["margin_bps"] if priced_by_model else None,
        "catalogVersion": row["catalog_version"],
        "properties": orjson.dumps(properties).decode() if properties else None,
        "reason": row["reason"],
        "voids": row["voids"],
    }


@lru_cache(maxsize=_POOLS_REMEMBERED)
def _kind_of(pool: str) -> PoolKind:
    return pools.parse(pool).kind


def _encode(row: Row) -> str:
    return cursors.encode(f"{rules.to_us(row['occurred_at'])}.{row['partition']}.{usage_log.place(row['seq'], row['position'])}")


def _decode(cursor: str) -> tuple[datetime, int, int, int]:
    parts = cursors.decode_text(cursor).replace("-", ".").split(".")
    if len(parts) != _CURSOR_PARTS or not all(part.isascii() and part.isdigit() and len(part) < _DIGITS_MAX for part in parts):
        raise errors.invalid("cursor", "cursor must be a nextCursor of an earlier page of this list.")
    us, partition, seq, position = map(int, parts)
    if us > _US_MAX or max(partition, position) > _INT32_MAX:
        raise errors.invalid("cursor", "cursor must be a nextCursor of an earlier page of this list.")
    return _EPOCH + timedelta(microseconds=us), partition, seq, position


_DIGITS_MAX = 19
_INT32_MAX = 2**31 - 1
_US_MAX = 253_402_300_799_999_999
"""The end of the year 9999."""
