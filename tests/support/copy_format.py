"""Rows in the binary format of COPY, read back by their columns' types."""

import struct
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TIMES = frozenset({"period_start", "accepted_at", "rolled_at", "belongs_to", "occurred_at"})
_TEXTS = frozenset({"pool", "model", "matched_by", "service_tier", "reason", "voids", "event_id"})
_BYTES = frozenset({"digest", "fingerprint"})
Value = int | str | bytes | datetime | None


def rows(data: bytes, columns: Sequence[str]) -> list[dict[str, Value]]:
    """Each row by column."""
    assert data.startswith(_HEADER)
    assert data.endswith(b"\xff\xff")
    return list(_rows(data[len(_HEADER) : -2], columns))


def _rows(data: bytes, columns: Sequence[str]) -> Iterator[dict[str, Value]]:
    place = 0
    while place < len(data):
        assert struct.unpack_from(">h", data, place) == (len(columns),)
        place += 2
        row: dict[str, Value] = {}
        for column in columns:
            (size,) = struct.unpack_from(">i", data, place)
            place += 4
            row[column] = None if size < 0 else _value(column, data[place : place + size])
            place += max(size, 0)
        yield row


def _value(column: str, data: bytes) -> Value:
    if column in _TIMES:
        return datetime(2000, 1, 1, tzinfo=UTC) + timedelta(microseconds=int.from_bytes(data, signed=True))
    if column in _TEXTS:
        return data.decode()
    if column == "properties":
        assert data[:1] == b"\x01"
        return data[1:].decode()
    return data if column in _BYTES else int.from_bytes(data, signed=True)
