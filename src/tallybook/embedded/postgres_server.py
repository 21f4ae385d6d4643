"""Postgres 18 in a folder, on a unix socket, set up so that what is committed is on disk."""

import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from tallybook.embedded import child, identity, programs
from tallybook.embedded.child import Child, Program
from tallybook.embedded.failures import EmbeddedError, log_tail

USER = "tallybook"
DATABASE = "tallybook"
_START_S_MAX = 300.0
"""Crash recovery of a large log takes minutes."""
_STATUS_LINE = 7
_POLL_S = 0.02
_SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "max_connections": "100",
    "shared_buffers": "256MB",
    "dynamic_shared_memory_type": "mmap",  # containers give /dev/shm 64 MB
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}


class PostgresServer:
    """One Postgres on one folder. `start` after a crash recovers; `stop` ends it cleanly; `kill` is for tests."""

    def __init__(self, data: Path, sockets: Path, *, user: str | None = None, settings: Mapping[str, str] | None = None) -> None:
        self._cluster = data / "postgres"
        self._sockets = sockets / "postgres"
        self._identity = identity.for_postgres(self._cluster, programs.postgres_files(), user)
        self._log = data / "logs" / "postgres.log"
        self._settings = {**_SETTINGS, **(settings or {})}
        self._pids = data / "pids"
        self._child: Child | None = None

    @property
    def url(self) -> str:
        """The URL of the database that Tallybook uses."""
        return self.url_of(DATABASE)

    @property
    def child(self) -> Child:
        """The running process. Raises EmbeddedError before `start`."""
        if self._child is None:
            raise EmbeddedError("Postgres was not started")
        return self._child

    def url_of(self, database: str) -> str:
        """The URL of any database of this server."""
        return f"postgresql://{USER}@/{database}?host={quote(str(self._sockets), safe='')}"

    def start(self) -> Child:
        """Make the cluster if there is none, start the server and wait until it answers. Raises EmbeddedError."""
        self._sockets.mkdir(mode=0o700, exist_ok=True)
        identity.own(self._sockets, self._identity)
        self._make_cluster()
        deadline = time.monotonic() + _START_S_MAX
        while not self._start_once(deadline):
            if time.monotonic() > deadline:
                raise EmbeddedError(f"Postgres does not start; the end of {self._log}:\n{log_tail(self._log)}")
            time.sleep(0.5)
        return self.child

    def stop(self) -> None:
        """Finish what runs, write a checkpoint and end."""
        if self._child is not None:
            self._child.stop()

    def _make_cluster(self) -> None:
        if (self._cluster / "PG_VERSION").exists():
            self._check_version()
            return
        unfinished = self._cluster.with_name("postgres.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        identity.own(unfinished, self._identity)
        make = [programs.postgres("initdb"), "--pgdata", unfinished, "--username", USER, "--auth", "trust", "--encoding", "UTF8"]
        child.run([*make, "--locale-provider", "builtin", "--locale", "C.UTF-8"], self._identity)
        single = [programs.postgres("postgres"), "--single", "-D", unfinished, "postgres"]
        child.run(single, self._identity, f"CREATE DATABASE {DATABASE};\n")
        unfinished.rename(self._cluster)

    def _check_version(self) -> None:
        found = (self._cluster / "PG_VERSION").read_text().strip()
        if found != str(programs.POSTGRES_MAJOR):
            raise EmbeddedError(f"{self._cluster} was made by Postgres {found}, not {programs.POSTGRES_MAJOR}")

    def _start_once(self, deadline: float) -> bool:
        """Whether it runs. False when backends of a killed predecessor still hold its memory: they leave by themselves."""
        self._drop_stale_pid_file()
        logged = self._log.stat().st_size if self._log.exists() else 0
        self._child = Child(self._program())
        while self._child.exit_code is None and time.monotonic() < deadline:
            if self._is_ready(self._child.pid):
                return True
            time.sleep(_POLL_S)
        self._child.stop()
        if b"still in use" in self._log.read_bytes()[logged:]:
            return False
        raise EmbeddedError(f"Postgres did not start; the end of {self._log}:\n{log_tail(self._log)}")

    def _program(self) -> Program:
        sockets = str(self._sockets).replace('"', '""')
        settings = {**self._settings, "unix_socket_directories": f'"{sockets}"'}
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return Program(
            name="postgres",
            command=[programs.postgres("postgres"), "-D", self._cluster, *words],
            pids=self._pids,
            log=self._log,
            identity=self._identity,
            stop_signals=(signal.SIGINT, signal.SIGQUIT),
            folder=Path("/"),
        )

    def _is_ready(self, pid: int) -> bool:
        lines = self._pid_file_lines()
        return len(lines) > _STATUS_LINE and lines[0] == str(pid) and lines[_STATUS_LINE].strip() == "ready"

    def _drop_stale_pid_file(self) -> None:
        """A pid file of a killed server whose number another process has now would stop Postgres from starting."""
        lines = self._pid_file_lines()
        told = Path(f"/proc/{lines[0]}/cmdline") if lines else None
        if told is None or not Path("/proc/self/cmdline").exists():
            return
        if not told.exists() or str(self._cluster).encode() not in told.read_bytes():
            (self._cluster / "postmaster.pid").unlink()
            for lock in self._sockets.glob(".s.PGSQL.*.lock"):
                lock.unlink()

    def _pid_file_lines(self) -> list[str]:
        try:
            return (self._cluster / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []
