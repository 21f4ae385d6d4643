"""As whom a server runs. Postgres refuses to run as root, so root hands it to a user without rights; nobody else needs that.

A folder that user can't pass (a home with mode 700, say) is not opened up for everyone: the server keeps the one capability
that lets it pass, and nothing else of root.
"""

import ctypes
import os
import pwd
import signal
import stat
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tallybook.embedded.failures import EmbeddedError

_CANDIDATES = ("tallybook", "postgres", "nobody")
_PR_SET_PDEATHSIG = 1
_PR_SET_SECUREBITS = 28
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_SECBIT_NO_SETUID_FIXUP = 4
"""Capabilities stay when the user changes, and count in access(), by which initdb checks that it may run postgres."""
_CAP_DAC_OVERRIDE = 1
_CAPABILITY_VERSION_3 = 0x20080522
_LINUX = sys.platform == "linux"
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Identity:
    """The user and group that a server runs as, and whether it may pass folders that are closed to them."""

    user_id: int
    group_id: int
    passes_closed_folders: bool


def for_postgres(data: Path, files: Iterable[Path], user: str | None) -> Identity | None:
    """As whom Postgres runs on the folder `data`: None is the current user, which it is unless that is root.

    A folder made earlier keeps its owner; else `user`, or the first of tallybook, postgres, nobody that exists. Raises
    EmbeddedError when the folder belongs to somebody else.
    """
    owner = data.stat().st_uid if data.exists() else None
    if os.geteuid() != 0:
        if owner not in (None, os.geteuid()):
            raise EmbeddedError(f"{data} belongs to user {owner}, and this is user {os.geteuid()}: run as that user, or as root")
        return None
    account = pwd.getpwuid(owner) if owner else _account(user)
    closed = closed_to(account.pw_uid, account.pw_gid, [data, *files])
    return Identity(account.pw_uid, account.pw_gid, passes_closed_folders=closed is not None)


def closed_to(user_id: int, group_id: int, paths: Iterable[Path]) -> Path | None:
    """The first file that a user can't read or folder on the way that it can't pass; paths that do not exist yet are skipped."""
    for path in paths:
        for place in (path, *path.absolute().parents):
            if place.exists() and not _allows(place, user_id, group_id):
                return place
    return None


def own(path: Path, identity: Identity | None) -> None:
    """Give a file or folder to the server's user."""
    if identity is not None:
        os.chown(path, identity.user_id, identity.group_id)


def before_exec(identity: Identity | None, death_signal: signal.Signals) -> Callable[[], None]:
    """What a child does between fork and exec: become the server's user, and ask for a signal when its parent dies (Linux)."""
    parent = os.getpid()

    def prepare() -> None:
        if identity is not None:
            _become(identity)
        if _LINUX:
            _checked(_LIBC.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0))
            if os.getppid() != parent:
                os._exit(1)

    return prepare


def _allows(place: Path, user_id: int, group_id: int) -> bool:
    found = place.stat()
    needed = stat.S_IXOTH if place.is_dir() else stat.S_IROTH
    if found.st_uid == user_id:
        return bool(found.st_mode & (needed << 6))
    if found.st_gid == group_id:
        return bool(found.st_mode & (needed << 3))
    return bool(found.st_mode & needed)


def _account(user: str | None) -> pwd.struct_passwd:
    for name in (user,) if user else _CANDIDATES:
        try:
            account = pwd.getpwnam(name)
        except KeyError:
            continue
        if account.pw_uid != 0:
            return account
    wanted = user or ", ".join(_CANDIDATES)
    message = f"Postgres does not run as root, and no user without rights was found ({wanted}); name one with --postgres-user"
    raise EmbeddedError(message)


def _become(identity: Identity) -> None:
    if identity.passes_closed_folders and _LINUX:
        _checked(_LIBC.prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP, 0, 0, 0))
    os.setgroups([])
    os.setresgid(identity.group_id, identity.group_id, identity.group_id)
    os.setresuid(identity.user_id, identity.user_id, identity.user_id)
    os.umask(0o077)
    if identity.passes_closed_folders and _LINUX:
        _keep(_CAP_DAC_OVERRIDE)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("process", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def _keep(capability: int) -> None:
    """Drop every capability but one, and carry that one over exec."""
    bit = 1 << capability
    header = _Header(_CAPABILITY_VERSION_3, 0)
    sets = (_Sets * 2)(_Sets(bit, bit, bit), _Sets(0, 0, 0))
    _checked(_LIBC.capset(ctypes.byref(header), sets))
    _checked(_LIBC.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability, 0, 0))


def _checked(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), "the kernel refused")
