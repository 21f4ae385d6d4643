"""One process at a time, by an advisory lock on a connection of its own: whoever dies gives it up."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from tallybook.storage import postgres

_PATIENCE_S = 2.0


@contextlib.asynccontextmanager
async def alone(url: str, key: int, *, application_name: str) -> AsyncGenerator[bool]:
    """Whether nobody else has the lock, which is then held until the block ends. Raises what connecting raises."""
    connection = await postgres.connect_one(url, application_name=application_name)
    try:
        yield bool(await connection.fetchval("SELECT pg_try_advisory_lock($1)", key))
    finally:
        await _give_back(connection)
        connection.terminate()


async def _give_back(connection: postgres.Connection) -> None:
    """At once, because Postgres notices the end of a connection a moment later; a connection that is lost has given it back."""
    with contextlib.suppress(postgres.PostgresError, *postgres.TRANSIENT_ERRORS):
        async with asyncio.timeout(_PATIENCE_S):
            await connection.execute("SELECT pg_advisory_unlock_all()")
