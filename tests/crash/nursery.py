"""Processes of Tallybook that start in a fraction of a second: one process imports the code and forks for each of them.

Most of the time that `tallybook serve` needs to start goes into importing. A campaign of a thousand kills would spend its
time on that and not on what it is there to show. From the fork on, a process runs the same command with the same settings as always.

Run as a program it is the process that forks. It takes one JSON line a request on its standard input and answers each with
one: `{"words": …, "environment": …, "log": …}` with a process id, `{"ended": id}` with null or how that process ended.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from tallybook import settings as settings_module
from tallybook.settings import Settings

_PRELOADED = ("tallybook.app", "tallybook.cli", "tallybook.cli.serve", "tallybook.cli.work")
_PR_SET_PDEATHSIG = 1
_POLL_S = 0.01
_STOP_S_MAX = 30.0


class Nursery:
    """Starts commands of Tallybook. Close it to end whatever it started. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.nursery"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )

    def start(self, words: Sequence[str], given: Settings, log: Path | None = None) -> "Nursling":
        """Start `tallybook <words>` with these settings, logging to `log`, else to this process's stderr."""
        environment = {**os.environ, **settings_module.to_environment(given)}
        request = {"words": list(words), "environment": environment, "log": None if log is None else str(log)}
        return Nursling(self, cast("int", self.ask(request)))

    def ask(self, request: Mapping[str, object]) -> object:
        """Send one request and return its answer."""
        with self._lock:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End the process that forks; those it started are told to stop."""
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()


@dataclass(slots=True)
class Nursling:
    """One process that was started."""

    nursery: Nursery
    pid: int
    _ended: int | None = field(default=None)

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for the signal that ended it."""
        if self._ended is None:
            self._ended = cast("int | None", self.nursery.ask({"ended": self.pid}))
        return self._ended

    def wait(self, seconds: float) -> bool:
        """Wait for its end. Returns whether it came."""
        deadline = time.monotonic() + seconds
        while self.exit_code is None and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        return self.exit_code is not None

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self.exit_code is None:
            os.kill(self.pid, number)

    def stop(self) -> int:
        """Ask it to finish, and kill it if it does not. Returns its exit code."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            self.send(number)
            if self.wait(_STOP_S_MAX):
                break
        return self.exit_code or 0


def _serve_requests() -> None:
    """Answer until standard input ends."""
    for name in _PRELOADED:
        importlib.import_module(name)
    gc.freeze()
    for line in sys.stdin.buffer:
        request: dict[str, Any] = json.loads(line)
        answer = _look_after(request["ended"]) if "ended" in request else _fork(request)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _look_after(pid: int) -> int | None:
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def _fork(request: Mapping[str, Any]) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        _become_its_own(parent, request["log"])
        os.environ.clear()
        os.environ.update(request["environment"])
        code = importlib.import_module("tallybook.cli").main(request["words"])
    except BaseException:  # noqa: BLE001 - whatever it was, this process must not go on in the loop of the one that forked it
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _become_its_own(parent: int, log: str | None) -> None:
    """A session of its own, none of the pipes to who asked for it, and a signal when the process that forked it ends."""
    os.setsid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if log is not None:
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
    os.dup2(2, 1)


if __name__ == "__main__":
    _serve_requests()
