"""Children that are kept running: who dies is named and comes back, later each time; the stop goes the other way round."""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tallybook.embedded import child, leftovers
from tallybook.embedded.child import Child, Program
from tallybook.embedded.crew import Crew
from tallybook.embedded.failures import EmbeddedError

POLITE = """
import signal, sys, time
def stop(*_):
    with open(sys.argv[1], "a") as out:
        print(sys.argv[2], file=out)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
print("up", flush=True)
time.sleep(600)
"""
DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(600)
"""


def program(folder: Path, name: str, source: str, *, wait_s: float = 30.0) -> Program:
    command = [sys.executable, "-c", source, folder / "ends", name]
    return Program(name, command, pids=folder / "pids", log=folder / f"{name}.log", stop_wait_s=wait_s)


def starter(given: Program) -> Callable[[], Child]:
    def start() -> Child:
        made = Child(given)
        assert given.log is not None
        until(lambda: "up" in given.log.read_text() if given.log else False)
        return made

    return start


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def test_the_last_added_is_stopped_first_and_one_kind_together(tmp_path: Path) -> None:
    crew = Crew(print)
    for name in ("store", "worker", "api-1", "api-2"):
        crew.add(name, starter(program(tmp_path, name, POLITE)))
    crew.stop()
    ends = (tmp_path / "ends").read_text().split()
    assert (set(ends[:2]), ends[2:]) == ({"api-1", "api-2"}, ["worker", "store"])
    assert leftovers.names(tmp_path / "pids") == []


def test_a_member_that_dies_is_reported_and_started_again(tmp_path: Path) -> None:
    said: list[str] = []
    crew = Crew(said.append)
    crew.add("worker", starter(program(tmp_path, "worker", POLITE)))
    first = crew.members[0].child
    assert first is not None
    first.kill()
    until(lambda: (crew.tend(), crew.members[0].child not in (None, first))[1])
    crew.stop()
    assert said == ["worker ended unexpectedly (signal 9); starting it again in 0.25 s", "worker was started again"]


def test_a_member_that_keeps_dying_is_started_ever_later(tmp_path: Path) -> None:
    said: list[str] = []
    crew = Crew(said.append)
    crew.add("worker", lambda: Child(program(tmp_path, "worker", "import sys; sys.exit(3)")))
    until(lambda: (crew.tend(), crew.deaths_most() == 3)[1])
    crew.stop()
    assert [line for line in said if "unexpectedly" in line] == [
        f"worker ended unexpectedly (exit code 3); starting it again in {delay_s} s" for delay_s in ("0.25", "0.5", "1")
    ]


def test_a_member_that_can_not_be_started_again_is_reported_and_tried_later(tmp_path: Path) -> None:
    said: list[str] = []
    crew = Crew(said.append)
    first = starter(program(tmp_path, "worker", POLITE))()

    def refuse() -> Child:
        raise EmbeddedError("no room")

    crew.adopt("worker", first, refuse)
    first.kill()
    until(lambda: (crew.tend(), crew.deaths_most() == 2)[1])
    crew.stop()
    assert said[1] == "worker could not be started (no room); starting it again in 0.5 s"


def test_hurry_kills_only_the_kinds_named(tmp_path: Path) -> None:
    crew = Crew(print)
    crew.add("store", starter(program(tmp_path, "store", POLITE)))
    crew.add("api-1", starter(program(tmp_path, "api-1", DEAF)))
    crew.hurry(["api"])
    store, api = (member.child for member in crew.members)
    assert store is not None
    assert api is not None
    crew.stop()
    assert (store.exit_code, api.exit_code) == (0, -signal.SIGKILL)


def test_a_child_that_does_not_listen_is_killed_after_its_time(tmp_path: Path) -> None:
    deaf = starter(program(tmp_path, "deaf", DEAF, wait_s=0.2))()
    assert deaf.stop() == -signal.SIGKILL


def test_a_program_that_does_not_exist_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedError, match=r"ghost can't be started: .*No such file"):
        Child(Program("ghost", [tmp_path / "ghost"], pids=tmp_path / "pids", log=tmp_path / "log"))


def test_a_short_command_that_fails_shows_its_output() -> None:
    with pytest.raises(EmbeddedError, match="ended with 7:\nbecause"):
        child.run([sys.executable, "-c", "import sys; print('because'); sys.exit(7)"], None)


def test_a_record_is_never_seen_half_written(tmp_path: Path) -> None:
    leftovers.record(tmp_path / "pids", "worker", os.getpid())
    opened = (tmp_path / "pids" / "worker").open()
    leftovers.record(tmp_path / "pids", "worker", os.getpid())
    assert opened.read() == (tmp_path / "pids" / "worker").read_text(), "the earlier record is replaced, not emptied"
    assert not os.path.samestat(os.fstat(opened.fileno()), (tmp_path / "pids" / "worker").stat())
    opened.close()
    assert leftovers.names(tmp_path / "pids") == ["worker"]
