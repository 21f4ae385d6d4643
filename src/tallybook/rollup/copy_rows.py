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
from tallybook.core.records import DIGEST_BYTES, IDEMPOTENCY_BYTES, PAYLOAD_BYTES, Record

COLUMNS = (
    *("tenant_id", "customer_id", "feature_id", "period_start", "pool"),
    *("price_id", "margin_bps", "input_pico", "output_pico", "cache_read_pico", "cache_write_pico", "cache_write_1h_pico"),
    *("web_search_pico", "catalog_version", "model", "matched_by", "service_tier"),
    *("partition", "seq", "accepted_at", "rolled_at"),
    *(
        "kind",
        "belongs_to",
        "properties",
        "reason",
        "voids",
        "cache_write_1h_tokens",
        "web_searches",
        "spare_left",
        "spare_amount",
    ),
    *("identity", "position", "occurred_at", "quantity_nano", "amount", "cost_nano"),
    *("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "pool_left", "digest", "fingerprint"),
    "event_id",
)
"""The columns of `usage_events` in the order of the rows."""

Columns = Mapping[str, Sequence[Any]]

ACCOUNT_OF = ("tenant_id", "customer_id", "feature_id", "period_start_s", "pool")
PRICE_OF = COLUMNS[len(ACCOUNT_OF) : COLUMNS.index("partition")]
_ENTRY_OF = ("partition", "seq", "accepted_ms")
RARE_OF = ("belongs_to_s", "properties", "reason", "voids", "cache_write_1h_tokens", "web_searches")
"""Of what is the same of most records, the fields of `Record`."""
_RARE_OF = ("kind", *RARE_OF, "spare_left", "spare_amount")
_MEASURES = (
    *("quantity_nano", "taken", "cost_nano"),
    *("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "pool_left"),
)
_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
_NULL = b"\xff\xff\xff\xff"
_BESIDE = ("partition", "seq", "position", "taken", "spare_amount", "pool_left", "spare_left")
_RECORD_FIELDS = Record.__struct_fields__
EPOCH_US = 946_684_800_000_000
"""Times are microseconds since the year 2000."""
_DAY_MS, _FIRST_DAY = 86_400_000, 18_262
"""The first day that an identity can begin with is that of 1 January 2020, the earliest that the till's clock is believed."""
_JSONB_VERSION = b"\x01"
_DIGEST_BYTES, _FINGERPRINT_BYTES = DIGEST_BYTES, PAYLOAD_BYTES + IDEMPOTENCY_BYTES
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
    rolled = moment(rolled_at)
    json = list(map(json_of, columns["properties"]))
    parts = (
        _remembered(account, columns, ACCOUNT_OF),
        _remembered(price, columns, PRICE_OF),
        _remembered(lambda *came: entry(*came) + rolled, columns, _ENTRY_OF),
        _remembered(rare, {**columns, "properties": json}, _RARE_OF),
        _own(columns),
        [_text(value) for value in columns["event_id"]],
    )
    pieces = [b""] * (len(parts) * len(json))
    for place, part in enumerate(parts):
        pieces[place :: len(parts)] = part
    return b"".join((_HEADER, *pieces, _TRAILER))


def plain(
    beginnings: Sequence[bytes],
    middles: Sequence[bytes],
    moments: tuple[Sequence[int], Sequence[int], Sequence[int]],
    measures: Sequence[Sequence[int]],
    names: tuple[Sequence[bytes], Sequence[bytes], Sequence[str | None]],
) -> bytes:
    """The same of usage whose identity is as it should be, from rows' beginnings (`account`) and middles (the parts up to `rare`).

    The moments are when it was accepted (ms), the place in its entry, and when it occurred (µs, `micros`); the names identity,
    fingerprint and event id. Raises struct.error for a number that does not fit its column, NulError.
    """
    (accepted_ms, positions, occurred_us), (digests, fingerprints, event_ids) = moments, names
    texts = [b"" if event_id is None else event_id.encode() for event_id in event_ids]
    sizes = [-1 if event_id is None else len(text) for event_id, text in zip(event_ids, texts, strict=True)]
    if b"\0" in b"".join(texts):
        raise NulError
    days, places = {ms: _LENGTH(8) + _day(ms) for ms in set(accepted_ms)}, [_INT(4, place) for place in range(max(positions) + 1)]
    words: list[Iterable[Any]] = [
        [days[ms] for ms in accepted_ms],
        digests,
        [places[place] for place in positions],
        repeat(8),
        occurred_us,
    ]
    for measure in measures:
        words += (repeat(8), measure)
    words += (repeat(_DIGEST_BYTES), digests, repeat(_FINGERPRINT_BYTES), fingerprints, sizes)
    pieces = [b""] * (4 * len(middles))
    pieces[::4], pieces[1::4], pieces[2::4], pieces[3::4] = beginnings, middles, list(map(_pack_plain, *words)), texts
    return b"".join((_HEADER, *pieces, _TRAILER))


def together(one: bytes, other: bytes) -> bytes:
    """The rows of both; either may be nothing."""
    return b"".join((one[: -len(_TRAILER)], other[len(_HEADER) :])) if one and other else one or other


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
    made = Made(make)
    return [made[values] for values in zip(*(columns[name] for name in names), strict=True)]


class Made(dict[tuple[Any, ...], bytes]):
    """By values what a function makes of them."""

    def __init__(self, make: Callable[..., bytes]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, values: tuple[Any, ...]) -> bytes:
        found = self[values] = self._make(*values)
        return found


def moment(when: datetime) -> bytes:
    """A time as a column."""
    return _LONG(8, micros(clock.to_ms(when)))


def json_of(properties: Mapping[str, str] | None) -> bytes | None:
    """Properties as JSON; None where there are none."""
    return msgspec.json.encode(properties) if properties else None


def account(tenant_id: int, customer_id: int, feature_id: int, period_start_s: int, pool: str) -> bytes:
    """The beginning of a row: whose usage it is, and what pays."""
    who = _FIRST + _INT(4, tenant_id) + _LONG(8, customer_id) + _INT(4, feature_id)
    return who + _LONG(8, micros(period_start_s * 1000)) + _text(pool)


def price(price_id: int, margin_bps: int, *others: Any) -> bytes:  # noqa: ANN401 - numbers, then three texts
    """How usage was priced."""
    numbers, texts = others[:-3], others[-3:]
    priced = _LONG(8, price_id) + _INT(4, margin_bps) + b"".join([_LONG(8, number) for number in numbers])
    return priced + b"".join(map(_text, texts))


def entry(partition: int, seq: int, accepted_ms: int) -> bytes:
    """The entry that a record came in."""
    return _SMALL(2, partition) + _LONG(8, seq) + _LONG(8, micros(accepted_ms))


def rare(
    kind: int, belongs_to_s: int, properties: bytes | None, reason: str | None, voids: str | None,
    write_1h: int, searches: int, spare_left: int, spare_amount: int,
) -> bytes:  # fmt: skip
    """The kind, and what few rows have."""
    belongs_to = _LONG(8, micros(belongs_to_s * 1000)) if belongs_to_s else _NULL
    texts = _json(properties) + _text(reason) + _text(voids)
    numbers = _LONG(8, write_1h) + _INT(4, searches) + _LONG(8, spare_left) + _LONG(8, spare_amount)
    return _SMALL(2, kind) + belongs_to + texts + numbers


def _own(columns: Columns) -> list[bytes]:
    """The measures and the identity, which are each row's own."""
    digests, fingerprints = columns["digest"], columns["fingerprint"]
    occurred_us = [ms * 1000 - EPOCH_US for ms in columns["occurred_at_ms"]]
    days = {ms: _day(ms) for ms in set(columns["accepted_ms"])}
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


def _day(accepted_ms: int) -> bytes:
    """What an identity begins with."""
    return (accepted_ms // _DAY_MS - _FIRST_DAY).to_bytes(2)


_pack_plain = struct.Struct(f">6s6s8siq{'iq' * len(_MEASURES)}i{_DIGEST_BYTES}si{_FINGERPRINT_BYTES}si").pack


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


def micros(ms: int) -> int:
    """Unix milliseconds as Postgres counts."""
    return ms * 1000 - EPOCH_US
