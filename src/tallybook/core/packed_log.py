"""The records of one log entry by columns, as Python writes them and the till's script copies them into the log.

    [identities, fingerprints of payloads, those of Idempotency-Keys, columns]

The first three are bytes, 16, 8 and 4 a record. There are no keys when no record has one, and no identities when all records are named:
then each follows from the customer and the event id. A column is what every record has, or one value a record; what many
records share stands once, in a table.
"""

import itertools
import re
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar, cast

import msgspec

from tallybook.core import ids, money
from tallybook.core.records import DIGEST_BYTES, IDEMPOTENCY_BYTES, PAYLOAD_BYTES, Record

Value = TypeVar("Value")
Column = Value | list[Value]
"""The value that all records have, or each record's own."""

_NO_DIGEST = bytes(DIGEST_BYTES)
_NO_KEY = bytes(IDEMPOTENCY_BYTES)
_BIN32 = struct.Struct(">BI")
_NUMBER = re.compile(r"[1-9][0-9]{0,17}(?=\.)")


class Account(NamedTuple):
    """Who used what, and what pays for it. The fields are those of `Record`.

    `pool` ends before the start of its period and begins after the number of its subscription, which is `pool_of`, if it can.
    """

    tenant_id: int
    customer_id: int
    feature_id: int
    period_start_s: int
    pool_of: int | None
    pool: str


