"""A run that does not reconcile is void, and says so to whoever started it."""

from pathlib import Path

import msgspec
import pytest

from benchmarks import __main__ as command
from benchmarks import book
from benchmarks.book import Acknowledged
from benchmarks.load import Outcome
from benchmarks.run import Found
from tallybook.flows import reconcile
from tallybook.rollup.sums import PoolDifference, Sum

LEVEL = reconcile.Report([Sum("pools = ledger", 70, 70)], [])


def acknowledged(*outcomes: Outcome) -> Acknowledged:
    made = Acknowledged()
    for outcome in outcomes:
        made.add(outcome)
    return made


def test_a_run_whose_events_are_all_in_the_book_counts() -> None:
    assert book.differences(acknowledged(Outcome(accepted=100), Outcome(accepted=7)), 107, 107, LEVEL) == []


@pytest.mark.parametrize(
    ("told", "rows", "ids", "books", "reason"),
    [
        (Outcome(accepted=100), 99, 99, LEVEL, "100 events were acknowledged, 99 are in the book"),
        (Outcome(accepted=100), 101, 101, LEVEL, "100 events were acknowledged, 101 are in the book"),
        (Outcome(accepted=100), 100, 99, LEVEL, "100 events in the book have 99 identities"),
        (Outcome(accepted=100, unknown=1), 100, 100, LEVEL, "1 requests had no definite answer"),
        (Outcome(unexpected=2, example="402"), 0, 0, LEVEL, "2 answers were not what they must be, such as: 402"),
        (Outcome(), 0, 0, reconcile.Report([Sum("pools = ledger", 70, 71, 1)], []), "pools = ledger: 70 and 71, 1 places differ"),
        (
            Outcome(),
            0,
            0,
            reconcile.Report([], [PoolDifference(1, 2, "2.b.3", "till", 4, 5)]),
            "customer 2, 2.b.3: till: 4 and 5",
        ),
    ],
)
def test_a_run_that_does_not_reconcile_is_void_and_says_why(
    told: Outcome, rows: int, ids: int, books: reconcile.Report, reason: str
) -> None:
    assert book.differences(acknowledged(told), rows, ids, books) == [reason]


def test_a_void_run_ends_with_1_and_is_marked_in_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = Found(void=["100 events were acknowledged, 99 are in the book"])
    assert command.conclude(found, tmp_path / "run.json", 1.0) == 1
    assert "VOID" in capsys.readouterr().out
    written = msgspec.json.decode((tmp_path / "run.json").read_bytes())
    assert written["reconciled"] is False
    assert written["void"] == ["100 events were acknowledged, 99 are in the book"]


def test_a_run_that_reconciles_ends_with_0(tmp_path: Path) -> None:
    assert command.conclude(Found(), tmp_path / "run.json", 1.0) == 0
    assert msgspec.json.decode((tmp_path / "run.json").read_bytes())["reconciled"] is True
