"""Integer money at the edges where floats fail."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.core import money


@pytest.mark.parametrize(
    ("numerator", "denominator", "quotient"),
    [
        (5, 10, 0),
        (15, 10, 2),
        (25, 10, 2),
        (-5, 10, 0),
        (-15, 10, -2),
        (26, 10, 3),
        (0, 7, 0),
        (2**53 + 1, 1, 2**53 + 1),
        (4 * 10**18 + 5, 10, 4 * 10**17),
    ],
)
def test_halves_go_to_the_even_neighbour(numerator: int, denominator: int, quotient: int) -> None:
    assert money.divide_half_even(numerator, denominator) == quotient


@given(st.integers(-(10**30), 10**30), st.integers(1, 10**15))
def test_rounding_is_never_off_by_more_than_half(numerator: int, denominator: int) -> None:
    quotient = money.divide_half_even(numerator, denominator)
    assert abs(numerator - quotient * denominator) * 2 <= denominator


def test_the_rate_scale_of_the_documented_example_is_exact() -> None:
    assert money.rate(50_220_000) == 502.2
    assert money.rate(10**9) == 10_000


@given(st.integers(-4 * 10**18, 4 * 10**18))
def test_dollars_for_people_hold_every_digit(nano: int) -> None:
    text = money.usd(nano).replace("$", "").replace(",", "")
    whole, _, digits = text.partition(".")
    sign = -1 if text.startswith("-") else 1
    assert sign * (abs(int(whole)) * 10**9 + int(digits.ljust(9, "0"))) == nano
