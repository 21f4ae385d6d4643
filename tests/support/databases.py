"""Fresh databases on the test run's own Postgres, copied from one that has all migrations."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tallybook.embedded.stores import Stores
from tallybook.storage import migrate, postgres

TEMPLATE = "template_book"


async def make_template(stores: Stores) -> None:
    """Make the migrated database that the others are copies of."""
    await administer(stores, f"CREATE DATABASE {TEMPLATE}")
    await migrate.migrate(stores.postgres.url_of(TEMPLATE))


@asynccontextmanager
async def fresh(stores: Stores, name: str, template: str = TEMPLATE) -> AsyncGenerator[str]:
    """The URL of a new copy of `template`, dropped at the end whoever is still connected."""
    await administer(stores, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    try:
        yield stores.postgres.url_of(name)
    finally:
        await administer(stores, f"DROP DATABASE {name} WITH (FORCE)")


async def administer(stores: Stores, statement: str) -> None:
    """Run one statement outside any transaction, on the server's own database."""
    connection = await postgres.connect_one(stores.postgres.url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
