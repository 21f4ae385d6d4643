"""A server or worker as a child process that is stopped by its process id and never outlives its parent for long."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tallybook.embedded import identity, leftovers
from tallybook.embedded.failures import EmbeddedError
from tallybook.embedded.identity import Identity

_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Program:
    """What to run. Without a log it writes to the parent's stderr; its pid is on record in `pids` while it runs."""

    name: str
    command: Sequence[str | Path]
    pids: Path
    log: Path | None = None
    environment: Mapping[str, str] | None = None
    identity: Identity | None = None
    stop_signals: Sequence[signal.Signals] = (signal.SIGTERM,)
    stop_wait_s: float = 60.0
    folder: Path | None = None


class Child:
    """One run of a program. On Linux it is asked to stop when the thread that started it ends, and so when the parent is killed."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self._process = _spawn(program)
        self._asked_to_stop = False
        leftovers.record(program.pids, program.name, self._process.pid)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for the signal that ended it."""
        return self._process.poll()

    def request_stop(self) -> None:
        """Ask it to finish, once, without waiting: to many programs a second signal means to drop everything."""
        if not self._asked_to_stop:
            self._asked_to_stop = True
            self.send(self.program.stop_signals[0])

    def stop(self) -> int:
        """Ask it to finish, ever more firmly, and wait until it has. Returns its exit code."""
        self.request_stop()
        for firmer in (*self.program.stop_signals[1:], signal.SIGKILL):
            if self.wait(self.program.stop_wait_s):
                break
            self.send(firmer)
        leftovers.forget(self.program.pids, self.program.name)
        return self._process.wait()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.send(signal.SIGKILL)
        self._process.wait()

    def wait(self, seconds: float) -> bool:
        """Wait for its end. Returns whether it came."""
        deadline = time.monotonic() + seconds
        while self.exit_code is None and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        return self.exit_code is not None

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs."""
        if self.exit_code is None:
            self._process.send_signal(number)


def run(command: Sequence[str | Path], who: Identity | None, standard_input: str = "") -> None:
    """Run a short command to its end as `who`. Raises EmbeddedError with its output when it fails."""
    done = subprocess.run(  # noqa: S603 - the command is ours, without a shell
        [str(word) for word in command],
        input=standard_input,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        cwd="/",
        preexec_fn=identity.before_exec(who, signal.SIGKILL),
    )
    if done.returncode != 0:
        raise EmbeddedError(f"{Path(command[0]).name} ended with {done.returncode}:\n{done.stdout}")


def _spawn(program: Program) -> subprocess.Popen[bytes]:
    output = os.open(program.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600) if program.log else os.dup(2)
    try:
        return subprocess.Popen(  # noqa: S603 - the command is ours, without a shell
            [str(word) for word in program.command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=program.environment,
            cwd=program.folder,
            start_new_session=True,
            preexec_fn=identity.before_exec(program.identity, program.stop_signals[0]),  # noqa: PLW1509 - makes system calls and takes no lock
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise EmbeddedError(_refused(program, error)) from error
    finally:
        os.close(output)


def _refused(program: Program, error: Exception) -> str:
    if program.identity is None:
        return f"{program.name} can't be started: {error}"
    return (
        f"{program.name} can't be started as user {program.identity.user_id} ({error}). This process is root without the right "
        "to become another user, or to let it pass closed folders. Run as a normal user, or keep the data and the virtual "
        "environment in folders that others can pass (chmod o+x)."
    )
