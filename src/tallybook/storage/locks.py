"""One process at a time, by an advisory lock on a connection of its own: whoever dies gives it up."""

import contextlib
from collections.abc import AsyncGenerator

from tallybook.storage import postgres


@contextlib.asynccontextmanager
async def alone(url: str, key: int, *, application_name: str) -> AsyncGenerator[bool]:
    """Whether nobody else has the lock, which is then held until the block ends. Raises what connecting raises."""
    connection = await postgres.connect_one(url, application_name=application_name)
    try:
        yield bool(await connection.fetchval("SELECT pg_try_advisory_lock($1)", key))
    finally:
        connection.terminate()
