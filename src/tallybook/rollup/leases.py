"""Which worker rolls up which partition: advisory locks on a connection of their own, so a worker that dies gives up all of them.

Leases only keep workers out of each other's way. What makes a pass count once is the compare-and-set of the offset.
"""

import asyncio
import math
import os

from tallybook.storage import postgres, queries
from tallybook.storage.postgres import Connection

_SQL = queries.load("tallybook.rollup")
_CLASS = 0x7A11
"""First half of the locks' keys; the second is the partition, or what follows for the workers' own presence."""
_PRESENCE = 1_000_000
_PATIENCE_S = 5.0


class Leases:
    """The partitions that this worker may roll up. Not for concurrent use."""

    def __init__(self, postgres_url: str, partitions: int) -> None:
        self._url = postgres_url
        self._partitions = partitions
        self._connection: Connection | None = None
        self._owned: set[int] = set()

    async def renew(self) -> list[int]:
        """Take or give back partitions until this worker has its fair share, and return those it has.

        Raises what Postgres raises, with all leases given up.
        """
        try:
            async with asyncio.timeout(_PATIENCE_S):
                connection = await self._connected()
                share = math.ceil(self._partitions / max(1, await connection.fetchval(_SQL["workers"], _CLASS, _PRESENCE)))
                await self._give_back(connection, share)
                await self._take(connection, share)
        except postgres.TRANSIENT_ERRORS:
            self.abandon()
            raise
        return sorted(self._owned)

    def abandon(self) -> None:
        """Give up every lease at once by dropping the connection."""
        if self._connection is not None:
            self._connection.terminate()
        self._connection = None
        self._owned.clear()

    async def _connected(self) -> Connection:
        if self._connection is None or self._connection.is_closed():
            self._owned.clear()
            self._connection = await postgres.connect_one(self._url, application_name="tallybook rollup leases")
            await self._connection.execute(_SQL["join_workers"], _CLASS, _PRESENCE)
        return self._connection

    async def _give_back(self, connection: Connection, share: int) -> None:
        while len(self._owned) > share:
            partition = max(self._owned)
            await connection.execute(_SQL["end_lease"], _CLASS, partition)
            self._owned.remove(partition)

    async def _take(self, connection: Connection, share: int) -> None:
        """Try partitions from a place that differs between processes, so that starting workers rarely meet."""
        first = os.getpid() % self._partitions
        for step in range(self._partitions):
            partition = (first + step) % self._partitions
            if len(self._owned) >= share:
                return
            if partition not in self._owned and await connection.fetchval(_SQL["try_lease"], _CLASS, partition):
                self._owned.add(partition)
