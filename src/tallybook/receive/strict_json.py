"""JSON read to the letter: repeated keys are remembered, numbers stay the text they were, and nothing is too deep to read.

Slow (Python builds every object) and used only for bodies that the typed decoder did not take.
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
_NOT_BRACKETS: Final = bytes(byte for byte in range(256) if byte not in b"[]{}")


@dataclass(frozen=True, slots=True)
class Number:
    """A number as it was written; `NaN` and `Infinity` too, which are no JSON and are refused where they stand."""

    text: str


class Object(dict[str, "Value"]):
    """A JSON object, and the first key that stands in it twice."""

    repeated: str | None = None


Value = None | bool | str | Number | list["Value"] | Object


def parse(body: bytes, depth_max: int = bounds.DEPTH_MAX) -> Value:
    """The value of a whole body. Raises ValidationError `invalid_json` for bytes that are no JSON or nest too deep."""
    text = _text(body)
    if _depth(body, depth_max) > depth_max:
        raise errors.invalid("", f"the body nests deeper than {bounds.DEPTH_MAX} levels", code=CODE)
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


def _depth(body: bytes, enough: int) -> int:
    """How deep brackets nest outside of strings, counted up to one more than `enough`."""
    if body.count(b"[") + body.count(b"{") <= enough:
        return 0
    depth = deepest = 0
    for bracket in _STRING.sub(b"", body).translate(None, _NOT_BRACKETS):
        if bracket in _OPENING:
            depth += 1
            deepest = max(deepest, depth)
            if deepest > enough:
                break
        else:
            depth -= 1
    return deepest


def _object(pairs: list[tuple[str, Value]]) -> Object:
    read = Object(pairs)
    if len(read) != len(pairs):
        seen: set[str] = set()
        read.repeated = next(key for key, _ in pairs if key in seen or seen.add(key))
    return read


_decoder = json.JSONDecoder(object_pairs_hook=_object, parse_float=Number, parse_int=Number, parse_constant=Number)
