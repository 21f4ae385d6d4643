"""The token shapes that every model is priced with, and the models of the packaged catalog."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tallybook.ai_models import catalog_files
from tallybook.core import clock
from tallybook.pricing import cost
from tallybook.pricing.cost import TokenUsage
from tallybook.pricing.price_book import PriceRow
from tallybook.pricing.rates import Listed

_ORDINARY_BOUNDARIES = (128_000, 200_000, 272_000)
"""Where providers put long-context tiers; every model is looked at there, listed tiers or not."""
BILLION = 10**9


class Shape(NamedTuple):
    """Counts of one request; `input` is the whole prompt, `write` includes `write_1h`."""

    input: int
    output: int
    read: int = 0
    write: int = 0
    write_1h: int = 0

    @property
    def usage(self) -> TokenUsage:
        """The same as the product takes it."""
        return TokenUsage(self.input, self.output, self.read, self.write, self.write_1h)


def priced_models() -> dict[str, PriceRow]:
    """The newest price row of every model of the packaged catalog that has a token price."""
    catalog = catalog_files.read(catalog_files.packaged())
    book = catalog_files.book(catalog)
    at_ms = clock.to_ms(catalog.fetched_at)
    return {entry.model_id: entry.row_at(at_ms) for entry in book.entries() if entry.rows and not entry.tombstoned}


def of_row(row: PriceRow) -> dict[str, Shape]:
    """At least ten shapes by name: every kind of token, nothing at all, a billion, and both sides of every boundary."""
    writes_answers = all(band.listed.output is not None for band in row.listed.standard)
    output = 1 if writes_answers else 0
    shapes = {
        "plain": Shape(1_000, 500 * output),
        "odd": Shape(7, 3 * output),
        "input only": Shape(12_345, 0),
        "output only": Shape(0, 6_789 * output),
        "nothing": Shape(0, 0),
        "a billion": Shape(BILLION, 1_000_000 * output),
        "cache read": Shape(10_000, 200 * output, 7_000),
        "all cached": Shape(5_000, 0, 5_000),
        "cache write": Shape(10_000, 200 * output, 0, 4_000),
        "cache read and write": Shape(10_000, 2_000 * output, 7_000, 1_000),
        "1-hour write": Shape(10_000, 200 * output, 0, 4_000, 4_000),
        "both writes": Shape(10_000, 200 * output, 1_000, 4_000, 1_500),
    }
    for boundary in _boundaries(row):
        for count in (boundary - 1, boundary, boundary + 1):
            shapes[f"{count} in"] = Shape(count, 100 * output)
        shapes[f"{boundary + 1} in, cached"] = Shape(boundary + 1, 100 * output, boundary // 2)
    return shapes


def _boundaries(row: PriceRow) -> Iterable[int]:
    return sorted({start for start in row.standard.starts if start} | set(_ORDINARY_BOUNDARIES))


def costs(row: PriceRow, shapes: Mapping[str, Shape]) -> dict[str, int]:
    """Nano-USD by shape, as Tallybook prices them without a margin."""
    return {name: cost.price(row, shape.usage).cost_nano for name, shape in shapes.items()}


def listed(row: PriceRow) -> Listed:
    """The prices of the first band."""
    return row.listed.standard[0].listed
