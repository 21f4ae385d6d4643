"""What processes cost: CPU seconds and memory, read from /proc."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_PROC = Path("/proc")
_PARENT, _OWN_USER, _CHILDREN_SYSTEM = 1, 11, 14
"""Places in /proc/<pid>/stat behind the name: the parent's id; and the four times from own user to reaped children's system."""
_IDLE, _IOWAIT = 3, 4


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds by role, and of the whole machine (everybody's)."""

    by_role: Mapping[str, float]
    machine: float

    def since(self, before: "Usage") -> "Usage":
        """What was used between two readings."""
        spent = {role: seconds - before.by_role.get(role, 0.0) for role, seconds in self.by_role.items()}
        return Usage(spent, self.machine - before.machine)

    @property
    def ours(self) -> float:
        """CPU seconds of all roles."""
        return sum(self.by_role.values())


def read(roles: Mapping[str, Iterable[int]]) -> Usage:
    """CPU seconds so far of the processes of each role and of all their descendants, dead ones included once they are reaped."""
    children = _children()
    return Usage({role: sum(_family_s(pid, children) for pid in pids) for role, pids in roles.items()}, _machine_s())


def cpu_s(pid: int) -> float:
    """CPU seconds so far of one process and its descendants."""
    return _family_s(pid, _children())


def rss_mb(pid: int) -> float:
    """Resident memory of one process, in 2^20 bytes."""
    return int((_PROC / str(pid) / "statm").read_text().split()[1]) * _PAGE_BYTES / 2**20


def _family_s(pid: int, children: Mapping[int, list[int]]) -> float:
    """Backends of Postgres come and go: those gone are in their parent's account, those there have their own."""
    fields = _stat(pid)
    if fields is None:
        return 0.0
    own = sum(int(ticks) for ticks in fields[_OWN_USER : _CHILDREN_SYSTEM + 1]) / _TICKS
    return own + sum(_family_s(child, children) for child in children.get(pid, ()))


def _children() -> Mapping[int, list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for entry in _PROC.iterdir():
        fields = _stat(int(entry.name)) if entry.name.isdigit() else None
        if fields is not None:
            found[int(fields[_PARENT])].append(int(entry.name))
    return found


def _stat(pid: int) -> list[str] | None:
    """The fields behind the name, which may hold spaces; None for a process that is gone."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _machine_s() -> float:
    ticks = [int(word) for word in (_PROC / "stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(ticks) - ticks[_IDLE] - ticks[_IOWAIT]) / _TICKS
