"""Real stores for tests: one private Postgres and Redis a test process, a fresh database and an empty Redis a test module.

`service`, `account`: a whole started Tallybook (`support/running.py`) · `postgres_url`, `redis_url`: URLs ·
`database`: a pool on that database · `redis_client`: a client · `stores`: the servers.
The servers start on first use, listen on private sockets only, and are stopped by process id even when the run is interrupted.
"""

import asyncio
import itertools
import shutil
import tempfile
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest
from hypothesis import settings

from tallybook.embedded.stores import Stores
from tallybook.storage import postgres, redis
from tests.support import databases
from tests.support.running import account, service

__all__ = ["account", "service"]

# How long an example takes says how busy the machine is, and nothing about the code.
settings.register_profile("tallybook", deadline=None)
settings.load_profile("tallybook")

_CLOSE_S_MAX = 20.0
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def stores() -> Generator[Stores]:
    """The test process's own Postgres and Redis, durable as in production."""
    folder = Path(tempfile.mkdtemp(prefix="tallybook-test-"))
    folder.chmod(0o711)
    try:
        with Stores(folder, postgres_settings={"shared_buffers": "64MB"}) as running:
            yield running
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
async def migrated_stores(stores: Stores) -> Stores:
    """The servers, with a database that has all migrations to copy from."""
    await databases.make_template(stores)
    return stores


@pytest.fixture(scope="module")
async def postgres_url(migrated_stores: Stores) -> AsyncGenerator[str]:
    """A database of this module's own, with all migrations and no rows."""
    async with databases.fresh(migrated_stores, f"test_{next(_numbers)}") as url:
        yield url


@pytest.fixture(scope="module")
async def database(postgres_url: str) -> AsyncGenerator[postgres.Pool]:
    """A pool on this module's database."""
    pool = await postgres.connect(postgres_url)
    try:
        yield pool
    finally:
        await _close(pool)


async def _close(pool: postgres.Pool) -> None:
    """Closing waits for connections in use; one that a test kept is an error here, not a run that never ends."""
    try:
        async with asyncio.timeout(_CLOSE_S_MAX):
            await pool.close()
    except TimeoutError:
        pool.terminate()
        pytest.fail("a test of this module kept a database connection")


@pytest.fixture(scope="module")
async def redis_url(stores: Stores) -> str:
    """An empty Redis; whatever the module before left in it is gone."""
    client = redis.connect(stores.redis.url)
    await client.execute_command("FLUSHALL")
    await client.close()
    return stores.redis.url


@pytest.fixture(scope="module")
async def redis_client(redis_url: str) -> AsyncGenerator[redis.Redis]:
    """A client of this module's Redis."""
    client = redis.connect(redis_url)
    try:
        yield client
    finally:
        await client.close()
