"""The ids that litellm knows, resolved by ours: where a looser spelling leads to a price below litellm's for that very id."""

import importlib.util
import json
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path

from tallybook.ai_models import catalog_files, decimals
from tallybook.core import clock
from tallybook.core.errors import TallybookError
from tallybook.pricing.model_ids import MatchedBy
from tallybook.pricing.price_book import PriceBook

RECORDED = Path(__file__).with_name("native_ids.json")
LOOSE = frozenset({MatchedBy.PUNCTUATION, MatchedBy.WRAPPER, MatchedBy.DATE, MatchedBy.LATEST})
_OTHER_GATEWAYS = ("openrouter/", "vercel_ai_gateway/", "github_copilot/")
"""They set prices of their own, which are those of the list that the catalog is made from, or of none."""
_TOLERANCE = Decimal("0.99")
REGIONAL = re.compile(r"(?:us|eu|apac|au|jp)\.(?:anthropic|amazon|openai)\.[a-z0-9.:-]+")
"""Amazon's regional inference profiles: documented as charged by the list price of the model (`pricing/README.md`)."""

Underpriced = Mapping[str, Mapping[str, str]]


def underpriced() -> dict[str, dict[str, str]]:
    """By id: the model that it resolves to, how, and both prices (USD per million, input / output)."""
    catalog = catalog_files.read(catalog_files.packaged())
    book, at_ms = catalog_files.book(catalog), clock.to_ms(catalog.fetched_at)
    return {name: found for name, usd in _litellm() if (found := _compare(book, at_ms, name, *usd))}


def _compare(book: PriceBook, at_ms: int, name: str, usd_in: Decimal, usd_out: Decimal) -> dict[str, str] | None:
    try:
        resolved = book.resolve(0, name, at_ms)
        ours = resolved.entry.row_at(at_ms).standard.first
    except TallybookError:
        return None
    theirs = (int(usd_in.scaleb(12)), int(usd_out.scaleb(12)))
    if resolved.matched_by not in LOOSE or ours.output is None:
        return None
    if ours.input >= theirs[0] * _TOLERANCE and ours.output >= theirs[1] * _TOLERANCE:
        return None
    return {
        "model": resolved.model_id,
        "matchedBy": resolved.matched_by.value,
        "tallybook": f"{decimals.usd_per_million(ours.input)} / {decimals.usd_per_million(ours.output)}",
        "litellm": f"{decimals.usd_per_million(theirs[0])} / {decimals.usd_per_million(theirs[1])}",
    }


def _litellm() -> Iterator[tuple[str, tuple[Decimal, Decimal]]]:
    """Its ids with an input and an output price, read from the file that it ships."""
    found = importlib.util.find_spec("litellm")
    assert found is not None
    assert found.origin is not None
    [path] = Path(found.origin).parent.glob("model_prices_and_context_window_backup.json")
    for name, each in sorted(json.loads(path.read_text(encoding="utf-8"), parse_float=Decimal).items()):
        prices = (each.get("input_cost_per_token"), each.get("output_cost_per_token"))
        if all(prices) and not name.startswith(_OTHER_GATEWAYS):
            yield name, (Decimal(prices[0]), Decimal(prices[1]))


def recorded() -> Underpriced:
    """What is checked in."""
    return json.loads(RECORDED.read_text(encoding="utf-8"))
