"""Redis 6.2 in a folder, on a unix socket, set up so that what it acknowledges is on disk."""

import socket
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from tallybook.embedded import programs
from tallybook.embedded.child import Child, Program
from tallybook.embedded.failures import EmbeddedError, log_tail

_START_S_MAX = 600.0
"""Reading back a large log takes minutes."""
_POLL_S = 0.02
_SETTINGS: Mapping[str, str] = {
    "port": "0",
    "unixsocketperm": "700",
    "daemonize": "no",
    "databases": "1",
    "save": "",
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "aof-load-truncated": "yes",
    "aof-use-rdb-preamble": "yes",
    "auto-aof-rewrite-percentage": "100",
    "auto-aof-rewrite-min-size": "128mb",
    "maxmemory-policy": "noeviction",
    "hash-max-ziplist-entries": "512",
    "hash-max-ziplist-value": "64",
}


class RedisServer:
    """One Redis on one folder. `start` after a crash reads its log back; `stop` ends it cleanly."""

    def __init__(self, data: Path, sockets: Path, *, settings: Mapping[str, str] | None = None) -> None:
        self._folder = data / "redis"
        self._socket = sockets / "redis.sock"
        self._log = data / "logs" / "redis.log"
        self._settings = {**_SETTINGS, **(settings or {})}
        self._pids = data / "pids"
        self._child: Child | None = None

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"unix://{quote(str(self._socket))}"

    @property
    def child(self) -> Child:
        """The running process. Raises EmbeddedError before `start`."""
        if self._child is None:
            raise EmbeddedError("Redis was not started")
        return self._child

    def start(self) -> Child:
        """Start the server and wait until its log is read back. Raises EmbeddedError."""
        self._socket.unlink(missing_ok=True)
        self._child = Child(self._program())
        deadline = time.monotonic() + _START_S_MAX
        while self._child.exit_code is None and time.monotonic() < deadline:
            if _answers(self._socket):
                return self._child
            time.sleep(_POLL_S)
        self._child.stop()
        raise EmbeddedError(f"Redis did not start; the end of {self._log}:\n{log_tail(self._log)}")

    def stop(self) -> None:
        """Write everything to disk and end."""
        if self._child is not None:
            self._child.stop()

    def _program(self) -> Program:
        settings = {**self._settings, "dir": str(self._folder), "unixsocket": str(self._socket)}
        words = [word for name, value in settings.items() for word in (f"--{name}", value)]
        return Program("redis", [programs.redis_server(), *words], self._pids, log=self._log, folder=self._folder)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(1.0)
        try:
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False
