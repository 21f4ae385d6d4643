"""What pricing one event costs in CPU time: ours, and litellm and genai-prices beside it for the same request.

Ours is the whole of what the usage path does for a known model: resolve the caller's text, find the price row of the moment, price
the counts with a margin. The others are asked through their own front doors, with only the prices that they ship.
"""

import gc
import importlib
import os
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from tallybook.ai_models import catalog_files
from tallybook.core import clock
from tallybook.pricing import cost
from tallybook.pricing.cost import TokenUsage

MODEL = "claude-sonnet-4-6"
TOTAL, OUTPUT, READ, WRITE = 10_000, 2_000, 7_000, 1_000
MARGIN_BPS = 2_000
_AT_MS = clock.to_ms(datetime(2026, 8, 15, tzinfo=UTC))
_MICRO = 1e6


def measure() -> dict[str, float]:
    """Microseconds of CPU an event, the median of many repeats; `price_only_us` is ours with the row at hand."""
    resolved, only = _ours()
    return {
        "price_us": _median_us(resolved, calls=2_000, repeats=101),
        "price_only_us": _median_us(only, calls=2_000, repeats=101),
        "litellm_us": _median_us(_litellm(), calls=50, repeats=21),
        "genai_prices_us": _median_us(_genai_prices(), calls=50, repeats=21),
    }


def _median_us(call: Callable[[], object], *, calls: int, repeats: int) -> float:
    call()
    gc.collect()
    return round(statistics.median(_once_us(call, calls) for _ in range(repeats)), 3)


def _once_us(call: Callable[[], object], calls: int) -> float:
    started = time.thread_time()
    for _ in range(calls):
        call()
    return (time.thread_time() - started) / calls * _MICRO


def _ours() -> tuple[Callable[[], object], Callable[[], object]]:
    book = catalog_files.book(catalog_files.read(catalog_files.packaged()))
    row = book.resolve(1, MODEL).entry.row_at(_AT_MS)
    resolve, price = book.resolve, cost.price
    usage = TokenUsage(TOTAL, OUTPUT, READ, WRITE)

    def whole() -> object:
        counts = TokenUsage(TOTAL, OUTPUT, READ, WRITE)
        return price(resolve(1, MODEL).entry.row_at(_AT_MS), counts, MARGIN_BPS)

    return whole, lambda: price(row, usage, MARGIN_BPS)


def _litellm() -> Callable[[], object]:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    library: Any = importlib.import_module("litellm")
    types: Any = importlib.import_module("litellm.types.utils")
    details = types.PromptTokensDetailsWrapper(cached_tokens=READ, cache_creation_tokens=WRITE)
    usage = types.Usage(prompt_tokens=TOTAL, completion_tokens=OUTPUT, total_tokens=TOTAL + OUTPUT, prompt_tokens_details=details)
    return lambda: library.cost_per_token(model=MODEL, usage_object=usage)


def _genai_prices() -> Callable[[], object]:
    library: Any = importlib.import_module("genai_prices")
    usage = library.Usage(input_tokens=TOTAL, output_tokens=OUTPUT, cache_read_tokens=READ, cache_write_tokens=WRITE)
    return lambda: library.calc_price(usage, MODEL, provider_id="anthropic")
