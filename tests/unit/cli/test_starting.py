"""A process that starts while its stores are coming up, going down, or not its own."""

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Generator, Sequence
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


async def forever() -> Services:
    await asyncio.Event().wait()
    raise AssertionError


async def test_who_is_told_to_stop_gives_up_an_attempt_that_hangs() -> None:
    """Mutant: the attempt is waited for."""
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(0.01, stop.set)
    with pytest.raises(app.Stopped):
        await app.when_stores_are_up(forever, stop)


async def test_who_is_told_to_stop_makes_no_further_attempt() -> None:
    """Mutant: the pause between attempts is slept through, and the next attempt made."""
    stop = asyncio.Event()
    building = Building([OSError("away"), errors.Unavailable("another", "not reached")])
    asyncio.get_running_loop().call_later(0.01, stop.set)
    with pytest.raises(app.Stopped):
        await app.when_stores_are_up(building, stop)
    assert len(building.failures) == 1


async def test_what_is_waited_for_is_said_when_it_changes_and_not_each_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(app, "_AGAIN_S", 0.0)
    with caplog.at_level(logging.WARNING):
        await app.when_stores_are_up(Building([*[OSError("no Postgres")] * 20, *[OSError("no Redis")] * 20]))
    assert [record.getMessage() for record in caplog.records] == [
        "waiting for the stores: no Postgres",
        "waiting for the stores: no Redis",
    ]


@pytest.fixture(params=["refuses", "says nothing"])
def away(request: pytest.FixtureRequest) -> Generator[int]:
    """A port where connections are refused, or taken without an answer."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if request.param == "says nothing":
            listener.listen()
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    ("command", "number", "code"),
    [("serve", signal.SIGTERM, 0), ("work", signal.SIGTERM, 0), ("reconcile", signal.SIGINT, 130)],
    ids=["serve", "work", "reconcile"],
)
def test_a_command_says_that_it_waits_for_its_stores_and_ends_when_told(
    away: int, command: str, number: signal.Signals, code: int
) -> None:
    """Mutant: SIGTERM only counts once the stores are up, or after a minute."""
    environment = {
        **os.environ,
        "TALLYBOOK_POSTGRES_URL": f"postgresql://127.0.0.1:{away}/tallybook",
        "TALLYBOOK_REDIS_URL": f"redis://127.0.0.1:{away}",
        "TALLYBOOK_PORT": "0",
    }
    words = [sys.executable, "-P", "-m", "tallybook.cli", command]
    with subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True) as running:  # noqa: S603 - our own command
        assert running.stderr is not None
        line = running.stderr.readline()
        running.send_signal(number)
        assert running.wait() == code, line
    assert "waiting for the stores" in line
