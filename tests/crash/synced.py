"""A Redis whose power can be cut: what it had not synced is gone, as if the machine had lost it.

A preloaded library (`sync_record.c`) writes down each sync together with the file's size before it began. What lies behind that size
when the server is killed may or may not be on a real disk, so any part of it is kept, by dice, and most often none.
Directories are taken to be as journaling file systems keep them: a rename is not lost once something later was synced.
"""

import os
import random
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tallybook.embedded import folders
from tallybook.embedded.child import Program
from tallybook.embedded.redis_server import RedisServer

_SOURCE = Path(__file__).with_name("sync_record.c")
_KILLED_S_MAX = 60.0
_NOTHING_KEPT = 0.5
"""How often nothing beyond the last sync is kept; else any number of bytes is."""

Inode = tuple[int, int]


def missing_compiler() -> str | None:
    """Why power cuts can't be acted out here, or None."""
    if shutil.which("cc") is None:
        return "no C compiler (cc) is here to build the library that records what Redis has synced"
    return None


def build(folder: Path) -> Path:
    """Compile the library into a folder. Raises CalledProcessError with the compiler's words on stderr."""
    library = folder / "sync_record.so"
    command = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(library), str(_SOURCE), "-ldl"]
    subprocess.run(command, check=True)  # noqa: S603 - the command is ours, without a shell
    return library


@dataclass(frozen=True, slots=True)
class Cut:
    """What one power cut took: bytes that were written and not synced, and how many of those were kept by chance."""

    unsynced: int
    kept: int


class WatchedRedis(RedisServer):
    """The embedded Redis, or another one, with the library preloaded."""

    def __init__(
        self,
        data: Path,
        library: Path,
        *,
        settings: Mapping[str, str] | None = None,
        program: Sequence[str] = (),
        hides_settings: bool = False,
    ) -> None:
        """`program` replaces the embedded server's executable; with `hides_settings` it forbids CONFIG, as hosted ones do."""
        super().__init__(data, folders.sockets(data), settings=settings)
        self._files = data / "redis"
        self._record = data / "synced"
        self._library = library
        self._executable = program
        self._extra = ["--rename-command", "CONFIG", ""] if hides_settings else []
        self.kill_after_rename_to = ""
        """Set before a start: the server dies right after renaming something to a path that ends so."""

    def cut_power(self, dice: random.Random) -> Cut:
        """SIGKILL, and take from every file what was not synced. `start` it again afterwards."""
        os.kill(self.child.pid, signal.SIGKILL)
        return self.lose_unsynced(dice)

    def lose_unsynced(self, dice: random.Random) -> Cut:
        """Wait until the server is gone, and take from every file what was not synced."""
        assert self.child.wait(_KILLED_S_MAX)
        synced = _synced_bytes(self._record)
        unsynced = kept = 0
        for path in sorted(self._files.rglob("*")):
            if path.is_file():
                status = path.stat()
                on_disk = min(status.st_size, synced.get((status.st_dev, status.st_ino), 0))
                beyond = status.st_size - on_disk
                chance = 0 if dice.random() < _NOTHING_KEPT else dice.randint(0, beyond)
                os.truncate(path, on_disk + chance)
                unsynced, kept = unsynced + beyond, kept + chance
        self._record.write_text(_as_record(self._files))
        return Cut(unsynced, kept)

    def _program(self) -> Program:
        program = super()._program()
        environment = {**os.environ, "LD_PRELOAD": str(self._library), "SYNC_RECORD": str(self._record)}
        if self.kill_after_rename_to:
            environment["SYNC_RECORD_KILL_AFTER_RENAME_TO"] = self.kill_after_rename_to
        command = [*(self._executable or program.command[:1]), *program.command[1:], *self._extra]
        return replace(program, environment=environment, command=command)


def _synced_bytes(record: Path) -> dict[Inode, int]:
    """How much of each file is on disk: up to its last sync, and not beyond a truncation after it."""
    found: dict[Inode, int] = {}
    for line in record.read_text().splitlines():
        what, device, inode, size = line.split()
        key = int(device), int(inode)
        found[key] = int(size) if what == "s" else min(found.get(key, 0), int(size))
    return found


def _as_record(folder: Path) -> str:
    """All files as they are: what is left after a power cut is on disk."""
    stats = [path.stat() for path in sorted(folder.rglob("*")) if path.is_file()]
    return "".join(f"s {status.st_dev} {status.st_ino} {status.st_size}\n" for status in stats)
