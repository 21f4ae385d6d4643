"""Events on disk, so that they survive the process: killed at any moment, nothing is lost, and nothing is counted twice.

Each process appends to a segment of its own, `….jsonl`, one event a line, and holds a lock on it. `….at` beside it says up to which
byte its events are settled. A segment whose lock nobody holds belonged to a process that is gone; whoever starts next sends the rest
of it. The last batch before a kill may be sent twice; its events have the same ids, and the service counts them once.

Written to the operating system before `put` returns; with `fsync` also to the disk, for what a power cut must not take.
"""

import contextlib
import fcntl
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tallybook.client.meter.store import BATCH_BYTES_MAX, BATCH_EVENTS_MAX, Batch, Full

SEGMENT_BYTES_MAX: Final = 8 * 1024 * 1024
REFUSED_BYTES_MAX: Final = 16 * 1024 * 1024
_MARK_DIGITS: Final = 20
_READ_BYTES: Final = BATCH_BYTES_MAX + 1


class Segment:
    """One file of events. `size` is where complete lines end, `settled` up to where they were sent, both in bytes."""

    def __init__(self, path: Path, file: int) -> None:
        """Takes over an open, locked file."""
        self.path = path
        self._file = file
        self._mark = os.open(path.with_suffix(".at"), os.O_RDWR | os.O_CREAT, 0o600)
        self.size = _end_of_lines(file)
        self.settled = min(int(os.pread(self._mark, _MARK_DIGITS, 0) or b"0"), self.size)
        # Later marks overwrite this one in place, which a full disk does not refuse.
        os.pwrite(self._mark, b"%0*d" % (_MARK_DIGITS, self.settled), 0)
        self.pending = _count_lines(file, self.settled, self.size)

    def append(self, payload: bytes, *, sync: bool) -> None:
        """Write one event behind the others. Raises OSError, and the file is as it was."""
        line = payload + b"\n"
        try:
            self._write(line)
            if sync:
                os.fsync(self._file)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self.size)
            raise
        self.size += len(line)
        self.pending += 1

    def _write(self, line: bytes) -> None:
        written = os.pwrite(self._file, line, self.size)
        if written != len(line):
            raise OSError(f"only {written} of {len(line)} bytes could be written to {self.path}")

    def read(self) -> Batch:
        """The events after the settled ones, up to what one request takes."""
        wanted = min(_READ_BYTES, self.size - self.settled)
        lines = os.pread(self._file, wanted, self.settled).split(b"\n")[:-1][:BATCH_EVENTS_MAX]
        return Batch(lines, self.settled + sum(len(line) + 1 for line in lines))

    def settle(self, end: int, count: int) -> None:
        """Remember that everything before `end` is settled."""
        os.pwrite(self._mark, b"%0*d" % (_MARK_DIGITS, end), 0)
        self.settled = end
        self.pending -= count

    def close(self) -> None:
        """Let go of the file, and so of its lock."""
        os.close(self._file)
        os.close(self._mark)

    def remove(self) -> None:
        """Delete the file with its mark."""
        self.path.unlink(missing_ok=True)
        self.path.with_suffix(".at").unlink(missing_ok=True)
        self.close()


class Spool:
    """Events on disk, in a folder that processes may share."""

    def __init__(self, folder: Path, *, bytes_max: int, fsync: bool) -> None:
        """Holds up to `bytes_max` bytes of events of this process. Raises OSError when the folder can't be used."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._bytes_max = bytes_max
        self._fsync = fsync
        self._lock = threading.Lock()
        self._segments: deque[Segment] = deque(adopt(folder))
        self._own = self._new_segment()

    @property
    def pending(self) -> int:
        """How many wait, those of dead processes that were adopted included."""
        return sum(segment.pending for segment in list(self._segments))

    def put(self, payload: bytes) -> None:
        """Write an event. Raises Full, and OSError when the disk refuses it."""
        with self._lock:
            if sum(segment.size - segment.settled for segment in self._segments) + len(payload) > self._bytes_max:
                raise Full
            if self._own.size >= SEGMENT_BYTES_MAX:
                self._own = self._new_segment()
            self._own.append(payload, sync=self._fsync)

    def drop_oldest(self) -> bytes | None:
        """Nothing is dropped from disk."""
        return None

    def batch(self) -> Batch:
        """The oldest events; segments that are done with are deleted on the way."""
        with self._lock:
            while self._segments[0].pending == 0 and self._segments[0] is not self._own:
                self._segments.popleft().remove()
            return self._segments[0].read()

    def settle(self, batch: Batch, again: Sequence[bytes]) -> None:
        """Mark a batch as settled; what is sent again is written behind the others first."""
        with self._lock:
            for payload in again:
                self._own.append(payload, sync=self._fsync)
            self._segments[0].settle(batch.end, len(batch.payloads))

    def keep_refused(self, lines: Sequence[bytes]) -> None:
        """Write what the service refused to `refused.jsonl`, as long as there is room for it."""
        with (self._folder / "refused.jsonl").open("ab") as file:
            if file.tell() < REFUSED_BYTES_MAX:
                file.write(b"".join(line + b"\n" for line in lines))

    def close(self) -> None:
        """Let go of all files; empty ones are deleted."""
        with self._lock:
            for segment in self._segments:
                segment.remove() if segment.pending == 0 else segment.close()
            self._segments.clear()

    def restart_after_fork(self) -> None:
        """Start a segment of the child's own; the parent keeps its files, and the lock on them."""
        for segment in self._segments:
            segment.close()
        self._lock = threading.Lock()
        self._segments = deque()
        self._own = self._new_segment()

    def _new_segment(self) -> Segment:
        path = self._folder / f"{time.time_ns():020d}-{os.getpid()}.jsonl"
        unseen = path.with_suffix(".new")
        file = os.open(unseen, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        # Locked before it gets the name that others look for, so that nobody takes it for a dead process' segment.
        fcntl.flock(file, fcntl.LOCK_EX)
        unseen.rename(path)
        segment = Segment(path, file)
        self._segments.append(segment)
        return segment


def adopt(folder: Path) -> list[Segment]:
    """The segments of processes that are gone, oldest first; empty ones are deleted."""
    found: list[Segment] = []
    for path in sorted(folder.glob("*.jsonl")):
        segment = None if path.name == "refused.jsonl" else _take_over(path)
        if segment is not None and segment.pending == 0:
            segment.remove()
        elif segment is not None:
            found.append(segment)
    return found


def _take_over(path: Path) -> Segment | None:
    """The segment if nobody holds it and it was not deleted while we looked."""
    try:
        file = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.stat().st_ino == os.fstat(file).st_ino:
            return Segment(path, file)
    except (BlockingIOError, FileNotFoundError):
        os.close(file)
        return None
    os.close(file)
    return None


def _end_of_lines(file: int) -> int:
    """Where the last complete line ends. A line without its end was never acknowledged to the caller."""
    size = os.fstat(file).st_size
    start = size
    while start > 0:
        start = max(0, start - _READ_BYTES)
        found = os.pread(file, _READ_BYTES, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
    return 0


def _count_lines(file: int, start: int, end: int) -> int:
    count = 0
    while start < end:
        part = os.pread(file, min(_READ_BYTES, end - start), start)
        if not part:
            break
        count += part.count(b"\n")
        start += len(part)
    return count
