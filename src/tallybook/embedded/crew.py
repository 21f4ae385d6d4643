"""Keeps children running: one that dies unasked is reported and started again, later each time it dies soon."""

import signal
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import groupby

from tallybook.embedded.child import Child
from tallybook.embedded.failures import EmbeddedError

_DELAY_S_FIRST = 0.25
_DELAY_S_MAX = 10.0
_LIVED_LONG_S = 30.0
"""A child that ran this long before it died is started again as if it had never died."""


@dataclass(slots=True)
class Member:
    """One child to keep running. `start` waits until it is of use, and raises EmbeddedError when it can't be started."""

    name: str
    start: Callable[[], Child]
    child: Child | None = None
    started_s: float = 0.0
    deaths: int = 0
    """How often in a row it died soon."""
    retry_at_s: float = 0.0


@dataclass(slots=True)
class Crew:
    """Children in the order in which they are started; they are stopped the other way round."""

    report: Callable[[str], None]
    members: list[Member] = field(default_factory=list[Member])

    def add(self, name: str, start: Callable[[], Child]) -> None:
        """Start a child and keep it running. Raises EmbeddedError when it can't be started."""
        member = Member(name, start)
        self.members.append(member)
        _start(member)

    def adopt(self, name: str, child: Child, start: Callable[[], Child]) -> None:
        """Keep a child running that was started elsewhere."""
        self.members.append(Member(name, start, child, time.monotonic()))

    def tend(self) -> None:
        """Look after everyone once: report who died, start again who is due."""
        for member in self.members:
            if member.child is not None and member.child.exit_code is not None:
                self._note_death(member, f"ended unexpectedly ({_ending(member.child.exit_code)})")
            if member.child is None and time.monotonic() >= member.retry_at_s:
                self._restart(member)

    def deaths_most(self) -> int:
        """How often in a row the least lucky child died soon."""
        return max((member.deaths for member in self.members), default=0)

    def stop(self) -> None:
        """Stop everyone, the last added first; members of one kind (the same name up to a dash) together."""
        waiting = [member for member in reversed(self.members) if member.child is not None]
        for _kind, group in groupby(waiting, key=_kind_of):
            children = [member.child for member in group if member.child is not None]
            for child in children:
                child.request_stop()
            for child in children:
                child.stop()

    def hurry(self, kinds: Collection[str]) -> None:
        """Kill the members of these kinds: somebody does not want to wait for what they still do."""
        for member in self.members:
            if _kind_of(member) in kinds and member.child is not None:
                member.child.send(signal.SIGKILL)

    def _note_death(self, member: Member, what: str) -> None:
        lived_s = time.monotonic() - member.started_s
        member.child = None
        member.deaths = 1 if lived_s > _LIVED_LONG_S else member.deaths + 1
        delay_s = min(_DELAY_S_FIRST * 2 ** (member.deaths - 1), _DELAY_S_MAX)
        member.retry_at_s = time.monotonic() + delay_s
        self.report(f"{member.name} {what}; starting it again in {delay_s:g} s")

    def _restart(self, member: Member) -> None:
        try:
            _start(member)
        except EmbeddedError as error:
            self._note_death(member, f"could not be started ({error})")
        else:
            self.report(f"{member.name} was started again")


def _start(member: Member) -> None:
    member.started_s = time.monotonic()
    member.child = member.start()


def _kind_of(member: Member) -> str:
    return member.name.partition("-")[0]


def _ending(exit_code: int) -> str:
    return f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
