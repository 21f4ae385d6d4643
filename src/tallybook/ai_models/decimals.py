"""Prices as text and as integers. Text is matched against an ASCII pattern of bounded length before any number is made of it."""

import re
from decimal import ROUND_HALF_EVEN, Context, Decimal

from tallybook.pricing.rates import Price

PRICE_MAX_PICO = 10**10
"""The band's upper end, $0.01 per token ($10,000 per million): 37 times the dearest price ever listed."""
SEARCH_MAX_PICO = 10**12
"""$1 per web search ($1,000 per thousand)."""
_ROUNDING_MAX = Decimal("0.0001")
"""Rounding to whole pico-USD may move a price by one part in ten thousand, no more."""
_MICRO = 10**6
_GIGA = 10**9
_TEXT_MAX = 48
_DECIMAL = re.compile(r"(?:0|[1-9]\d{0,11})(?:\.\d{1,36})?(?:[eE][+-]?\d{1,2})?", re.ASCII)
_EXACT = Context(prec=80, Emin=-200, Emax=200)


class JsonNumber(str):
    """A JSON number, kept as the digits that were sent: no float is ever made of a price."""

    __slots__ = ()


class UnreadablePriceError(ValueError):
    """A price that is no finite, non-negative decimal within the band. The message says which and why."""


def pico_per_token(name: str, value: object) -> tuple[int, bool]:
    """USD per token as pico-USD, and whether it had to be rounded. Raises UnreadablePriceError."""
    return _scaled(name, value, 12, PRICE_MAX_PICO)


def pico_per_search(name: str, value: object) -> tuple[int, bool]:
    """USD per 1,000 calls as pico-USD per call, and whether it had to be rounded. Raises UnreadablePriceError."""
    return _scaled(name, value, 9, SEARCH_MAX_PICO)


def _scaled(name: str, value: object, exponent: int, pico_max: int) -> tuple[int, bool]:
    exact = _decimal(name, value).scaleb(exponent, _EXACT)
    pico = int(exact.to_integral_value(ROUND_HALF_EVEN, _EXACT))
    if pico > pico_max:
        raise UnreadablePriceError(f"{name} {_shown(value)} is above the largest price taken")
    moved = abs(exact - pico)
    if moved > exact * _ROUNDING_MAX:
        raise UnreadablePriceError(f"{name} {_shown(value)} is finer than 1e-12 USD and cannot be rounded without changing it")
    return pico, moved != 0


def _decimal(name: str, value: object) -> Decimal:
    if not isinstance(value, str):
        raise UnreadablePriceError(f"{name} is {_shown(value)}, not a decimal")
    if len(value) <= _TEXT_MAX and _DECIMAL.fullmatch(value):
        return Decimal(value)
    if value.startswith("-"):
        raise UnreadablePriceError(f"{name} {_shown(value)} is negative")
    raise UnreadablePriceError(f"{name} {_shown(value)} is not a finite decimal")


def _shown(value: object) -> str:
    text = value if isinstance(value, JsonNumber) else repr(value)
    return ascii(text[:40])[1:-1]


def usd_per_million(pico: int) -> str:
    """Pico-USD per token as USD per million tokens, exact: 300000 is `0.3`."""
    return _text(pico, _MICRO)


def usd_per_thousand(pico: int) -> str:
    """Pico-USD per call as USD per 1,000 calls, exact."""
    return _text(pico, _GIGA)


def usd(nano: int) -> str:
    """Nano-USD as exact text: 50220000 is `0.05022`."""
    return _text(nano, _GIGA)


def from_usd_per_million(name: str, text: str) -> int:
    """Back to pico-USD per token. Raises UnreadablePriceError, also for a price that is not a whole number of pico-USD."""
    return _unscaled(name, text, 6, PRICE_MAX_PICO)


def from_usd_per_thousand(name: str, text: str) -> int:
    """Back to pico-USD per call. Raises UnreadablePriceError, also for a price that is not a whole number of pico-USD."""
    return _unscaled(name, text, 9, SEARCH_MAX_PICO)


def _unscaled(name: str, text: str, exponent: int, pico_max: int) -> int:
    pico, rounded = _scaled(name, text, exponent, pico_max)
    if rounded:
        raise UnreadablePriceError(f"{name} {_shown(text)} has digits below 1e-12 USD")
    return pico


def _text(pico: int, unit: int) -> str:
    whole, rest = divmod(pico, unit)
    digits = f"{rest:0{len(str(unit)) - 1}d}".rstrip("0")
    return f"{whole}.{digits}" if digits else str(whole)


def input_and_output(price: Price) -> str:
    """`3 / 15`: what people compare, USD per million tokens of the first band."""
    first = price.standard[0].listed
    output = "none" if first.output is None else usd_per_million(first.output)
    return f"{usd_per_million(first.input)} / {output}"
