"""Rows to files: CSV, Parquet and JSON lines, some thousand rows at a time, so that memory does not grow with the report.

A file appears under its name when it is whole. Numbers are decimals, never floats.
"""

# pyright: reportUnknownMemberType=false
# polars types its arguments only partly.

import contextlib
import shutil
from collections.abc import Generator, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import BinaryIO, Literal, Protocol
from zoneinfo import ZoneInfo

import polars as pl

from tallybook.reports import rules
from tallybook.reports.model import Column, Grain, RawRow, Unit, Value

Format = Literal["csv", "parquet", "jsonl"]
FORMATS: tuple[Format, ...] = ("csv", "parquet", "jsonl")
PART_ROWS = 50_000
"""Rows of a part of a Parquet file, which is put together from its parts at the end."""
_DIGITS = 38
_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
_SCALE = {Unit.NANO: 9, Unit.PICO: 12, Unit.PICO_PER_TOKEN: 6, Unit.BPS: 2}
_FORMULA = r"^\s*[=+\-@＝＋－＠]|^[\t\r\n]"  # noqa: RUF001 - spreadsheets read the full-width signs as signs too


class Writer(Protocol):
    """Takes the rows of a report in portions."""

    def write(self, rows: Sequence[RawRow]) -> None:
        """Write some more rows."""
        ...


@contextlib.contextmanager
def opened(path: Path, form: Format, columns: Sequence[Column], zone: str = "UTC") -> Generator[Writer]:
    """A writer to a file, which gets its name when the block ends well and is gone when it does not."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    parts = path.with_name(f".{path.name}.parts")
    shape = Shape(columns, rules.zone(zone))
    try:
        if form == "parquet":
            parts.mkdir(exist_ok=True)
            writer = _Parquet(parts, shape)
            yield writer
            writer.join(unfinished)
        else:
            with unfinished.open("wb") as stream:
                yield to_stream(stream, form, columns, zone)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
        shutil.rmtree(parts, ignore_errors=True)


def to_stream(stream: BinaryIO, form: Literal["csv", "jsonl"], columns: Sequence[Column], zone: str = "UTC") -> Writer:
    """A writer to an open stream."""
    shape = Shape(columns, rules.zone(zone))
    return _Csv(stream, shape) if form == "csv" else _JsonLines(stream, shape)


def harmless(name: str) -> pl.Expr:
    """A column of text; what a spreadsheet would run as a formula has an apostrophe before it."""
    column = pl.col(name)
    return pl.when(column.str.contains(_FORMULA)).then(pl.lit("'") + column).otherwise(column).alias(name)


class Shape:
    """The columns of a file."""

    def __init__(self, columns: Sequence[Column], in_zone: ZoneInfo) -> None:
        self.columns = columns
        self.zone = in_zone
        self.texts = [column.name for column in columns if column.unit in (Unit.TEXT, Unit.BUCKET)]
        self.instants = [column.name for column in columns if column.unit is Unit.INSTANT]
        self.decimals = [column.name for column in columns if column.unit in _SCALE]

    def frame(self, rows: Sequence[RawRow]) -> pl.DataFrame:
        """The rows with exact types. Raises what polars raises for a number that its column cannot hold."""
        return pl.DataFrame([self._series(column, [row[column.key] for row in rows]) for column in self.columns])

    def _series(self, column: Column, values: Iterable[Value]) -> pl.Series:
        if column.unit is Unit.COUNT:
            return pl.Series(column.name, list(values), pl.Int64, strict=True)
        if column.unit is Unit.INSTANT:
            return _instants(column.name, values)
        if column.unit in _SCALE:
            return _decimals(column.name, values, _SCALE[column.unit])
        texts = [value or None for value in values] if column.grain is None else self._names(column.grain, values)
        return pl.Series(column.name, texts, pl.String, strict=True)

    def _names(self, grain: Grain, values: Iterable[Value]) -> list[str | None]:
        return [rules.bucket_name(value, grain, self.zone) if isinstance(value, datetime) else None for value in values]


def _instants(name: str, values: Iterable[Value]) -> pl.Series:
    """Times by way of integers, which polars takes in a hundredth of the time that objects need."""
    exact = [(value - _EPOCH) // _MICROSECOND if isinstance(value, datetime) else None for value in values]
    return pl.Series(name, exact, pl.Int64, strict=True).cast(pl.Datetime("us", "UTC"))


def _decimals(name: str, values: Iterable[Value], scale: int) -> pl.Series:
    """Integers as decimals with so many digits behind the point: as whole ones, which are then multiplied by the smallest."""
    whole = pl.Series(name, list(values), pl.Int128, strict=True).cast(pl.Decimal(_DIGITS, scale))
    return whole * pl.Series([Decimal(1).scaleb(-scale)], dtype=pl.Decimal(_DIGITS, scale))


class _Csv:
    def __init__(self, stream: BinaryIO, shape: Shape) -> None:
        self._stream, self._shape = stream, shape
        empty = shape.frame([])
        # A property's name can be anything, and spreadsheets read headers as they read cells.
        names = pl.DataFrame({"name": empty.columns}, schema={"name": pl.String}).select(harmless("name")).to_series().to_list()
        self._stream.write(pl.DataFrame(schema=dict.fromkeys(names, pl.String)).write_csv().encode())

    def write(self, rows: Sequence[RawRow]) -> None:
        frame = self._shape.frame(rows).with_columns(harmless(name) for name in self._shape.texts)
        frame.write_csv(self._stream, include_header=False, datetime_format="%Y-%m-%dT%H:%M:%S%.6fZ")


class _JsonLines:
    def __init__(self, stream: BinaryIO, shape: Shape) -> None:
        self._stream, self._shape = stream, shape

    def write(self, rows: Sequence[RawRow]) -> None:
        frame = self._shape.frame(rows).with_columns(
            *(pl.col(name).dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ") for name in self._shape.instants),
            *(pl.col(name).cast(pl.String) for name in self._shape.decimals),
        )
        frame.write_ndjson(self._stream)


class _Parquet:
    """Parts on disk, then one file: a Parquet file can't be added to."""

    def __init__(self, folder: Path, shape: Shape) -> None:
        self._folder, self._shape = folder, shape
        self._waiting: list[pl.DataFrame] = []
        self._waiting_rows = self._parts = 0

    def write(self, rows: Sequence[RawRow]) -> None:
        self._waiting.append(self._shape.frame(rows))
        self._waiting_rows += len(rows)
        if self._waiting_rows >= PART_ROWS:
            self._flush()

    def join(self, path: Path) -> None:
        if self._waiting or not self._parts:
            self._flush()
        pl.scan_parquet(sorted(self._folder.glob("*.parquet"))).sink_parquet(path, row_group_size=PART_ROWS)

    def _flush(self) -> None:
        frame = pl.concat(self._waiting) if self._waiting else self._shape.frame([])
        frame.write_parquet(self._folder / f"{self._parts:08d}.parquet")
        self._waiting, self._waiting_rows, self._parts = [], 0, self._parts + 1
