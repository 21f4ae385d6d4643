"""Both embedded stores of one data folder."""

import signal
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tallybook.embedded import folders, leftovers
from tallybook.embedded.postgres_server import PostgresServer
from tallybook.embedded.redis_server import RedisServer

_STOP_SIGNALS = {"postgres": signal.SIGINT}


class Stores:
    """Postgres and Redis on one folder, for one user at a time. Start order is the reverse of stop order."""

    def __init__(
        self, data: Path, *, postgres_user: str | None = None, postgres_settings: Mapping[str, str] | None = None
    ) -> None:
        self.data = folders.make(data)
        self._lock = folders.Lock(self.data)
        try:
            recorded = leftovers.names(self.pids)
            self.left_behind = [name for name in recorded if leftovers.stop(self.pids, name, _stop_signal(name))]
            self._sockets = folders.sockets(self.data)
            self.postgres = PostgresServer(self.data, self._sockets, user=postgres_user, settings=postgres_settings)
            self.redis = RedisServer(self.data, self._sockets)
        except BaseException:
            self._lock.release()
            raise

    @property
    def pids(self) -> Path:
        """Where the children of this folder are on record."""
        return self.data / "pids"

    def start(self) -> None:
        """Start both and wait until they answer; stops again what runs when one fails. Raises EmbeddedError."""
        try:
            self.postgres.start()
            self.redis.start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop both: Redis first, because what it holds outlives it by its own log."""
        try:
            self.redis.stop()
            self.postgres.stop()
            folders.discard_sockets(self._sockets)
        finally:
            self._lock.release()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def _stop_signal(name: str) -> signal.Signals:
    return _STOP_SIGNALS.get(name, signal.SIGTERM)
