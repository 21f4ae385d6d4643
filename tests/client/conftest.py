"""What the client's tests share: a scripted service, an account with an AI plan, and the usage it recorded."""

import asyncio
import gc
import sys
import warnings
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import certifi
import pytest

from tallybook.client import MeterSettings, Problem, Tallybook
from tests.client import fake_provider, stub_service
from tests.client.fake_provider import FakeProvider
from tests.client.stub_service import StubService
from tests.support.running import new_account
from tests.support.service import Account, Service

pytest.register_assert_rewrite("tests.client.provider_runs")


@pytest.fixture
def stub() -> Generator[StubService]:
    """A scripted service of the test's own."""
    with stub_service.running() as running:
        yield running


@pytest.fixture
def fake() -> Generator[FakeProvider]:
    with fake_provider.running() as running:
        yield running


@pytest.fixture
def problems() -> list[Problem]:
    return []


@pytest.fixture
def tallybook(stub: StubService, problems: list[Problem]) -> Generator[Tallybook]:
    with Tallybook("ck_test", url=stub.url, meter=MeterSettings(linger_s=0.005), on_error=problems.append) as client:
        yield client


@pytest.fixture
def ai_account(account: Account) -> Account:
    """An account with one customer, user_1, on a plan of $50 that prices `ai_chat` by model, with 20 % margin."""
    return with_ai_plan(account)


@pytest.fixture(scope="module")
def shared_account(service: Service) -> Account:
    """The same, one for all tests of a module."""
    return with_ai_plan(asyncio.run(new_account(service)))


@pytest.fixture(scope="module")
async def swept(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[None]:
    """Has Python find the connections that an SDK left open when a stream broke, or keeps for later.

    Nothing here speaks TLS, so one certificate is enough: each client of an SDK reads all there are, which takes longer than its calls.
    """
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SSL_CERT_FILE", str(_one_certificate(tmp_path_factory.mktemp("certificates"))))
        yield
    if (litellm := sys.modules.get("litellm")) is not None:
        litellm.in_memory_llm_clients_cache.flush_cache()
    gc.unfreeze()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()
        _hang_up()
        await asyncio.sleep(0)
        gc.collect()


def _one_certificate(folder: Path) -> Path:
    first, end, _ = Path(certifi.where()).read_text().partition("-----END CERTIFICATE-----\n")
    file = folder / "one.pem"
    file.write_text(first + end)
    return file


def _hang_up() -> None:
    """End the connections that SDKs without a way to close them keep, also those of event loops that have ended."""
    for transport in [each for each in gc.get_objects() if isinstance(each, asyncio.Transport) and not each.is_closing()]:
        try:
            transport.abort()
        except RuntimeError:
            vars(transport)["_sock"].close()
            vars(transport)["_sock"] = None


def with_ai_plan(account: Account) -> Account:
    """The account, with the plan, the feature and the customer."""
    with Tallybook(account.key, url=account.service.url) as tallybook:
        tallybook.features.create(name="AI chat", code="ai_chat", type="usage")
        tallybook.plans.create(name="AI", code="ai", consumption_model="balance", block_on_exhaustion=False)
        tallybook.plans.add_price("ai", billing_interval="monthly", price=5000, is_default=True, included_balance=500_000)
        tallybook.plans.add_feature("ai", feature_id="ai_chat", pricing_mode="ai_model", margin=20)
        tallybook.customers.create(email="ada@example.com", id="user_1")
        tallybook.subscriptions.create("user_1", plan_code="ai")
    return account
