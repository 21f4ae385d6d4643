"""A whole Tallybook for tests that speak HTTP: API processes and a worker as children, on stores of their own.

`tests/conftest.py` makes these fixtures known to all tests; one test process starts one service.
"""

import asyncio
import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from tallybook.cli import serve
from tallybook.cli.ports import SharedPort
from tallybook.cli.processes import starter
from tallybook.core import clock
from tallybook.embedded.crew import Crew
from tallybook.embedded.stores import Stores
from tallybook.settings import Settings
from tallybook.storage import migrate, postgres
from tallybook.tenancy import actions as tenancy
from tests.support.service import Account, Service

API_PROCESSES = 2


@pytest.fixture(scope="session")
def service() -> Generator[Service]:
    """Two API processes and a worker on stores of their own; stopped in order at the end."""
    with started() as running:
        yield running


@contextlib.contextmanager
def started() -> Generator[Service]:
    """The same, for as long as it is used."""
    with tempfile.TemporaryDirectory(prefix="tallybook-acceptance-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        with Stores(folder / "data", postgres_settings={"shared_buffers": "64MB"}) as stores:
            asyncio.run(_migrate(stores.postgres.url))
            settings = Settings(
                postgres_url=stores.postgres.url,
                redis_url=stores.redis.url,
                workers=API_PROCESSES,
                log_level="warning",
                catalog_url="",
                webhook_allow_private=True,
            )
            crew = Crew(lambda _message: None)
            port = SharedPort("127.0.0.1", 0)
            try:
                crew.add("worker", starter("worker", ["work"], settings, folder / "pids"))
                serve.add_api(crew, port, dataclasses.replace(settings, workers=API_PROCESSES), folder / "pids")
                while not port.is_ready():
                    crew.tend()
                    assert crew.deaths_most() == 0, "a process died while starting; its log is above"
                    time.sleep(0.05)
                with contextlib.closing(Service(port.url, stores.postgres.url, stores.redis.url)) as running:
                    yield running
                assert crew.deaths_most() == 0, "a process died during the tests; its log is above"
            finally:
                crew.stop()
                port.close()


async def _migrate(url: str) -> None:
    await migrate.migrate(url)


@pytest.fixture
def account(service: Service) -> Account:
    """A sandbox organization of the test's own, with a full-access key."""
    return asyncio.run(new_account(service))


async def new_account(service: Service) -> Account:
    """A new sandbox organization with a full-access key."""
    connection = await postgres.connect_one(service.postgres_url)
    try:
        async with connection.transaction():
            _live, sandbox = await tenancy.create_organization(connection, "Acceptance")
            made = await tenancy.create_api_key(connection, sandbox, clock.real_clock(), "test", expires_in_days=None)
    finally:
        await connection.close()
    return Account(service, sandbox.organization_id, made.text)
