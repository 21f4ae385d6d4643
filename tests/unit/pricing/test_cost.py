"""The arithmetic of one AI event."""

from decimal import ROUND_HALF_EVEN, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.core import money
from tallybook.core.errors import NotFound, ValidationError
from tallybook.pricing import cost
from tallybook.pricing.cost import TokenUsage
from tallybook.pricing.price_book import PriceRow
from tallybook.pricing.rates import Band, Listed, Price

USD_PER_MILLION = 10**6
"""Pico-USD per token of one USD per million tokens."""
SONNET = Listed(3 * USD_PER_MILLION, 15 * USD_PER_MILLION, 300_000, 3_750_000)
TOKENS = st.integers(0, 10**9)


def row(*bands: Band, service_tiers: dict[str, tuple[Band, ...]] | None = None, web_search: int | None = None) -> PriceRow:
    return PriceRow(1, "test/model", 0, Price(bands or (Band(0, SONNET),), service_tiers or {}, web_search))


def flat(listed: Listed) -> PriceRow:
    return row(Band(0, listed))


def test_the_documentation_example_costs_04185_and_is_charged_05022() -> None:
    priced = cost.price(row(), TokenUsage(10_000, 2_000, 7_000, 1_000), 2_000)
    assert (priced.cost_nano, priced.charge_nano) == (41_850_000, 50_220_000)
    assert (money.usd(priced.cost_nano), money.usd(priced.charge_nano)) == ("$0.04185", "$0.05022")
    unit_prices = (priced.input_pico, priced.output_pico, priced.cache_read_pico, priced.cache_write_pico)
    assert unit_prices == (3_000_000, 15_000_000, 300_000, 3_750_000)


def test_counters_that_exclude_the_cache_are_added_up() -> None:
    whole = cost.price(row(), TokenUsage(10_000, 2_000, 7_000, 1_000), 2_000)
    apart = cost.price(row(), TokenUsage(2_000, 2_000, 7_000, 1_000, input_tokens_include_cache=False), 2_000)
    assert apart == whole
    assert apart.input_tokens == 10_000


def test_more_cache_than_input_names_the_three_numbers() -> None:
    with pytest.raises(ValidationError) as raised:
        cost.price(row(), TokenUsage(10_000, 0, 7_000, 5_000))
    assert raised.value.code == "validation_error"
    for number in ("10000", "7000", "5000"):
        assert number in raised.value.message


def test_cache_that_fills_the_input_exactly_is_priced() -> None:
    assert cost.price(row(), TokenUsage(8_000, 0, 7_000, 1_000)).cost_nano == 7_000 * 300 + 1_000 * 3_750


def test_more_one_hour_writes_than_writes_names_both() -> None:
    with pytest.raises(ValidationError) as raised:
        cost.price(row(), TokenUsage(10_000, 0, 0, 10, 11))
    assert raised.value.param == "cacheWrite1hTokens"
    assert "(11)" in raised.value.message
    assert "(10)" in raised.value.message


@pytest.mark.parametrize(
    ("usage", "param"),
    [
        (TokenUsage(-1, 0), "inputTokens"),
        (TokenUsage(0, -1), "outputTokens"),
        (TokenUsage(10, 0, -1), "cacheReadTokens"),
        (TokenUsage(10, 0, 0, -1), "cacheWriteTokens"),
        (TokenUsage(10, 0, 0, 0, -1), "cacheWrite1hTokens"),
        (TokenUsage(10, 0, web_searches=-1), "webSearchRequests"),
    ],
)
def test_a_negative_count_is_named(usage: TokenUsage, param: str) -> None:
    with pytest.raises(ValidationError) as raised:
        cost.price(row(web_search=1), usage)
    assert raised.value.param == param


def test_a_negative_margin_is_refused() -> None:
    with pytest.raises(ValidationError):
        cost.price(row(), TokenUsage(1, 1), -1)


def test_a_missing_cache_price_is_the_input_price() -> None:
    priced = cost.price(flat(Listed(1_000, 2_000)), TokenUsage(100, 0, 40, 30, 10))
    assert priced.cost_nano == 100
    assert (priced.cache_read_pico, priced.cache_write_pico, priced.cache_write_1h_pico) == (1_000, 1_000, 1_000)


def test_a_cache_price_of_zero_is_zero() -> None:
    assert cost.price(flat(Listed(1_000, 2_000, 0, 0)), TokenUsage(100, 0, 60, 40)).cost_nano == 0


def owned(model_id: str, listed: Listed) -> PriceRow:
    return PriceRow(1, model_id, 0, Price((Band(0, listed),), {"batch": (Band(0, listed),)}))


