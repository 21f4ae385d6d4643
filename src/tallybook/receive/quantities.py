"""Decimal text to integers, exact and in bounded time: no float, and no arithmetic before the digits are counted."""

import re
from typing import Final

from tallybook.receive import bounds

NUMBER: Final = re.compile(r"(-?)(0|[1-9][0-9]{0,29})(?:\.([0-9]{1,30}))?(?:[eE]([+-]?[0-9]{1,3}))?", re.ASCII)
"""A JSON number of at most 30 digits before the point, 30 after it and three in the exponent."""
_WHOLE_DIGITS: Final = 10


def nano_from_bytes(number: bytes) -> int | None:
    """As `nano_from_text`, for a number that a JSON decoder took; `0.5` and its like cost a fifth of the general way."""
    whole, _, fraction = number.partition(b".")
    if len(fraction) <= bounds.DECIMALS_MAX and len(whole) <= _WHOLE_DIGITS and whole.isdigit() and fraction.isdigit():
        return int(whole + fraction.ljust(bounds.DECIMALS_MAX, b"0"))
    return nano_from_text(number.decode())


def nano_from_text(text: str) -> int | None:
    """`0.1` to 100000000 nano-units, or None for what is no number, too long, or finer than nine decimals.

    Zeros at the end and exponents change nothing: `1e-05`, `0.00001` and `0.000010000000` are the same quantity. The result
    may be out of bounds.
    """
    found = NUMBER.fullmatch(text)
    if found is None:
        return None
    sign, whole, fraction, exponent = found[1], found[2], found[3] or "", found[4] or "0"
    digits = int(whole + fraction)
    shift = bounds.DECIMALS_MAX - len(fraction) + int(exponent)
    if shift >= 0:
        nano = digits * 10**shift
    else:
        nano, rest = divmod(digits, 10**-shift)
        if rest:
            return None
    return -nano if sign else nano
