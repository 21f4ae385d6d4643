"""What one AI event costs and is charged: integers only, rounded once.

    plain  = input - cache read - cache write                     must be >= 0
    cost   = plain*in + output*out + read*cr + write*cw + searches*fee
    charge = cost * (1 + margin), rounded half-even to nano-USD once

The long-context band and the service tier choose the rates; the band goes by the request's total input and holds for all of
its tokens. A price that is not listed is an error, never zero.
"""

from bisect import bisect_right

import msgspec

from tallybook.core import errors, money
from tallybook.pricing.price_book import PriceRow
from tallybook.pricing.rates import Rates, Schedule

_MARGIN_UNIT = money.BPS * money.PICO_PER_NANO


class TokenUsage(msgspec.Struct, frozen=True, gc=False):
    """What one request used.

    `input_tokens` is the whole prompt, cache reads and writes included, unless `input_tokens_include_cache` is false (senders
    whose provider counts them apart). `cache_write_1h_tokens` is the part of `cache_write_tokens` that is kept for an hour.
    """

    input_tokens: int
    output_tokens: int
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cache_write_1h_tokens: int = 0
    web_searches: int = 0
    service_tier: str | None = None
    input_tokens_include_cache: bool = True


class Priced(msgspec.Struct, frozen=True, gc=False):
    """An event's price. Amounts in nano-USD, unit prices in pico-USD per token; `input_tokens` is the total, cache included."""

    cost_nano: int
    charge_nano: int
    input_tokens: int
    input_pico: int
    output_pico: int
    cache_read_pico: int
    cache_write_pico: int
    cache_write_1h_pico: int
    web_search_pico: int


def price(row: PriceRow, usage: TokenUsage, margin_bps: int = 0) -> Priced:
    """Price one event by one price row.

    Raises ValidationError for counts that contradict each other or an amount out of bounds, and NotFound `price_not_listed`
    when the event needs a price (output, service tier, its long context, web search) that the row does not have.
    """
    read, write, write_1h = usage.cache_read_tokens, usage.cache_write_tokens, usage.cache_write_1h_tokens
    total = usage.input_tokens if usage.input_tokens_include_cache else usage.input_tokens + read + write
    plain = total - read - write
    # The bitwise or of integers is negative exactly when one of them is.
    if (plain | usage.output_tokens | read | write_1h | (write - write_1h) | usage.web_searches | margin_bps) < 0:
        raise _contradiction(usage, margin_bps)
    schedule = row.standard if usage.service_tier is None else row.schedule(usage.service_tier)
    rates = schedule.first if total < schedule.second_from else _band(row, usage, schedule, total)
    output, search = rates.output, row.web_search
    if output is None or search is None:
        output, search = _absent(usage, row, rates)
    cost = (
        plain * rates.input
        + usage.output_tokens * output
        + read * rates.cache_read
        + (write - write_1h) * rates.cache_write
        + write_1h * rates.cache_write_1h
        + usage.web_searches * search
    )
    charge = money.divide_half_even(cost * (money.BPS + margin_bps), _MARGIN_UNIT)
    if charge > money.AMOUNT_MAX:
        most = money.usd(money.AMOUNT_MAX)
        raise errors.invalid("inputTokens", f"the event would be charged {money.usd(charge)}; one event may take at most {most}")
    return Priced(
        money.divide_half_even(cost, money.PICO_PER_NANO),
        charge,
        total,
        rates.input,
        output,
        rates.cache_read,
        rates.cache_write,
        rates.cache_write_1h,
        search,
    )


def _band(row: PriceRow, usage: TokenUsage, schedule: Schedule, total: int) -> Rates:
    place = bisect_right(schedule.starts, total) - 1
    found = schedule.rates[place]
    if found is None:
        start = schedule.starts[place]
        raise row.not_listed(f"the service tier {usage.service_tier!r} from {start} input tokens on (the request has {total})")
    return found


def _absent(usage: TokenUsage, row: PriceRow, rates: Rates) -> tuple[int, int]:
    """Output and search price where at least one is not listed: 0 stands in only for a count of 0."""
    if rates.output is None and usage.output_tokens:
        raise row.not_listed(f"output tokens (outputTokens is {usage.output_tokens})")
    if row.web_search is None and usage.web_searches:
        raise row.not_listed(f"web searches (webSearchRequests is {usage.web_searches})")
    return rates.output or 0, row.web_search or 0


def _contradiction(usage: TokenUsage, margin_bps: int) -> errors.ValidationError:
    """Name what is wrong, with the numbers."""
    counts = {
        "inputTokens": usage.input_tokens,
        "outputTokens": usage.output_tokens,
        "cacheReadTokens": usage.cache_read_tokens,
        "cacheWriteTokens": usage.cache_write_tokens,
        "cacheWrite1hTokens": usage.cache_write_1h_tokens,
        "webSearchRequests": usage.web_searches,
        "margin": margin_bps,
    }
    for name, count in counts.items():
        if count < 0:
            return errors.invalid(name, f"{name} is {count}, which is below 0")
    if usage.cache_write_1h_tokens > usage.cache_write_tokens:
        part, whole = usage.cache_write_1h_tokens, usage.cache_write_tokens
        return errors.invalid(
            "cacheWrite1hTokens", f"cacheWrite1hTokens ({part}) exceed cacheWriteTokens ({whole}), which contain them"
        )
    message = (
        f"cacheReadTokens ({usage.cache_read_tokens}) + cacheWriteTokens ({usage.cache_write_tokens}) exceed inputTokens "
        f"({usage.input_tokens}), which counts them too; send inputTokensIncludeCache: false if yours does not"
    )
    return errors.invalid("inputTokens", message)
