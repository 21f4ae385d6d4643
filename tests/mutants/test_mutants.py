"""Every known way to break the product still is one, and the quick ones are noticed; `make mutants` runs them all."""

import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mutants import workshop
from tests.mutants.catalog import MUTANTS
from tests.mutants.mutant import Mutant
from tests.mutants.workshop import NoJudgementError, Workshop

QUICK = [mutant for mutant in MUTANTS if mutant.quick]


@pytest.fixture(scope="module")
def shop() -> Iterator[Workshop]:
    with tempfile.TemporaryDirectory(prefix="tallybook-mutants-") as name:
        yield workshop.furnish(Path(name))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda one: one.name)
def test_a_mutant_applies_and_the_test_that_must_notice_it_is_there(mutant: Mutant) -> None:
    assert workshop.why_unfit(mutant) is None


def test_there_are_twenty_mutants_with_names_of_their_own_and_most_invariants_have_one() -> None:
    assert len(MUTANTS) >= 20
    assert max(Counter(mutant.name for mutant in MUTANTS).values()) == 1
    assert {mutant.invariant for mutant in MUTANTS} >= {1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15}


def test_the_table_of_invariants_names_every_mutant_in_its_line_and_tests_that_are_there() -> None:
    lines = (workshop.ROOT / "src/tallybook/INVARIANTS.md").read_text().splitlines()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ") and line[2].isdigit()
    ]
    told = {(int(number), name) for number, _, _, mutants in rows for name in re.findall(r'"([^"]+)"', mutants)}
    assert told == {(mutant.invariant, mutant.name) for mutant in MUTANTS}
    tests = workshop.ROOT / "tests"
    named = [name for _, _, cell, _ in rows for name in re.findall(r"`([^`]+)`", cell)]
    assert [name for name in named if not any(tests.rglob(name))] == []


def test_a_mutant_whose_text_has_moved_is_unfit() -> None:
    moved = Mutant("moved", 1, "core/money.py", "no such text", "", QUICK[0].test)
    assert "its text is 0 times in core/money.py" in (workshop.why_unfit(moved) or "")
    nameless = Mutant("nameless", 1, QUICK[0].file, QUICK[0].old, QUICK[0].new, "tests/unit/core/test_money.py::test_nothing")
    assert "there is no test" in (workshop.why_unfit(nameless) or "")


def test_the_quick_mutants_are_noticed_and_without_them_nothing_is(shop: Workshop) -> None:
    assert shop.passes(*sorted({mutant.test for mutant in QUICK}))
    assert [mutant.name for mutant in QUICK if not shop.kills(mutant)] == []


def test_a_test_that_can_not_be_run_notices_nothing(shop: Workshop) -> None:
    with pytest.raises(NoJudgementError):
        shop.passes("tests/unit/core/test_money.py::test_nothing")
