"""The data folder: who uses it, and where its sockets are."""

import fcntl
import hashlib
import os
import shutil
import stat
from pathlib import Path

from tallybook.embedded.failures import EmbeddedError

SOCKET_PATH_BYTES_MAX = 103
"""The longest path of a socket: 107 bytes on Linux, 103 on macOS."""
_LONGEST_NAME = "postgres/.s.PGSQL.5432"


class Lock:
    """One user at a time of a data folder. Held until `release`, or until the process ends in whatever way."""

    def __init__(self, data: Path) -> None:
        self._file = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._file, 20).decode().strip()
            os.close(self._file)
            raise EmbeddedError(f"{data} is in use by process {holder}: stop that one, or use another folder") from None
        os.truncate(self._file, 0)
        os.write(self._file, str(os.getpid()).encode())

    def release(self) -> None:
        """Let others use the folder."""
        os.close(self._file)


def make(data: Path) -> Path:
    """Make a data folder, or use the one there. Returns its absolute path without symbolic links."""
    data.mkdir(mode=0o711, parents=True, exist_ok=True)
    place = data.resolve()
    for name in ("redis", "logs", "pids"):
        (place / name).mkdir(mode=0o700, exist_ok=True)
    return place


def sockets(data: Path) -> Path:
    """The folder for a data folder's sockets: inside it, or in the system's short-lived folder when that path is too long.

    Raises EmbeddedError when somebody else has put something in that place.
    """
    inside = data / "sockets"
    place = inside if _fits(inside) else _outside(data)
    place.mkdir(mode=0o711, exist_ok=True)
    found = place.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise EmbeddedError(f"{place} is not a folder that only this user can write to; remove it")
    return place


def discard_sockets(place: Path) -> None:
    """Remove the folder for sockets, once no server listens there."""
    shutil.rmtree(place, ignore_errors=True)


def _outside(data: Path) -> Path:
    name = f"tallybook-{os.geteuid()}-{hashlib.sha256(os.fsencode(data)).hexdigest()[:12]}"
    places = [Path(parent) / name for parent in (os.environ.get("XDG_RUNTIME_DIR"), "/tmp") if parent]  # noqa: S108 - checked by sockets()
    return next((place for place in places if place.parent.is_dir() and _fits(place)), places[-1])


def _fits(folder: Path) -> bool:
    return len(os.fsencode(folder / _LONGEST_NAME)) <= SOCKET_PATH_BYTES_MAX
