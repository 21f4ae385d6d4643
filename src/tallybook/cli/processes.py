"""API and worker processes as children of this one: `tallybook serve` and `work` again, settings in their environment."""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from tallybook import settings
from tallybook.embedded.child import Child, Program
from tallybook.settings import Settings

_STOP_EXTRA_S = 10.0


def starter(name: str, words: Sequence[str], given: Settings, pids: Path) -> Callable[[], Child]:
    """Starts `tallybook <words>` with these settings, logging to this process's stderr."""
    program = Program(
        name=name,
        command=[sys.executable, "-P", "-m", "tallybook.cli", *words],
        pids=pids,
        environment={**os.environ, **settings.to_environment(given)},
        stop_wait_s=given.drain_s + _STOP_EXTRA_S,
    )
    return lambda: Child(program)


class StopSignals:
    """Notes SIGTERM and SIGINT instead of dying of them; from the second one on, somebody is in a hurry."""

    def __init__(self, in_a_hurry: Callable[[], None]) -> None:
        self.asked = False
        self._in_a_hurry = in_a_hurry
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        if self.asked:
            self._in_a_hurry()
        self.asked = True
