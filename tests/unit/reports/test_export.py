"""Files: exact numbers, harmless text, whole or not there, memory that does not grow."""

# pyright: reportUnknownMemberType=false

import csv
import io
import tracemalloc
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import msgspec
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.reports import export, rules
from tallybook.reports.export import Format
from tallybook.reports.model import Column, Grain, RawRow, Unit

COLUMNS = (
    Column("customerId", Unit.TEXT),
    Column("day", Unit.BUCKET, Grain.DAY),
    Column("at", Unit.INSTANT),
    Column("events", Unit.COUNT),
    Column("charge", Unit.NANO),
    Column("inputPrice", Unit.PICO_PER_TOKEN),
    Column("=property", Unit.TEXT, alias="property_1"),
)
MIDNIGHT = datetime(2026, 10, 24, 22, tzinfo=UTC)
LARGE = 4 * 10**27 + 1


def row(text: str | None, nano: int = LARGE) -> RawRow:
    return {
        "customerId": text,
        "day": MIDNIGHT,
        "at": MIDNIGHT,
        "events": 2**60,
        "charge": nano,
        "inputPrice": 3_000_001,
        "property_1": text,
    }


def written(path: Path, form: Format, rows: list[RawRow]) -> Path:
    with export.opened(path, form, COLUMNS, "Europe/Berlin") as writer:
        writer.write(rows[:1])
        writer.write(rows[1:])
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    return path


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "\r=1", "\n=1", "＝1", "=cmd|' /C calc'!A0", '=HYPERLINK("x";"y")'],  # noqa: RUF001
)
def test_text_that_a_spreadsheet_would_run_gets_an_apostrophe(tmp_path: Path, text: str) -> None:
    """Mutants: only the first row; only text without blanks before it; headers forgotten; negative numbers changed too."""
    path = written(tmp_path / "a.csv", "csv", [row("plain"), row(text, -1), row(None)])
    header, first, second, third = list(csv.reader(io.StringIO(path.read_bytes().decode(), newline="")))
    assert header[-1] == "'=property"
    assert (first[0], second[0], third[0]) == ("plain", "'" + text, "")
    assert second[4] == "-0.000000001"


@pytest.mark.parametrize("text", ["a=b", "user@example.com", "a-b", "1", 'Müller, "Söhne"\nund Co'])
def test_other_text_stays_as_it_is(tmp_path: Path, text: str) -> None:
    path = written(tmp_path / "a.csv", "csv", [row(text)])
    assert list(csv.reader(io.StringIO(path.read_bytes().decode(), newline="")))[1][0] == text


def test_csv_numbers_are_exact(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "csv", [row("a")])
    [found] = csv.DictReader(io.StringIO(path.read_text(), newline=""))
    assert (found["events"], Decimal(found["charge"]), Decimal(found["inputPrice"])) == (
        str(2**60),
        Decimal("4000000000000000000.000000001"),
        Decimal("3.000001"),
    )
    assert (found["day"], found["at"]) == ("2026-10-25", "2026-10-24T22:00:00.000000Z")


def test_json_lines_hold_decimals_as_text(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", "jsonl", [row("=1"), row(None)])
    first, second = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
    assert first["customerId"] == "=1"
    assert Decimal(first["charge"]) == Decimal("4000000000000000000.000000001")
    assert (second["customerId"], second["events"], second["day"]) == (None, 2**60, "2026-10-25")


def test_parquet_has_exact_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "PART_ROWS", 2)
    path = written(tmp_path / "a.parquet", "parquet", [row(str(number)) for number in range(5)])
    frame = pl.read_parquet(path)
    assert frame.schema["charge"] == pl.Decimal(38, 9)
    assert frame.schema["at"] == pl.Datetime("us", "UTC")
    assert frame["customerId"].to_list() == ["0", "1", "2", "3", "4"]
    assert frame["charge"].to_list() == [Decimal("4000000000000000000.000000001")] * 5


@pytest.mark.parametrize("form", export.FORMATS)
def test_a_report_without_rows_is_a_file_without_rows(tmp_path: Path, form: Format) -> None:
    path = tmp_path / f"a.{form}"
    with export.opened(path, form, COLUMNS):
        pass
    assert path.exists()
    if form == "parquet":
        assert pl.read_parquet(path).columns == [column.name for column in COLUMNS]


@pytest.mark.parametrize("form", export.FORMATS)
def test_a_file_that_was_not_finished_is_not_there(tmp_path: Path, form: Format) -> None:
    def break_off() -> None:
        with export.opened(tmp_path / "a", form, COLUMNS) as writer:
            writer.write([row("a")])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        break_off()
    assert list(tmp_path.iterdir()) == []


def test_a_number_that_its_column_cannot_hold_is_an_error_and_never_cut(tmp_path: Path) -> None:
    with (
        pytest.raises((pl.exceptions.PolarsError, OverflowError, TypeError)),
        export.opened(tmp_path / "a", "csv", COLUMNS) as writer,
    ):
        writer.write([{**row("a"), "events": 2**63}])


@given(
    st.lists(st.none() | st.integers(-(10**28), 10**28), min_size=1), st.sampled_from([Unit.NANO, Unit.PICO_PER_TOKEN, Unit.BPS])
)
def test_every_integer_becomes_the_decimal_it_stands_for(values: list[int | None], unit: Unit) -> None:
    """Mutants: by way of a float; one digit too few."""
    digits = {Unit.NANO: 9, Unit.PICO_PER_TOKEN: 6, Unit.BPS: 2}[unit]
    frame = export.Shape([Column("a", unit)], rules.zone("UTC")).frame([{"a": value} for value in values])
    assert frame["a"].to_list() == [None if value is None else Decimal(f"{value}E-{digits}") for value in values]


@pytest.mark.parametrize("value", [10**29, -(10**29), 10**37, 2**127, 10**40])
def test_an_amount_beyond_all_columns_is_an_error_and_never_something_else(value: int) -> None:
    shape = export.Shape([Column("a", Unit.NANO)], rules.zone("UTC"))
    with pytest.raises((pl.exceptions.PolarsError, OverflowError, TypeError)):
        shape.frame([{"a": value}, {"a": None}])


@given(st.lists(st.none() | st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC)), min_size=1))  # noqa: DTZ001
def test_every_time_is_kept_to_the_microsecond(values: list[datetime | None]) -> None:
    frame = export.Shape([Column("a", Unit.INSTANT)], rules.zone("UTC")).frame([{"a": value} for value in values])
    assert frame["a"].to_list() == values


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, form: Format) -> None:
    """Mutant: the rows are kept until the end."""
    chunk = [row("customer")] * 1000
    tracemalloc.start()
    try:
        with export.opened(tmp_path / "a", form, COLUMNS) as writer:
            writer.write(chunk)
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            for _ in range(30):
                writer.write(chunk)
            after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 500_000
