"""Figures as people read them. The exact value stands in the markup beside what is shown: `<data value="0.05022">$0.05</data>`. Pure."""

from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal

from tallybook.core import clock
from tallybook.entrypoints.http.dashboard.markup import Markup, element
from tallybook.reports import rules

_CENT = Decimal("0.01")
_SMALL_DIGITS = 3


def money(exact: str) -> Markup:
    """US dollars: to the cent, and less than a cent to three digits."""
    return element("data", dollars(Decimal(exact)), value=exact)


def count(value: int) -> Markup:
    """A whole number, in groups of three digits."""
    return element("data", f"{value:,}", value=value)


def short(value: int) -> str:
    """`12.3 million`."""
    for size, name in ((10**9, "billion"), (10**6, "million")):
        if abs(value) >= size:
            return f"{Decimal(value) / size:.1f} {name}"
    return f"{value:,}"


def amount(kind: str, exact: str) -> Markup:
    """What a pool holds: US dollars, credits, or units of a feature."""
    return money(exact) if kind == "balance" else plain(exact, f" {kind}")


def plain(exact: str, unit: str = "") -> Markup:
    """A number to the second decimal."""
    return element("data", f"{_short_decimal(Decimal(exact))}{unit}", value=exact)


def _short_decimal(value: Decimal) -> str:
    whole, _, fraction = f"{value.quantize(_CENT, ROUND_HALF_EVEN):,f}".partition(".")
    fraction = fraction.rstrip("0")
    return f"{whole}.{fraction}" if fraction else whole


def day(iso: str, zone: str) -> Markup:
    """`14 Nov 2026, 09:30` by the clocks of a zone."""
    local = datetime.fromisoformat(iso).astimezone(rules.zone(zone))
    return element("time", f"{local:%d %b %Y, %H:%M}", datetime=clock.iso(local))


def dollars(value: Decimal) -> str:
    """`$1,234.50`, `-$0.00418`."""
    sign, magnitude = ("-" if value < 0 else ""), abs(value)
    if magnitude == 0 or magnitude >= _CENT:
        return f"{sign}${magnitude.quantize(_CENT, ROUND_HALF_EVEN):,f}"
    digits = _SMALL_DIGITS - 1 - magnitude.adjusted()
    return f"{sign}${magnitude.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_EVEN).normalize():f}"
