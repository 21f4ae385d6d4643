"""What the book says the till must be: asked whenever Redis may have become another one."""

import asyncio

from tallybook.charge.fence import AskBook, Claim
from tallybook.core import errors
from tallybook.rollup import store as rollup_store
from tallybook.storage import postgres
from tallybook.storage.postgres import Pool
from tallybook.tenancy import store as tenancy

_PATIENCE_S = 3.0


def asker(database: Pool, partitions: int) -> AskBook:
    """Asks this book."""

    async def ask() -> Claim:
        try:
            async with asyncio.timeout(_PATIENCE_S), postgres.snapshot(database) as connection:
                made = await tenancy.find_installation(connection)
                read = await rollup_store.offsets(connection, range(partitions))
        except postgres.TRANSIENT_ERRORS as error:
            message = "The database does not answer, so it can't be said which till is this installation's."
            raise errors.Unavailable("database_unavailable", message) from error
        if made is None:
            raise errors.Unavailable("not_installed", "The database has no installation yet.")
        return Claim(made.epoch, [read.get(partition, 0) for partition in range(partitions)])

    return ask
