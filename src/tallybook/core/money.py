"""Integer money. Prices are pico-USD (1e-12), charges and pools nano-USD (1e-9), quantities nano-units; no float anywhere."""

NANO = 10**9
PICO_PER_NANO = 1000
NANO_PER_CENT = 10**7
NANO_PER_RATE = 10**5
"""One step of the wire's rate scale (10000 = $1.00) in nano-USD."""
BPS = 10_000
AMOUNT_MAX = 10**15
"""The largest amount one event may take from a pool, in 1e-9 of the pool's unit."""
QUANTITY_MAX = 10**18
"""The largest quantity of one event, in nano-units: a billion units."""


def divide_half_even(numerator: int, denominator: int) -> int:
    """The quotient rounded half to even. `denominator` is positive; the sign of `numerator` is free."""
    quotient, remainder = divmod(numerator, denominator)
    twice = remainder * 2
    if twice > denominator or (twice == denominator and quotient & 1):
        return quotient + 1
    return quotient


def cents(nano: int) -> int:
    """Nano-USD as whole cents, half-even."""
    return divide_half_even(nano, NANO_PER_CENT)


def rate(nano: int) -> int | float:
    """Nano-USD in the wire's rate scale (10000 = $1.00): an int when whole, else a decimal that shows every digit below $1 million."""
    return nano / NANO_PER_RATE if nano % NANO_PER_RATE else nano // NANO_PER_RATE


def units(nano: int) -> int | float:
    """Nano-units as a JSON number: an int when whole."""
    return nano / NANO if nano % NANO else nano // NANO


def usd(nano: int) -> str:
    """`$0.05022` from 50220000, all digits, no float; for people."""
    sign, magnitude = ("-" if nano < 0 else ""), abs(nano)
    whole, rest = divmod(magnitude, NANO)
    digits = f"{rest:09d}".rstrip("0").ljust(2, "0")
    return f"{sign}${whole:,}.{digits}"
