"""Prices as text, there and back, exact."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.ai_models import decimals, price_codec
from tallybook.ai_models.decimals import UnreadablePriceError
from tallybook.pricing.rates import Band, Listed, Price

PICO = st.integers(0, decimals.PRICE_MAX_PICO)
LISTED = st.builds(Listed, PICO, *[st.none() | PICO] * 4)
BANDS = st.lists(LISTED, min_size=1, max_size=4).map(lambda found: tuple(Band(at * 1_000, each) for at, each in enumerate(found)))
PRICES = st.builds(
    Price,
    BANDS,
    st.dictionaries(st.sampled_from(["batch", "flex", "priority"]), BANDS),
    st.none() | st.integers(0, decimals.SEARCH_MAX_PICO),
)


@given(PRICES)
def test_a_price_reads_back_as_it_was_written(price: Price) -> None:
    assert price_codec.from_json(price_codec.to_json(price)) == price


@pytest.mark.parametrize(
    ("pico", "text"), [(3_000_000, "3"), (300_000, "0.3"), (1, "0.000001"), (0, "0"), (10**10, "10000"), (28, "0.000028")]
)
def test_usd_per_million_is_exact(pico: int, text: str) -> None:
    assert decimals.usd_per_million(pico) == text
    assert decimals.from_usd_per_million("input", text) == pico


def test_the_one_hour_write_is_spelled_as_on_the_wire() -> None:
    value = price_codec.to_json(Price((Band(0, Listed(1, 1, 1, 1, 1)),)))
    assert set(value["standard"][0]) == {"input", "output", "cacheRead", "cacheWrite", "cacheWrite1h"}


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"standard": []},
        {"standard": [{"input": "-3"}]},
        {"standard": [{"input": "NaN"}]},
        {"standard": [{"input": "3e0"}]},
        {"standard": [{"input": 3}]},
        {"standard": [{"input": "0.0000001"}]},
        {"standard": [{"input": "10000.000001"}]},
        {"standard": [{"output": "3"}]},
        {"standard": [{"input": "3", "inputs": "4"}]},
        {"standard": [{"input": "3", "fromTokens": 5}]},
        {"standard": [{"input": "3"}, {"input": "4"}]},
        {"standard": [{"input": "3"}, {"input": "4", "fromTokens": 9}, {"input": "4", "fromTokens": 9}]},
        {"standard": [{"input": "3"}], "serviceTiers": {"turbo": [{"input": "3"}]}},
        {"standard": [{"input": "3"}], "serviceTiers": {"flex": []}},
        {"standard": [{"input": "3"}], "webSearchPerThousand": "1001"},
        "3",
    ],
)
def test_a_price_that_writing_would_not_make_is_refused(value: object) -> None:
    with pytest.raises(UnreadablePriceError):
        price_codec.from_json(value)