def test_one_hour_writes_of_anthropic_cost_twice_the_input() -> None:
    sonnet = owned("anthropic/claude-sonnet-4.6", SONNET)
    assert cost.price(sonnet, TokenUsage(1_000, 0, 0, 1_000, 1_000)).cost_nano == 1_000 * 6_000
    assert cost.price(sonnet, TokenUsage(1_000, 0, 0, 1_000, 400)).cost_nano == 600 * 3_750 + 400 * 6_000
    assert cost.price(sonnet, TokenUsage(1_000, 0, 0, 1_000, 400, service_tier="batch")).cost_nano == 600 * 3_750 + 400 * 6_000


def test_one_hour_writes_of_anthropic_cost_twice_the_input_whatever_a_five_minute_write_costs() -> None:
    haiku_3 = owned("anthropic/claude-3-haiku", Listed(250_000, 1_250_000, 30_000, 300_000))
    assert cost.price(haiku_3, TokenUsage(1_000, 0, 0, 1_000, 1_000)).cost_nano == 1_000 * 500


def test_one_hour_writes_of_others_cost_what_five_minute_writes_do() -> None:
    minimax = owned("minimax/minimax-m2", Listed(300_000, 1_200_000, 30_000, 375_000))
    assert cost.price(minimax, TokenUsage(1_000, 0, 0, 1_000, 1_000)).cost_nano == 1_000 * 375


def test_one_hour_writes_of_a_model_without_any_cache_price_cost_the_input() -> None:
    assert cost.price(owned("anthropic/claude-2", Listed(250_000, 1_250_000)), TokenUsage(4, 0, 0, 4, 4)).cost_nano == 4 * 250


def test_a_listed_one_hour_price_wins_over_the_rule() -> None:
    listed = Listed(3_000_000, 15_000_000, 300_000, 3_750_000, 7_000_000)
    assert cost.price(owned("anthropic/claude-x", listed), TokenUsage(1_000, 0, 0, 1_000, 1_000)).cost_nano == 7_000_000


def test_a_band_starts_at_its_boundary_and_holds_for_every_token() -> None:
    tiered = row(Band(0, Listed(1_000, 5_000, 100)), Band(200_001, Listed(2_000, 9_000, 200)))
    below = cost.price(tiered, TokenUsage(200_000, 10, 100_000))
    above = cost.price(tiered, TokenUsage(200_001, 10, 100_000))
    assert below.cost_nano == 100_000 + 10_000 + 50
    assert above.cost_nano == (100_001 * 2_000 + 100_000 * 200 + 10 * 9_000) // 1_000
    assert (below.input_pico, above.input_pico) == (1_000, 2_000)


def test_cached_tokens_count_towards_the_band() -> None:
    tiered = row(Band(0, Listed(1_000, 5_000)), Band(100, Listed(2_000, 9_000)))
    assert cost.price(tiered, TokenUsage(100, 0, 99)).input_pico == 2_000
    assert cost.price(tiered, TokenUsage(1, 0, 99, input_tokens_include_cache=False)).input_pico == 2_000
    assert cost.price(tiered, TokenUsage(1, 0, 98, input_tokens_include_cache=False)).input_pico == 1_000


@pytest.mark.parametrize(
    ("total", "pico"), [(0, 1), (32_000, 1), (32_001, 2), (128_000, 2), (128_001, 3), (256_000, 3), (256_001, 4)]
)
def test_four_bands_each_hold_on_both_sides_of_their_boundaries(total: int, pico: int) -> None:
    starts = ((0, 1), (32_001, 2), (128_001, 3), (256_001, 4))
    assert (
        cost.price(row(*(Band(start, Listed(price, price)) for start, price in starts)), TokenUsage(total, 0)).input_pico == pico
    )


def test_service_tiers_have_their_own_prices_and_their_own_long_context() -> None:
    tiers = {"flex": (Band(0, Listed(500, 2_500)), Band(272_001, Listed(1_000, 4_000)))}
    found = row(Band(0, Listed(1_000, 5_000)), service_tiers=tiers)
    assert cost.price(found, TokenUsage(272_000, 1, service_tier="flex")).input_pico == 500
    assert cost.price(found, TokenUsage(272_001, 1, service_tier="flex")).input_pico == 1_000
    for ordinary in (None, "standard", "default"):
        assert cost.price(found, TokenUsage(300_000, 1, service_tier=ordinary)).input_pico == 1_000


def test_a_tier_without_a_cache_price_charges_its_own_input_price_for_the_cache() -> None:
    found = row(Band(0, SONNET), service_tiers={"flex": (Band(0, Listed(1_500_000, 7_500_000)),)})
    assert cost.price(found, TokenUsage(1_000, 0, 1_000, service_tier="flex")).cost_nano == 1_000 * 1_500


def test_an_unlisted_service_tier_is_an_error_that_names_the_listed_ones() -> None:
    found = row(Band(0, SONNET), service_tiers={"flex": (Band(0, SONNET),)})
    with pytest.raises(NotFound) as raised:
        cost.price(found, TokenUsage(1, 1, service_tier="batch"))
    assert raised.value.code == "price_not_listed"
    assert raised.value.details == {"model": "test/model", "serviceTiers": ["standard", "flex"]}


