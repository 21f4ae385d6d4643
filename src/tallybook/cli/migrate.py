"""`tallybook migrate`: bring the database to this version's schema."""

import argparse
import asyncio
import os

from tallybook import settings
from tallybook.settings import SettingsError
from tallybook.storage import migrate, postgres


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("--check", action="store_true", help="apply nothing; exit with 1 when something is missing")


def run(arguments: argparse.Namespace) -> int:
    """Print the migrations applied (or, with --check, missing), one a line."""
    url = settings.from_environment(os.environ).postgres_url
    if not url:
        raise SettingsError("TALLYBOOK_POSTGRES_URL is not set (for example postgresql://user@host/tallybook)")
    names = asyncio.run(_pending(url) if arguments.check else migrate.migrate(url))
    for name in names:
        print(name)
    return 1 if arguments.check and names else 0


async def _pending(url: str) -> list[str]:
    connection = await postgres.connect_one(url)
    try:
        return await migrate.pending(connection)
    finally:
        await connection.close()
