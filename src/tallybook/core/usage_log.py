"""The till's log: what a script call appends and what the rollup reads. The only thing the two share.

A log entry is one MessagePack value in the field `d` of a Redis stream entry whose id is `<sequence>-0`; sequences of a
partition are dense, so a gap is provable. There are three forms of it. The script writes two, whose records it copies verbatim:

    [2, accepted_at_ms, [place, …], lefts, [[number, outcome, spare_left, left], …], [opening, …], records by columns (`packed_log`)]
    [3, accepted_at_ms, [place, …], lefts, [[number, outcome, spare_left, left], …], [opening, …], [record, …]]

Columns are shorter, rows are made faster where records are few. The places are those of records that were not accepted. `lefts`
has 8 bytes an accepted record; those whose outcome or spare rest is not as usual, or whose rest is beyond what a double says, stand in
the list after it. The plain form says the same item by item:

    [1, accepted_at_ms, [[record, outcome, left, spare_left], …], [[tenant_id, customer_id, pool, old_opening, new_opening], …]]
"""

import struct
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import msgspec

from tallybook.core import packed_log
from tallybook.core.packed_log import Packed
from tallybook.core.records import IDEMPOTENCY_BYTES, NO_FINGERPRINT, PAYLOAD_BYTES, Kind, Record

PLAIN, PACKED, ROWS = 1, 2, 3
"""The versions of an entry."""


class Applied(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A record and what the script found while applying it: "" or, by kind, an amount in text.

    For usage the outcome is the part that purchased credits paid (1e-9 credits); see `Kind` for the others. `left` and `spare_left`,
    in text, are what the answer said is left in the pool and the spare pool: the till repeats them to a repeat, also after it was
    made again from the book. Ticks and expiries are not remembered and have neither.
    """

    record: Record
    outcome: str
    left: str = ""
    spare_left: str = ""


class Opening(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A pool opened on first use ("" before), or re-opened because its terms changed. Amounts in text, 1e-9 of the pool's unit."""

    tenant_id: str
    customer_id: str
    pool: str
    old: str
    new: str


class Entry(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One stream entry: everything one script call did in one partition."""

    version: int
    accepted_at_ms: int
    applied: list[Applied]
    openings: list[Opening]


def place(seq: int, position: int) -> str:
    """A record's place in its partition's log: `17-3` is the fourth record of entry 17."""
    return f"{seq}-{position}"


Body = TypeVar("Body", Packed, list[Record])


class WrittenEntry(msgspec.Struct, Generic[Body], array_like=True, frozen=True, gc=False):
    """An entry in one of the forms that the script writes. `body` has all records, or is None when none was accepted."""

    version: int
    accepted_at_ms: int
    left_out: list[int]
    lefts: bytes
    beside: list[tuple[int, str, str, str]]
    openings: list[Opening]
    body: Body | None

    def __len__(self) -> int:
        """How many records were accepted."""
        return len(self.lefts) // _LEFT_BYTES

    def left(self) -> tuple[int, ...]:
        """What was left after each accepted record; 0 for those of which `beside` says it."""
        return struct.unpack(f">{len(self)}q", self.lefts[: len(self) * _LEFT_BYTES])

    def places(self) -> list[int]:
        """Of the accepted records. Raises msgspec.ValidationError when they are not as many as there are."""
        count = 0 if self.body is None else len(self.body)
        found = sorted(set(range(count)).difference(self.left_out)) if self.left_out else list(range(count))
        if len(found) != len(self):
            raise msgspec.ValidationError(f"{len(found)} records, and what is left after {len(self)}")
        return found

    def records(self) -> list[Record]:
        """All of them, accepted or not. Raises msgspec.ValidationError when the parts do not fit together."""
        body = self.body
        if body is None:
            return []
        return packed_log.records(body) if isinstance(body, Packed) else body

    def fields(self) -> dict[str, list[Any]]:
        """The same by column: the fields of `Record` by name, a value a record."""
        if isinstance(self.body, Packed):
            return packed_log.unpack(self.body)
        columns = zip(*map(msgspec.structs.astuple, self.body or ()), strict=True)
        return {name: list(column) for name, column in zip(Record.__struct_fields__, columns, strict=False)}


Written = WrittenEntry[Packed] | WrittenEntry[list[Record]]
_LEFT_BYTES = 8
_decode_plain = msgspec.msgpack.Decoder(Entry).decode
_DECODERS: Mapping[bytes, Callable[[bytes], Written]] = {
    bytes((0x97, PACKED)): msgspec.msgpack.Decoder(WrittenEntry[Packed]).decode,
    bytes((0x97, ROWS)): msgspec.msgpack.Decoder(WrittenEntry[list[Record]]).decode,
}
"""By the bytes that an entry begins with."""


def is_written(data: bytes) -> bool:
    """Whether the bytes begin like an entry in a form that the script writes."""
    return data[:2] in _DECODERS


def decode_written(data: bytes) -> Written:
    """An entry for which `is_written`. Raises msgspec.MsgspecError for bytes that are none after all."""
    return _DECODERS[data[:2]](data)


def decode_entry(data: bytes) -> Entry:
    """An entry in any form. Raises msgspec.MsgspecError for bytes that are none."""
    return unpacked(decode_written(data)) if is_written(data) else _decode_plain(data)


def unpacked(entry: Written) -> Entry:
    """The same item by item. Raises msgspec.ValidationError when the parts do not fit together."""
    places, records = entry.places(), entry.records()
    found = [Applied(records[place], "", str(left), "0") for place, left in zip(places, entry.left(), strict=True)]
    for number, outcome, spare_left, left in entry.beside:
        if not 0 <= number < len(found):
            raise msgspec.ValidationError(f"{number} is no accepted record")
        found[number] = Applied(found[number].record, outcome, left, spare_left)
    return Entry(PLAIN, entry.accepted_at_ms, found, entry.openings)


__all__ = [
    "IDEMPOTENCY_BYTES",
    "NO_FINGERPRINT",
    "PACKED",
    "PAYLOAD_BYTES",
    "PLAIN",
    "ROWS",
    "Applied",
    "Entry",
    "Kind",
    "Opening",
    "Record",
    "Written",
    "WrittenEntry",
    "decode_entry",
    "decode_written",
    "is_written",
    "place",
    "unpacked",
]
