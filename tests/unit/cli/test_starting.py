"""A process that starts while its stores are coming up, going down, or not its own."""

from collections.abc import Sequence
from typing import cast

import pytest

from tallybook import app
from tallybook.core import errors
from tallybook.flows.services import Services
from tallybook.storage import redis


class Building:
    """Fails with each of these in turn, and then does not."""

    def __init__(self, failures: Sequence[Exception]) -> None:
        self.failures = list(failures)

    async def __call__(self) -> Services:
        if self.failures:
            raise self.failures.pop(0)
        return cast("Services", self)


async def test_stores_that_answer_at_first_and_then_do_not_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "_AGAIN_S", 0.0)
    away = [errors.Unavailable(code, "away") for code in ("till_unavailable", "database_unavailable")]
    building = Building([*away, OSError("away"), redis.ConnectionLostError("away")])
    assert await app.when_stores_are_up(building) is cast("Services", building)


@pytest.mark.parametrize("code", ["till_unknown", "schema_outdated"])
async def test_stores_that_are_not_its_own_are_told_at_once(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "_AGAIN_S", 0.0)
    building = Building([errors.Unavailable(code, "not ours"), errors.Unavailable("another", "not reached")])
    with pytest.raises(errors.Unavailable, match="not ours"):
        await app.when_stores_are_up(building)
    assert len(building.failures) == 1
