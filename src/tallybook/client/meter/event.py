"""A usage event as it waits to be sent: its id, and the bytes that go into the batch.

The bytes are made when they are first asked for. Where events wait in memory that is by the sender, which makes many in a row, in a
fraction of the time that one takes in the middle of a caller's work.
"""

import functools
import json
import os
import time
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii as quoted  # pyright: ignore[reportUnknownVariableType]
from typing import Any, Final, cast

_ENCODE = json.JSONEncoder(separators=(",", ":")).encode
_RANDOM_BITS = 74
_SHORT_CHARACTERS: Final = 1000
_INT_MAX: Final = 2**63


class Event:
    """One line of JSON without a line break, and the event id in it."""

    __slots__ = ("_fields", "_payload", "event_id", "is_short")

    def __init__(self, event_id: str, fields: Mapping[str, Any]) -> None:
        """Nothing may change `fields` any more. Raises what JSON has no words for."""
        self.event_id = event_id
        self.is_short = _is_short(event_id, fields)
        self._fields = fields
        self._payload = None if self.is_short else self._write()

    @property
    def payload(self) -> bytes:
        """The line."""
        written = self._payload
        if written is None:
            written = self._payload = self._write()
        return written

    def _write(self) -> bytes:
        kept = [f'"{name}":{_json(value)}' for name, value in self._fields.items() if value is not None]
        kept.append(f'"eventId":{_json(self.event_id)}')
        return ("{" + ",".join(kept) + "}").encode()


def make(fields: Mapping[str, Any], *, event_id: str | None = None) -> Event:
    """An event of fields under their wire names; those that are None are left out. Without an id it gets a new one, for good.

    Nothing may change `fields` afterwards.
    """
    return Event(event_id or new_id(), fields)


def _is_short(event_id: str, fields: Mapping[str, Any]) -> bool:
    """Whether the line can be made later: it is not too long, whatever is in it, and JSON has words for all of it."""
    if type(event_id) is not str:
        return False
    size = len(event_id)
    for value in fields.values():
        kind = cast("type[object]", type(value))
        if kind is str:
            size += len(value)
        elif kind is dict:
            named = cast("dict[Any, Any]", value)
            if not all(type(name) is str is type(text) for name, text in named.items()):
                return False
            size += sum(len(name) + len(text) + 1 for name, text in named.items())
        elif value is not None and not (kind is int and -_INT_MAX < value < _INT_MAX):
            return False
    return size <= _SHORT_CHARACTERS


def _json(value: Any) -> str:
    """JSON in a fraction of the time that an encoder takes to start, for what most fields of an event are."""
    kind = cast("type[object]", type(value))
    if kind is str:
        return quoted(value)
    return str(value) if kind is int else _ENCODE(value)


def read(payload: bytes) -> dict[str, Any]:
    """The event as it is sent."""
    return json.loads(payload)


def now() -> str:
    """The present moment as events carry it: in UTC, with milliseconds."""
    second, milliseconds = divmod(time.time_ns() // 1_000_000, 1000)
    return f"{_text_of_second(second)}.{milliseconds:03d}Z"


@functools.lru_cache(maxsize=2)
def _text_of_second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def new_id() -> str:
    """A UUID of version 7: unique, and ordered by the time it was made."""
    milliseconds = time.time_ns() // 1_000_000
    chance = int.from_bytes(os.urandom(10)) & ((1 << _RANDOM_BITS) - 1)
    value = milliseconds << 80 | 0x7 << 76 | (chance >> 62) << 64 | 0b10 << 62 | chance & ((1 << 62) - 1)
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
