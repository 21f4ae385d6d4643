"""What can go wrong with embedded servers, told so that it can be fixed."""

from pathlib import Path

_TAIL_BYTES = 4000
_TAIL_LINES = 15


class EmbeddedError(Exception):
    """An embedded server can't be started or has died; the message says why and what to do."""


def log_tail(log: Path) -> str:
    """The last lines of a server's log, indented, for an error message."""
    if not log.exists():
        return "  (no log)"
    lines = log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace").splitlines()
    return "\n".join(f"  {line}" for line in lines[-_TAIL_LINES:])
