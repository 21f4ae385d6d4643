"""Decimal text to nano-units, in bounded time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.receive import quantities


@pytest.mark.parametrize(
    "text", ["", "-", "1.", ".5", "01", "+1", "1e", "1e1000", "0e9999", "1_0", "\u0661", "1 ", "NaN", "9" * 31, "0." + "0" * 31]
)
def test_what_is_no_number_or_too_long_a_one_is_not_calculated_with(text: str) -> None:
    assert quantities.nano_from_text(text) is None


@given(st.integers(-(10**20), 10**20), st.integers(0, 9))
def test_every_multiple_of_a_nano_unit_is_read_exactly(units: int, decimals: int) -> None:
    sign, digits = ("-" if units < 0 else ""), str(abs(units)).rjust(decimals + 1, "0")
    place = len(digits) - decimals
    text = f"{sign}{digits[:place]}.{digits[place:]}" if decimals else f"{sign}{digits}"
    assert quantities.nano_from_text(text) == units * 10 ** (9 - decimals)
    assert quantities.nano_from_text(f"{units}e-{decimals}") == units * 10 ** (9 - decimals)


@given(st.from_regex(r"(0|[1-9][0-9]{0,12})\.[0-9]{1,12}", fullmatch=True))
def test_the_short_way_and_the_general_one_agree(text: str) -> None:
    assert quantities.nano_from_bytes(text.encode()) == quantities.nano_from_text(text)
