"""Whatever is spoiled in book, till, log or invoices: reconciliation finds it and says where, and finds nothing else."""

from collections.abc import AsyncGenerator

import pytest

from tallybook.cli import reconcile as command
from tallybook.storage import postgres
from tallybook.storage.redis import Redis
from tests.corruptions import installation, kinds, runs
from tests.corruptions.installation import Installation


@pytest.fixture(scope="module")
async def made(database: postgres.Pool, redis_client: Redis) -> AsyncGenerator[Installation]:
    async with installation.made(database, redis_client) as one:
        yield one


async def test_an_installation_in_order_is_found_in_order_by_both_forms(made: Installation) -> None:
    assert (await made.look()).is_clean
    outcome = await made.go_round()
    assert (outcome.finished, outcome.problems) == (True, 0)


@pytest.mark.parametrize("corruption", kinds.KINDS, ids=lambda one: one.name)
async def test_a_corruption_is_found_and_named(made: Installation, corruption: kinds.Corruption) -> None:
    found = await runs.run(made, corruption, f"1 {corruption.name}")
    assert list(found.problems()) == []


async def test_nothing_is_left_of_the_corruptions(made: Installation) -> None:
    assert len(kinds.KINDS) >= 100
    assert [line for line in command.lines(await made.look()) if not line.endswith("  ok")] == ["reconciled: yes"]
    outcome = await made.go_round()
    assert (outcome.finished, outcome.problems) == (True, 0)
