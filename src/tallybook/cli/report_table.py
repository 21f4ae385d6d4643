"""Reports on a terminal: a table with totals, and a bar while a file is written."""

import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from itertools import islice

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from tallybook.reports import rules
from tallybook.reports.model import Column, RawRow, Unit

ROWS_MAX = 200
"""Rows that a table shows; the totals are of all rows."""
_WIDTH_OF_A_PIPE = 240
_TEXTS = (Unit.TEXT, Unit.BUCKET, Unit.INSTANT)
_SUMMABLE = (Unit.COUNT, Unit.NANO)
_OF_MANY_UNITS = frozenset(("forecast", name) for name in ("included", "used", "projectedUsed", "projectedOverage"))
"""Sums of these would add dollars to credits."""
Advance = Callable[[int], None]


async def show(title: str, columns: Sequence[Column], chunks: AsyncIterator[Sequence[RawRow]], zone: str) -> None:
    """Print the first rows, and the totals of all."""
    shown: list[RawRow] = []
    totals = {column.key: 0 for column in columns if column.unit in _SUMMABLE and (title, column.name) not in _OF_MANY_UNITS}
    count = 0
    async for chunk in chunks:
        shown += islice(chunk, ROWS_MAX - len(shown))
        count += len(chunk)
        for row in chunk:
            for name in totals:
                value = row[name]
                totals[name] += value if isinstance(value, int) else 0
    console = Console(width=None if sys.stdout.isatty() else _WIDTH_OF_A_PIPE)
    console.print(_table(title, columns, shown, totals if count else {}, zone))
    if count > len(shown):
        console.print(f"{count - len(shown):,} more rows; the totals count them. Write them all with --output FILE.")


def _table(title: str, columns: Sequence[Column], rows: Sequence[RawRow], totals: RawRow, zone: str) -> Table:
    in_zone = rules.zone(zone)
    table = Table(title=f"{title} ({zone})", show_footer=bool(totals), header_style="bold")
    for place, column in enumerate(columns):
        footer = _cell(column, totals.get(column.key), zone) if column.key in totals else "total" if place == 0 else ""
        table.add_column(column.name, footer, justify="left" if column.unit in _TEXTS else "right", overflow="fold")
    for row in rows:
        # Text, not markup: a customer's own id may hold brackets.
        table.add_row(
            *(Text(str(found if (found := rules.shown(one, row[one.key], in_zone)) is not None else "")) for one in columns)
        )
    return table


def _cell(column: Column, value: object, zone: str) -> str:
    return str(rules.shown(column, value, rules.zone(zone))) if isinstance(value, int) else ""


@contextlib.contextmanager
def progress(name: str) -> Generator[Advance]:
    """A bar on stderr with the rows written so far; nothing where stderr is no terminal."""
    columns = (
        SpinnerColumn(),
        TextColumn(name, markup=False),
        BarColumn(),
        TextColumn("{task.completed:,.0f} rows"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(name, total=None)
        yield lambda rows: bar.advance(task, rows)
