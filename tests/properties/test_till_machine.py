"""The till against its model, in short; `python -m tests.properties` does the same for as long as you like."""

from collections.abc import Generator

import pytest

from tallybook.core.usage_log import Kind
from tests.properties import campaign, mutants, till_charges, till_machine, till_world
from tests.properties.mutants import Mutant
from tests.properties.till_charges import Terms
from tests.properties.till_model import Partition, TillModel
from tests.properties.till_world import HOT_WINDOW_S, PARTITIONS, START_MS, World

STEPS = 1_000


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Generator[World]:
    """A till with a Redis of its own."""
    with till_world.opened(tmp_path_factory.mktemp("till"), postgres_url) as world:
        yield world


def test_whatever_happens_the_till_and_its_book_are_as_the_model_has_them(world: World) -> None:
    assert campaign.run(world, steps=STEPS, seed_="1") >= STEPS
    assert world.kills > 0


def test_an_opening_that_changes_at_the_edge_does_not_break_a_call_in_two(world: World) -> None:
    """Mutant: the new opening is added before the old one is taken off, which leaves the range of integers in the middle of a call."""
    most = 4 * 10**18
    model = TillModel([Partition(START_MS) for _ in range(PARTITIONS)], HOT_WINDOW_S)
    world.begin()
    none, all_of_it, nearly = (Terms(opening=opening) for opening in (0, most, most - 1))
    top_ups = [[till_charges.change(Kind.ADJUSTMENT, 1, f"top-up {number}", most // 4, none)] for number in range(4)]
    opened = till_charges.change(Kind.ADJUSTMENT, 1, "opened", 0, all_of_it)
    reopened = till_charges.change(Kind.ADJUSTMENT, 1, "reopened", 0, nearly)
    for charges in [*top_ups, [opened], [till_charges.purchase(1, "before it in the call", 5, none), reopened]]:
        assert world.charge(0, charges) == model.charge(charges)
        assert world.look().of_something() == till_machine.expected(model)


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda mutant: mutant.name)
def test_a_fault_in_the_script_is_found(world: World, mutant: Mutant) -> None:
    with mutants.applied(mutant), pytest.raises(Exception):  # noqa: B017, PT011 - anything but going well
        campaign.run(world, steps=STEPS, seed_="1", shrink=False)
