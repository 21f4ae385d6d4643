"""A whole API on real stores for tests: services as `app` builds them, a served application, and a client that speaks JSON."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientResponse, test_utils

from tallybook.charge.till import Till, TillSettings
from tallybook.core import clock
from tallybook.core.tenant import Tenant
from tallybook.entrypoints.http import server
from tallybook.entrypoints.http.routing import Operation
from tallybook.flows import claim
from tallybook.flows.services import Services
from tallybook.flows.terms_cache import TermsCache
from tallybook.pricing.price_book import PriceBook
from tallybook.rollup import store as rollup_store
from tallybook.settings import Settings
from tallybook.storage import postgres, redis
from tallybook.tenancy import actions as tenancy
from tallybook.tenancy.model import Permissions

PARTITIONS = 4
PLAIN = {"commet-version": "2026-08-27"}


async def make_services(database: postgres.Pool, client: redis.Redis) -> Services:
    """Services on an empty till and a migrated database, with an empty price book."""
    settings = Settings(partitions=PARTITIONS, drain_s=5)
    async with postgres.transaction(database) as connection:
        installation = await tenancy.install(connection, PARTITIONS)
    await rollup_store.ensure_offsets(database, PARTITIONS)
    till = Till(client, TillSettings(installation.epoch, PARTITIONS, 3600), ask_book=claim.asker(database, PARTITIONS))
    await till.initialize()
    terms = TermsCache(database, clock.real_clock, PARTITIONS)
    return Services(settings, clock.real_clock, database, client, till, terms, PriceBook(1, []))


@dataclass(frozen=True, slots=True)
class Account:
    """A new organization in sandbox mode, with a key."""

    tenant: Tenant
    key_id: str
    key: str


async def make_account(database: postgres.Pool, permissions: Permissions | None = None, *, livemode: bool = False) -> Account:
    """Make an organization and a key for one of its modes."""
    async with postgres.transaction(database) as connection:
        live, sandbox = await tenancy.create_organization(connection, "Acme")
        tenant = live if livemode else sandbox
        made = await tenancy.create_api_key(connection, tenant, clock.real_clock(), "test", permissions=permissions)
    return Account(tenant, made.key.id, made.text)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def code(self) -> str:
        """The error code."""
        return self.body["error"]["code"]


class Api:
    """Sends requests with one key, asking for plain objects unless told otherwise."""

    def __init__(self, client: test_utils.TestClient[Any, Any], key: str | None) -> None:
        self.client = client
        self.key = key

    async def send(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | Sequence[tuple[str, str]] | None = None,
    ) -> Answer:
        """Send a request; `data` goes as it is, `body` as JSON."""
        every = {**({} if self.key is None else {"x-api-key": self.key}), **PLAIN, **(headers or {})}
        content: dict[str, Any] = {"data": data} if data is not None else {} if body is None else {"json": body}
        async with self.client.request(method, path, headers=every, params=params, **content) as response:
            return await _answer(response)


async def _answer(response: ClientResponse) -> Answer:
    is_json = response.content_type == "application/json"
    body: object = await response.json() if is_json else await response.text()
    return Answer(response.status, response.headers, body)


@asynccontextmanager
async def serving(
    services: Services, operations: Sequence[Operation] | None = None
) -> AsyncGenerator[test_utils.TestClient[Any, Any]]:
    """An HTTP client of the application on these services."""
    application = server.make_application(services, operations)
    async with test_utils.TestClient(test_utils.TestServer(application)) as client:
        yield client
