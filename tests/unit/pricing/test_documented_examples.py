"""Every worked request of the product's documentation, priced by the packaged catalog. Figures in nano-USD."""

from functools import cache

import pytest

from tallybook.ai_models import catalog_files
from tallybook.core import clock
from tallybook.pricing import cost
from tallybook.pricing.cost import TokenUsage
from tallybook.pricing.price_book import PriceBook


@cache
def book() -> PriceBook:
    return catalog_files.book(catalog_files.read(catalog_files.packaged()))


@pytest.mark.parametrize(
    ("model", "usage", "cost_nano", "charge_nano"),
    [
        ("gpt-4o", TokenUsage(1_500, 300), 6_750_000, 8_100_000),
        ("anthropic/claude-sonnet-4.6", TokenUsage(10_000, 2_000, 7_000, 1_000), 41_850_000, 50_220_000),
        ("gpt-4o", TokenUsage(500, 150, 200), 2_500_000, 3_000_000),
    ],
)
def test_a_documented_request_costs_what_its_prices_say_with_and_without_a_margin_of_20_percent(
    model: str, usage: TokenUsage, cost_nano: int, charge_nano: int
) -> None:
    catalog = catalog_files.read(catalog_files.packaged())
    row = book().resolve(1, model).entry.row_at(clock.to_ms(catalog.fetched_at))
    priced = cost.price(row, usage, 2_000)
    assert (priced.cost_nano, priced.charge_nano) == (cost_nano, charge_nano)
    whole_formula = (
        (usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens) * priced.input_pico
        + usage.output_tokens * priced.output_pico
        + usage.cache_read_tokens * priced.cache_read_pico
        + usage.cache_write_tokens * priced.cache_write_pico
    )
    assert whole_formula == cost_nano * 1_000