def test_web_searches_are_priced_per_call() -> None:
    ten_usd_per_thousand = 10**10
    priced = cost.price(row(web_search=ten_usd_per_thousand), TokenUsage(0, 0, web_searches=3), 2_000)
    assert (priced.cost_nano, priced.charge_nano) == (30_000_000, 36_000_000)


def test_what_has_no_price_is_an_error_and_never_free() -> None:
    with pytest.raises(NotFound) as raised:
        cost.price(row(), TokenUsage(1, 1, web_searches=1))
    assert raised.value.code == "price_not_listed"
    embedding = flat(Listed(20_000))
    assert cost.price(embedding, TokenUsage(1_000, 0)).cost_nano == 20_000
    with pytest.raises(NotFound) as raised:
        cost.price(embedding, TokenUsage(1_000, 1))
    assert raised.value.code == "price_not_listed"


@pytest.mark.parametrize(
    ("pico", "margin_bps", "cost_nano", "charge_nano"),
    [
        (500, 0, 0, 0),
        (1_500, 0, 2, 2),
        (2_500, 0, 2, 2),
        (2_501, 0, 3, 3),
        (3_500, 0, 4, 4),
        (499, 0, 0, 0),
        (1_250, 2_000, 1, 2),
        (1_000, 5_000, 1, 2),
        (1_667, 5_000, 2, 3),
        (416, 2_000, 0, 0),
        (417, 2_000, 0, 1),
    ],
)
def test_the_charge_is_rounded_once_half_even_after_the_margin(
    pico: int, margin_bps: int, cost_nano: int, charge_nano: int
) -> None:
    priced = cost.price(flat(Listed(pico, 0)), TokenUsage(1, 0), margin_bps)
    assert (priced.cost_nano, priced.charge_nano) == (cost_nano, charge_nano)


def test_an_event_beyond_the_largest_amount_is_refused() -> None:
    dear = flat(Listed(10**10, 0))
    assert cost.price(dear, TokenUsage(10**8, 0)).charge_nano == money.AMOUNT_MAX
    with pytest.raises(ValidationError):
        cost.price(dear, TokenUsage(10**8 + 1, 0))


@given(
    listed=st.builds(Listed, *[st.integers(0, 10**5)] * 2, *[st.none() | st.integers(0, 10**5)] * 3),
    counts=st.lists(TOKENS, min_size=5, max_size=5),
    margin_bps=st.integers(0, 10**5),
)
def test_the_charge_equals_exact_decimal_arithmetic(listed: Listed, counts: list[int], margin_bps: int) -> None:
    plain, output, read, write, write_1h = counts
    usage = TokenUsage(plain, output, read, write + write_1h, write_1h, input_tokens_include_cache=False)
    priced = cost.price(flat(listed), usage, margin_bps)
    pairs = ((plain, priced.input_pico), (output, priced.output_pico), (read, priced.cache_read_pico))
    writes = ((write, priced.cache_write_pico), (write_1h, priced.cache_write_1h_pico))
    exact = sum((Decimal(count) * pico for count, pico in (*pairs, *writes)), Decimal(0)) / 1_000
    charge = exact * (10_000 + margin_bps) / 10_000
    assert priced.cost_nano == int(exact.to_integral_value(ROUND_HALF_EVEN))
    assert priced.charge_nano == int(charge.to_integral_value(ROUND_HALF_EVEN))
    assert priced.charge_nano >= priced.cost_nano >= 0


LONG = Band(200, Listed(6 * USD_PER_MILLION, 30 * USD_PER_MILLION))


def test_a_service_tier_without_long_context_has_no_price_from_the_standards_boundary_on() -> None:
    """Mutant: its short price is charged at any length."""
    found = row(Band(0, SONNET), LONG, service_tiers={"flex": (Band(0, SONNET),)})
    assert cost.price(found, TokenUsage(199, 1, service_tier="flex")) == cost.price(found, TokenUsage(199, 1))
    for tokens in (200, 10**9):
        with pytest.raises(NotFound, match="from 200 input tokens on") as raised:
            cost.price(found, TokenUsage(tokens, 1, service_tier="flex"))
        assert raised.value.code == "price_not_listed"
    apart = TokenUsage(100, 1, 100, service_tier="flex", input_tokens_include_cache=False)
    with pytest.raises(NotFound):
        cost.price(found, apart)


def test_a_service_tier_that_states_its_long_context_price_has_it() -> None:
    found = row(Band(0, SONNET), LONG, service_tiers={"flex": (Band(0, SONNET), Band(200, SONNET))})
    assert cost.price(found, TokenUsage(500, 0, service_tier="flex")).cost_nano == 500 * 3_000


def test_a_service_tier_of_a_model_at_one_price_holds_at_any_length() -> None:
    found = row(Band(0, SONNET), service_tiers={"flex": (Band(0, SONNET),)})
    assert cost.price(found, TokenUsage(10**9, 0, service_tier="flex")).cost_nano == 3 * 10**12
