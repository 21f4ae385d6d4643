"""JSON read to the letter: repeated keys are remembered, numbers stay the text they were, depth and crowd are bounded.

Slow (Python builds every object, some 2 µs a value) and used only for bodies that the typed decoder did not take. So what is
built is bounded by its marks: a body of 87,000 empty objects would hold up the requests beside it for a fifth of a second.
"""

import json
import re
from dataclasses import dataclass
from typing import Final, cast

from tallybook.core import errors
from tallybook.receive import bounds

CODE: Final = "invalid_json"

_BOM: Final = b"\xef\xbb\xbf"
_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_OPENING: Final = b"[{"
_MARKS: Final = (b"[", b"{", b",", b":")
_NOT_BRACKETS: Final = bytes(byte for byte in range(256) if byte not in b"[]{}")


@dataclass(frozen=True, slots=True)
class Number:
    """A number as it was written; `NaN` and `Infinity` too, which are no JSON and are refused where they stand."""

    text: str


class Object(dict[str, "Value"]):
    """A JSON object, and the first key that stands in it twice."""

    repeated: str | None = None


Value = None | bool | str | Number | list["Value"] | Object


class Crowded(Exception):
    """There are more values than any valid request has."""


def parse(body: bytes, marks_max: int = bounds.ITEM_MARKS_MAX, depth_max: int = bounds.DEPTH_MAX) -> Value:
    """The value of a body. Raises ValidationError `invalid_json` for bytes that are no JSON or nest too deep; Crowded."""
    text = _text(body)
    if _marks(body) > min(marks_max, depth_max):
        skeleton = _STRING.sub(b"", body)
        if _nests_deeper(skeleton, depth_max):
            raise errors.invalid("", f"the body nests deeper than {bounds.DEPTH_MAX} levels", code=CODE)
        if _marks(skeleton) > marks_max:
            raise Crowded
    try:
        return cast("Value", _decoder.decode(text))
    except json.JSONDecodeError as error:
        what = error.msg.removesuffix(" at")
        raise errors.invalid("", f"the body is not JSON: {what} at character {error.pos}", code=CODE) from None


def _text(body: bytes) -> str:
    if body.startswith(_BOM):
        raise errors.invalid("", "the body starts with a byte order mark; send plain UTF-8", code=CODE)
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise errors.invalid("", f"the body is not UTF-8: byte {error.start} is {body[error.start]:#04x}", code=CODE) from None


def _marks(body: bytes) -> int:
    return sum(map(body.count, _MARKS))


def _nests_deeper(skeleton: bytes, depth_max: int) -> bool:
    depth = 0
    for bracket in skeleton.translate(None, _NOT_BRACKETS):
        depth += 1 if bracket in _OPENING else -1
        if depth > depth_max:
            return True
    return False


def _object(pairs: list[tuple[str, Value]]) -> Object:
    read = Object(pairs)
    if len(read) != len(pairs):
        seen: set[str] = set()
        read.repeated = next(key for key, _ in pairs if key in seen or seen.add(key))
    return read


_decoder = json.JSONDecoder(object_pairs_hook=_object, parse_float=Number, parse_int=Number, parse_constant=Number)
