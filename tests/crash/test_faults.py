"""Short forms of the faults that are not kills at random, one after the other on the same servers; `python -m tests.crash` has the long."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tallybook.core import failpoints
from tests.crash import failpoint_runs, faults, outage, same_ids
from tests.crash import ground as grounds
from tests.crash.ground import Ground

IDS = 1000
OUTAGE_S = 4.0
CLEAN = "lost=0 double=0 drift=0 unknown=0"


@pytest.fixture(scope="module")
async def ground(folder: Path) -> AsyncGenerator[Ground]:
    async with grounds.prepared(folder, seed=20_261_120, customers_each=2) as made:
        yield made


async def test_the_same_id_sent_at_once_through_three_processes_is_taken_once(ground: Ground) -> None:
    result = await same_ids.on(ground, ids=IDS, progress=print)
    assert result.problems == []
    assert f"accepted={IDS} conflicts={IDS * 3} " in result.line
    assert CLEAN in result.line


async def test_usage_goes_on_while_postgres_is_down_and_nothing_of_it_is_lost(ground: Ground) -> None:
    result = await outage.on(ground, outage_s=OUTAGE_S, rate=1000, progress=print)
    assert result.problems == []
    assert CLEAN in result.line


async def test_a_process_that_dies_at_any_named_place_loses_and_doubles_nothing(ground: Ground, folder: Path) -> None:
    result = await failpoint_runs.on(ground, folder, rounds=1, progress=print)
    assert result.problems == []
    assert f"deaths={len(failpoints.NAMES)} " in result.line
    assert CLEAN in result.line


async def test_standing_still_lost_responses_and_lost_tills_lose_and_double_nothing(ground: Ground) -> None:
    result = await faults.on(ground, rounds=1, progress=print)
    assert result.problems == []
    assert CLEAN in result.line
