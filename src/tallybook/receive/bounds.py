"""How large, how long and how spelled: the bounds of a usage request, and the questions both readers ask of a value."""

import re
from typing import Final

from tallybook.core import money

BATCH_BYTES_MAX: Final = 256 * 1024
SINGLE_BYTES_MAX: Final = 16 * 1024
EVENTS_MAX: Final = 100
DEPTH_MAX: Final = 64
ITEM_MARKS_MAX: Final = 256
"""Commas, colons and opening brackets in one event outside of strings; the largest valid one has 134."""
BATCH_MARKS_MAX: Final = (EVENTS_MAX + 1) * (ITEM_MARKS_MAX + 1)
ID_BYTES_MAX: Final = 128
MODEL_BYTES_MAX: Final = 256
PROPERTIES_MAX: Final = 20
PROPERTY_BYTES_MAX: Final = 256
REASON_BYTES_MAX: Final = 500
TOKENS_MAX: Final = 10**9
WEB_SEARCHES_MAX: Final = 10**6
UNITS_MAX: Final = money.QUANTITY_MAX // money.NANO
DECIMALS_MAX: Final = 9
SERVICE_TIERS: Final = ("batch", "flex", "priority")

_CODE_CHARACTERS: Final = "abcdefghijklmnopqrstuvwxyz0123456789_"
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def is_code(text: str) -> bool:
    """Whether a text is made of lower-case ASCII letters, digits and underscores only.

    What is left after such characters are stripped from both ends starts with another one, so an empty rest is the proof; this
    costs a third of a regular expression.
    """
    return not text.strip(_CODE_CHARACTERS)


def has_control(text: str) -> bool:
    """Whether a text holds a control character (C0, DEL or C1), NUL among them."""
    return _CONTROL.search(text) is not None


def size(text: str) -> int | None:
    """The length in UTF-8 bytes, or None when it has none: half a surrogate pair is in it."""
    if text.isascii():
        return len(text)
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        return None


def is_printable(text: str, bytes_max: int) -> bool:
    """Whether a text is 1 … `bytes_max` bytes of UTF-8 without control characters."""
    if text.isascii() and text.isprintable():
        return 1 <= len(text) <= bytes_max
    length = size(text)
    return length is not None and 1 <= length <= bytes_max and not has_control(text)


def is_storable(text: str, bytes_max: int) -> bool:
    """Whether a text is 0 … `bytes_max` bytes of UTF-8 without NUL; line breaks and tabs are allowed."""
    length = size(text)
    return length is not None and length <= bytes_max and "\0" not in text
