"""A usage event as it waits to be sent: its id, and the bytes that go into the batch."""

import functools
import json
import os
import time
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii as _quoted  # pyright: ignore[reportUnknownVariableType]
from typing import Any, NamedTuple

_ENCODE = json.JSONEncoder(separators=(",", ":")).encode
_RANDOM_BITS = 74


class Event(NamedTuple):
    """One line of JSON without a line break, and the event id in it."""

    event_id: str
    payload: bytes


def make(fields: Mapping[str, Any], *, event_id: str | None = None) -> Event:
    """An event of fields under their wire names; those that are None are left out. Without an id it gets a new one, for good."""
    named = event_id or new_id()
    kept = {name: value for name, value in fields.items() if value is not None}
    return Event(named, _ENCODE({**kept, "eventId": named}).encode())


def written(value: Any) -> str:
    """A value in JSON; text, which most are, in a fraction of the time that an encoder takes to start."""
    return _quoted(value) if type(value) is str else _ENCODE(value)


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
