"""The till against its model, in short; `python -m tests.properties` does the same for as long as you like."""

from collections.abc import Generator

import pytest

from tests.properties import campaign, mutants, till_world
from tests.properties.mutants import Mutant
from tests.properties.till_world import World

STEPS = 1_000


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Generator[World]:
    """A till with a Redis of its own."""
    with till_world.opened(tmp_path_factory.mktemp("till"), postgres_url) as world:
        yield world


def test_whatever_happens_the_till_and_its_book_are_as_the_model_has_them(world: World) -> None:
    assert campaign.run(world, steps=STEPS, seed_="1") >= STEPS
    assert world.kills > 0


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda mutant: mutant.name)
def test_a_fault_in_the_script_is_found(world: World, mutant: Mutant) -> None:
    with mutants.applied(mutant), pytest.raises(Exception):  # noqa: B017, PT011 - anything but going well
        campaign.run(world, steps=STEPS, seed_="1", shrink=False)
