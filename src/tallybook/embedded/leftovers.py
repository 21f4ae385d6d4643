"""Children whose parent was killed: on record while they run, found and stopped by the next start on the same folder."""

import os
import signal
import subprocess
import time
from pathlib import Path

_WAIT_S = 60.0
_POLL_S = 0.05


def record(pids: Path, name: str, pid: int) -> None:
    """Remember a child by process id and start time, so that a number used again is never mistaken for it.

    The record is put in place whole: whoever reads it meanwhile finds the earlier one, never half of this.
    """
    pids.mkdir(mode=0o700, exist_ok=True)
    written = pids.with_name(f"{name}.pid")
    written.write_text(f"{pid} {_started(pid) or 'unknown'}\n")
    written.replace(pids / name)


def forget(pids: Path, name: str) -> None:
    """The child has ended."""
    (pids / name).unlink(missing_ok=True)


def stop(pids: Path, name: str, number: signal.Signals) -> bool:
    """End a child that an earlier parent left behind. Returns whether there was one."""
    try:
        pid_text, started = (pids / name).read_text().strip().split(" ", 1)
    except (FileNotFoundError, ValueError):
        return False
    found = is_same(int(pid_text), started)
    if found:
        _end(int(pid_text), started, number)
    forget(pids, name)
    return found


def names(pids: Path) -> list[str]:
    """Which children are on record."""
    return sorted(entry.name for entry in pids.iterdir()) if pids.is_dir() else []


def is_same(pid: int, started: str) -> bool:
    """Whether the process that began at `started` is still there."""
    return _started(pid) == started


def _end(pid: int, started: str, number: signal.Signals) -> None:
    os.kill(pid, number)
    deadline = time.monotonic() + _WAIT_S
    while is_same(pid, started) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    if is_same(pid, started):
        os.kill(pid, signal.SIGKILL)


def _started(pid: int) -> str | None:
    """When a process began, in whatever form the system tells it; None when it is gone or only waits to be reaped."""
    if not Path("/proc/self/stat").exists():
        told = subprocess.run(["/bin/ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)  # noqa: S603
        return told.stdout.strip() or None
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if after_name[0] == "Z" else after_name[19]