class AccountColumns(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The table of accounts."""

    tenant_id: Column[int]
    customer_id: Column[int]
    feature_id: Column[int]
    period_start_s: Column[int]
    pool_of: Column[int | None]
    pool: Column[str]


class PriceColumns(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The table of how usage was priced. The fields are those of `Record`."""

    model: Column[str | None]
    matched_by: Column[str | None]
    service_tier: Column[str | None]
    price_id: Column[int]
    margin_bps: Column[int]
    input_pico: Column[int]
    output_pico: Column[int]
    cache_read_pico: Column[int]
    cache_write_pico: Column[int]
    cache_write_1h_pico: Column[int]
    web_search_pico: Column[int]
    catalog_version: Column[int]


class Columns(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What is said of records beside their identities. The names are those of `Record`, but for what is told here.

    `counts` says how many records of each account stand together, `price` is the place of each record's in its table. An event id goes
    on after `id_prefix`, a time after `occurred_from_ms`.
    `quantity_beyond` is the quantity less the tokens in and out, which are the quantity of AI usage.
    """

    accounts: AccountColumns
    counts: Column[int]
    prices: PriceColumns
    price: Column[int]
    id_prefix: str
    event_id: Column[str | None]
    occurred_from_ms: int
    occurred_ms: Column[int]
    quantity_beyond: Column[int]
    kind: Column[int]
    amount: Column[int]
    belongs_to_s: Column[int]
    properties: Column[dict[str, str] | None]
    reason: Column[str | None]
    cost_nano: Column[int]
    input_tokens: Column[int]
    output_tokens: Column[int]
    cache_read_tokens: Column[int]
    cache_write_tokens: Column[int]
    cache_write_1h_tokens: Column[int]
    web_searches: Column[int]
    voids: Column[str | None]


class Packed(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """All of it."""

    digests: bytes
    payloads: bytes
    keys: bytes
    columns: Columns

    def __len__(self) -> int:
        return len(self.payloads) // PAYLOAD_BYTES


class Identities(NamedTuple):
    """What tells records apart, one after the other: identities, and fingerprints of payloads and of keys (none without a key)."""

    digests: bytes
    payloads: bytes
    keys: bytes

    def packed(self) -> bytes:
        """For the script to find by position: each with a header of five bytes that ends with its length."""
        return b"".join(map(_binary, self))


_PLAIN = Columns.__struct_fields__[9:]
_place = Record.__struct_fields__.index
_EVENT_ID, _OCCURRED = map(_place, ("event_id", "occurred_at_ms"))
_plain_of = itemgetter(*map(_place, _PLAIN))
_price_of = itemgetter(*map(_place, PriceColumns.__struct_fields__))
_measures_of = itemgetter(*map(_place, ("quantity_nano", "input_tokens", "output_tokens")))
_values = msgspec.structs.astuple
_encode = msgspec.msgpack.Encoder().encode


def account(tenant_id: int, customer_id: int, feature_id: int, period_start_s: int, pool: str) -> Account:
    """A row of the table of accounts; `pool` is the whole name."""
    end = str(period_start_s)
    name = pool[: -len(end)] if pool.endswith(f".{end}") else pool
    number = _NUMBER.match(name)
    if number is None:
        return Account(tenant_id, customer_id, feature_id, period_start_s, None, name)
    return Account(tenant_id, customer_id, feature_id, period_start_s, int(number[0]), name[number.end() :])


def whole_pool(pool_of: int | None, pool: str, period_start_s: int) -> str:
    """The whole name of a pool, from what the table of accounts says of it."""
    return f"{'' if pool_of is None else pool_of}{pool}{period_start_s if pool[-1:] == '.' else ''}"


def pack(
    records: Sequence[Record], told: Identities, accounts: Sequence[Account], counts: Sequence[int], *, are_named: bool
) -> bytes:
    """Records as bytes. `accounts` says whose they are, `counts` how many of each stand together.

    `are_named` promises that each identity is `ids.event_digest` of the record's tenant, customer and event id.
    """
    columns = list(zip(*map(_values, records), strict=True))
    body = [_transposed(accounts), _column(counts), *_prices(columns), *_beginnings(columns), *map(_column, _plain_of(columns))]
    return b"\x94" + (told._replace(digests=b"") if are_named else told).packed() + _encode(body)


def pack_rows(records: Sequence[Record]) -> bytes:
    """Records as bytes, one after the other: faster where they are few."""
    return _encode(records)


def identities(digests: Sequence[bytes], fingerprints: Sequence[bytes]) -> Identities:
    """What tells records apart."""
    of_records = b"".join(digests)
    if len(of_records) != DIGEST_BYTES * len(digests):
        of_records = b"".join([digest or _NO_DIGEST for digest in digests])
    halves = struct.unpack(f"{PAYLOAD_BYTES}s{IDEMPOTENCY_BYTES}s" * len(fingerprints), b"".join(fingerprints))
    keys = b"".join(halves[1::2])
    return Identities(of_records, b"".join(halves[::2]), keys if keys.strip(b"\0") else b"")


def _binary(data: bytes) -> bytes:
    return _BIN32.pack(0xC6, len(data)) + data


def _prices(columns: Sequence[Sequence[Any]]) -> tuple[object, object]:
    """The table, and the place in it of each record's."""
    places: defaultdict[tuple[object, ...], int] = defaultdict(itertools.count().__next__)
    column = list(map(places.__getitem__, zip(*_price_of(columns), strict=True)))
    return _transposed(places), _column(column)


def _transposed(rows: Iterable[Sequence[Any]]) -> list[object]:
    return list(map(_column, zip(*rows, strict=True)))


def _beginnings(columns: Sequence[Sequence[Any]]) -> Iterator[object]:
    """Columns that are said by how they differ from something."""
    yield from _after_prefix(columns[_EVENT_ID])
    occurred: Sequence[int] = columns[_OCCURRED]
    first = min(occurred)
    yield first
    yield _column([moment - first for moment in occurred])
    yield _column(
        [quantity - (taken + given) * money.NANO for quantity, taken, given in zip(*_measures_of(columns), strict=True)]
    )


def _after_prefix(event_ids: Sequence[str | None]) -> tuple[str, object]:
    """What all ids begin with, and the column of how each goes on."""
    if None in event_ids:
        return "", _column(event_ids)
    texts = cast("Sequence[str]", event_ids)
    first, last = min(texts), max(texts)
    same = 0
    for one, other in zip(first, last, strict=False):
        if one != other:
            break
        same += 1
    return first[:same], _column([text[same:] for text in texts])


def _column(values: Sequence[Value]) -> Value | Sequence[Value]:
    return values[0] if values.count(values[0]) == len(values) else values


def spread(column: Any, count: int) -> list[Any]:  # noqa: ANN401 - a column of any of the types above
    """One value a record. Raises msgspec.ValidationError for a column of another length."""
    if not isinstance(column, list):
        return [column] * count
    values = cast("list[Any]", column)
    if len(values) != count:
        raise msgspec.ValidationError(f"a column of {len(values)} values for {count} records")
    return values


def pieces(data: bytes, size: int, count: int) -> list[bytes]:
    """Bytes in pieces of a size. Raises msgspec.ValidationError when there are not as many."""
    if len(data) != size * count:
        raise msgspec.ValidationError(f"{len(data)} bytes for {count} records of {size} each")
    return [data[start : start + size] for start in range(0, len(data), size)]


def unpack(packed: Packed) -> dict[str, list[Any]]:
    """The fields of `Record` by name, a value a record. Raises msgspec.ValidationError for columns that do not fit together."""
    count, columns = len(packed), packed.columns
    found = {name: spread(getattr(columns, name), count) for name in _PLAIN}
    found |= _accounts(columns, count) | _of_table(columns.prices, spread(columns.price, count))
    found["fingerprint"] = _fingerprints(packed, count)
    rests, prefix = spread(columns.event_id, count), columns.id_prefix
    found["event_id"] = [None if rest is None else prefix + rest for rest in rests] if prefix else rests
    found["digest"] = _digests(packed, found)
    first = columns.occurred_from_ms
    occurred = columns.occurred_ms
    found["occurred_at_ms"] = (
        [first + occurred] * count if isinstance(occurred, int) else [first + ms for ms in spread(occurred, count)]
    )
    measures = zip(spread(columns.quantity_beyond, count), found["input_tokens"], found["output_tokens"], strict=True)
    found["quantity_nano"] = [beyond + (taken + given) * money.NANO for beyond, taken, given in measures]
    return found


def records(packed: Packed) -> list[Record]:
    """The records again, in their order. Raises msgspec.ValidationError as `unpack` does."""
    found = unpack(packed)
    return [Record(*values) for values in zip(*(found[name] for name in Record.__struct_fields__), strict=True)]


def _digests(packed: Packed, found: dict[str, list[Any]]) -> list[bytes]:
    if packed.digests:
        return [b"" if digest == _NO_DIGEST else digest for digest in pieces(packed.digests, DIGEST_BYTES, len(packed))]
    if None in found["event_id"]:
        raise msgspec.ValidationError("neither identities nor an event id for each record")
    return list(map(ids.event_digest, found["tenant_id"], found["customer_id"], found["event_id"]))


def _fingerprints(packed: Packed, count: int) -> list[bytes]:
    payloads = pieces(packed.payloads, PAYLOAD_BYTES, count)
    if not packed.keys:
        return [payload + _NO_KEY for payload in payloads]
    return [payload + key for payload, key in zip(payloads, pieces(packed.keys, IDEMPOTENCY_BYTES, count), strict=True)]


def _accounts(columns: Columns, count: int) -> dict[str, list[Any]]:
    counts = columns.counts
    many = len(counts) if isinstance(counts, list) else count // max(counts, 1)
    each = spread(counts, many)
    if sum(each) != count:
        raise msgspec.ValidationError(f"accounts of {sum(each)} records for {count}")
    found = {name: spread(getattr(columns.accounts, name), many) for name in AccountColumns.__struct_fields__}
    found["pool"] = list(map(whole_pool, found.pop("pool_of"), found["pool"], found["period_start_s"]))
    if counts == 1:
        return found
    places = [place for place, repeats in enumerate(each) for _ in range(repeats)]
    return {name: [values[place] for place in places] for name, values in found.items()}


def _of_table(table: PriceColumns, places: Sequence[int]) -> dict[str, list[Any]]:
    """The columns of a table, a value a record. Raises msgspec.ValidationError for a place beyond the table."""
    found: dict[str, list[Any]] = {}
    try:
        for name in PriceColumns.__struct_fields__:
            column = getattr(table, name)
            found[name] = [column[place] for place in places] if isinstance(column, list) else [column] * len(places)
    except IndexError as error:
        raise msgspec.ValidationError("a place beyond its table") from error
    return found
