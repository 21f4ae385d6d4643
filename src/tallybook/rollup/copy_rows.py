"""Rows of `usage_events` in the binary format of COPY, which Postgres takes in without parsing a text.

What many rows share (whose usage it is, how it was priced, the entry it came in) is encoded once and remembered by its values; the pieces
of all rows are put in their places a column at a time.
"""

import functools
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import repeat
from typing import Any

import msgspec

from tallybook.core import clock
from tallybook.core.usage_log import Record

COLUMNS = (
    *("tenant_id", "customer_id", "feature_id", "period_start", "pool"),
    *("price_id", "margin_bps", "input_pico", "output_pico", "cache_read_pico", "cache_write_pico", "cache_write_1h_pico"),
    *("web_search_pico", "catalog_version", "model", "matched_by", "service_tier"),
    *("partition", "seq", "accepted_at", "rolled_at"),
    *("kind", "belongs_to", "properties", "reason", "voids", "cache_write_1h_tokens", "web_searches", "spare_left"),
    *("identity", "position", "occurred_at", "quantity_nano", "amount", "spare_amount", "cost_nano"),
    *("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "pool_left", "digest", "fingerprint"),
    "event_id",
)
"""The columns of `usage_events` in the order of the rows."""

Columns = Mapping[str, Sequence[Any]]

_ACCOUNT_OF = ("tenant_id", "customer_id", "feature_id", "period_start_s", "pool")
_PRICE_OF = COLUMNS[len(_ACCOUNT_OF) : COLUMNS.index("partition")]
_ENTRY_OF = ("partition", "seq", "accepted_ms")
_RARE_OF = ("kind", "belongs_to_s", "properties", "reason", "voids", "cache_write_1h_tokens", "web_searches", "spare_left")
_MEASURES = (
    *("quantity_nano", "taken", "spare_amount", "cost_nano"),
    *("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "pool_left"),
)
_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
_NULL = b"\xff\xff\xff\xff"
_BESIDE = ("partition", "seq", "position", "taken", "spare_amount", "pool_left", "spare_left")
_RECORD_FIELDS = Record.__struct_fields__
_EPOCH_US = 946_684_800_000_000
"""Times are microseconds since the year 2000."""
_DAY_MS, _FIRST_DAY = 86_400_000, 18_262
"""The first day that an identity can begin with is that of 1 January 2020, the earliest that the till's clock is believed."""
_JSONB_VERSION = b"\x01"
_LENGTH = struct.Struct(">i").pack
_SMALL, _INT, _LONG = (struct.Struct(f">i{code}").pack for code in "hiq")
_FIRST = struct.pack(">h", len(COLUMNS))


class NulError(Exception):
    """A text holds a NUL, which Postgres does not store."""


def encode(columns: Columns, rolled_at: datetime) -> bytes:
    """All rows, with what begins and ends a COPY.

    The columns are those of `Record`, and by row `partition`, `seq`, `accepted_ms`, `position`, `taken` (from the pool), `spare_amount`,
    `pool_left` and `spare_left`. Raises struct.error for a number that does not fit its column, NulError.
    """
    rolled = _LONG(8, _micros(clock.to_ms(rolled_at)))
    json = [None if not value else msgspec.json.encode(value) for value in columns["properties"]]
    parts = (
        _remembered(_account, columns, _ACCOUNT_OF),
        _remembered(_price, columns, _PRICE_OF),
        _remembered(lambda *entry: _entry(*entry) + rolled, columns, _ENTRY_OF),
        _remembered(_rare, {**columns, "properties": json}, _RARE_OF),
        _own(columns),
        [_text(value) for value in columns["event_id"]],
    )
    pieces = [b""] * (len(parts) * len(json))
    for place, part in enumerate(parts):
        pieces[place :: len(parts)] = part
    return b"".join((_HEADER, *pieces, _TRAILER))


def refusal(record: Record) -> str | None:
    """Why a record can't be a row, whatever stands beside it; None when it can."""
    columns = {name: [value] for name, value in zip(_RECORD_FIELDS, msgspec.structs.astuple(record), strict=True)}
    try:
        encode({**columns, **{name: [0] for name in _BESIDE}, "accepted_ms": [_FIRST_DAY * _DAY_MS]}, clock.from_ms(0))
    except NulError:
        return "a text has a NUL in it"
    except (struct.error, ValueError) as error:
        return f"no row: {error}"
    return None


def _remembered(make: Callable[..., bytes], columns: Columns, names: Iterable[str]) -> list[bytes]:
    """What `make` makes of these columns' values, made once for equal ones."""
    made = _Made(make)
    return [made[values] for values in zip(*(columns[name] for name in names), strict=True)]


class _Made(dict[tuple[Any, ...], bytes]):
    """By values what a function makes of them."""

    def __init__(self, make: Callable[..., bytes]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, values: tuple[Any, ...]) -> bytes:
        found = self[values] = self._make(*values)
        return found


def _account(tenant_id: int, customer_id: int, feature_id: int, period_start_s: int, pool: str) -> bytes:
    who = _FIRST + _INT(4, tenant_id) + _LONG(8, customer_id) + _INT(4, feature_id)
    return who + _LONG(8, _micros(period_start_s * 1000)) + _text(pool)


def _price(price_id: int, margin_bps: int, *others: Any) -> bytes:  # noqa: ANN401 - numbers, then three texts
    numbers, texts = others[:-3], others[-3:]
    priced = _LONG(8, price_id) + _INT(4, margin_bps) + b"".join([_LONG(8, number) for number in numbers])
    return priced + b"".join(map(_text, texts))


def _entry(partition: int, seq: int, accepted_ms: int) -> bytes:
    return _SMALL(2, partition) + _LONG(8, seq) + _LONG(8, _micros(accepted_ms))


def _rare(
    kind: int, belongs_to_s: int, properties: bytes | None, reason: str | None, voids: str | None,
    write_1h: int, searches: int, spare_left: int,
) -> bytes:  # fmt: skip
    """The kind, and what few rows have."""
    belongs_to = _LONG(8, _micros(belongs_to_s * 1000)) if belongs_to_s else _NULL
    texts = _json(properties) + _text(reason) + _text(voids)
    return _SMALL(2, kind) + belongs_to + texts + _LONG(8, write_1h) + _INT(4, searches) + _LONG(8, spare_left)


def _own(columns: Columns) -> list[bytes]:
    """The measures and the identity, which are each row's own."""
    digests, fingerprints = columns["digest"], columns["fingerprint"]
    occurred_us = [ms * 1000 - _EPOCH_US for ms in columns["occurred_at_ms"]]
    days = {ms: (ms // _DAY_MS - _FIRST_DAY).to_bytes(2) for ms in set(columns["accepted_ms"])}
    accepted = [days[ms] for ms in columns["accepted_ms"]]
    words: list[Iterable[Any]] = [repeat(8), accepted, digests, repeat(4), columns["position"], repeat(8), occurred_us]
    for name in _MEASURES:
        words += (repeat(8), columns[name])
    sizes = set(zip(map(len, digests), map(len, fingerprints), strict=True))
    if len(sizes) == 1:
        digest_bytes, fingerprint_bytes = sizes.pop()
        return list(
            map(
                _pack_own(digest_bytes, fingerprint_bytes),
                *words,
                repeat(digest_bytes),
                digests,
                repeat(fingerprint_bytes),
                fingerprints,
            )
        )
    rows = zip(*words, map(len, digests), digests, map(len, fingerprints), fingerprints, strict=False)
    return [_pack_own(row[-4], row[-2])(*row) for row in rows]


@functools.cache
def _pack_own(digest_bytes: int, fingerprint_bytes: int) -> Callable[..., bytes]:
    return struct.Struct(f">i2s6siiiq{'iq' * len(_MEASURES)}i{digest_bytes}si{fingerprint_bytes}s").pack


def _json(data: bytes | None) -> bytes:
    if data is None:
        return _NULL
    # The same six characters as somebody's text stand behind a backslash that is escaped itself.
    if rb"\u0000" in data and rb"\u0000" in data.replace(rb"\\", b""):
        raise NulError
    return _LENGTH(len(data) + 1) + _JSONB_VERSION + data


def _text(value: str | None) -> bytes:
    if value is None:
        return _NULL
    if "\0" in value:
        raise NulError
    data = value.encode()
    return _LENGTH(len(data)) + data


def _micros(ms: int) -> int:
    return ms * 1000 - _EPOCH_US
