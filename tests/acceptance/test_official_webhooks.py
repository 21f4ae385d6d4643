"""The official client sets up an endpoint of a running service, and verifies what the service's worker sends there."""

import queue
import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

import pytest
from commet import (
    Commet,
    CommetAPIError,
    _http,  # pyright: ignore[reportPrivateUsage] - the base URL is in there
)
from commet.webhook_events import InvoiceCreatedData, SubscriptionActivatedData

from tests.support.service import Account

Request = tuple[str, str]


class Inbox(ThreadingHTTPServer):
    """A server that takes every POST: body and signature."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Taker)
        self.requests: queue.Queue[Request] = queue.Queue()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook"


class _Taker(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        cast("Inbox", self.server).requests.put((body, self.headers["X-Commet-Signature"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the library
        """Nothing."""


@pytest.fixture
def inbox() -> Generator[Inbox]:
    with Inbox() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def client(account: Account, monkeypatch: pytest.MonkeyPatch) -> Generator[Commet]:
    monkeypatch.setattr(_http, "_BASE_URL", account.service.url)
    client = Commet(account.key)
    yield client
    client.close()


def next_event(client: Commet, inbox: Inbox, secret: str) -> dict[str, Any]:
    body, signature = inbox.requests.get()
    event = client.webhooks.verify_and_parse(raw_body=body, signature=signature, secret=secret)
    assert event is not None
    assert client.webhooks.verify_and_parse(raw_body=body, signature=signature, secret="whsec_other") is None
    assert client.webhooks.verify_and_parse(raw_body=body + " ", signature=signature, secret=secret) is None
    return event


def test_every_call_of_the_resource(client: Commet, inbox: Inbox) -> None:
    made = client.webhooks.create(url=inbox.url, events=["invoice.created"], description="billing")
    assert (made.url, made.events, made.is_active, made.description) == (inbox.url, ["invoice.created"], True, "billing")
    assert client.webhooks.get(made.id).created_at == made.created_at
    assert [one.id for one in client.webhooks.list().data] == [made.id]
    tested = client.webhooks.test(made.id)
    assert (tested.success, tested.object) == (True, "webhook_delivery")
    assert next_event(client, inbox, made.secret_key)["event"] == "webhook.test"
    assert client.webhooks.update(made.id, is_active=False).is_active is False
    assert client.webhooks.delete(made.id).deleted is True
    with pytest.raises(CommetAPIError) as missing:
        client.webhooks.get(made.id)
    assert (missing.value.status_code, missing.value.code) == (404, "webhook_not_found")


def test_what_happens_is_told_by_the_worker_in_order_and_fills_the_clients_types(client: Commet, inbox: Inbox) -> None:
    events: Any = ["subscription.created", "subscription.activated", "invoice.created", "balance.low"]
    secret = client.webhooks.create(url=inbox.url, events=events).secret_key
    client.features.create(name="API calls", code="api_calls", type="usage")
    plan = client.plans.create(name="Wallet", code="wallet", consumption_model="balance")
    client.plans.add_price(plan.id, billing_interval="monthly", price=5000, is_default=True, included_balance=500_000)
    client.plans.add_feature(plan.id, feature_id="api_calls", overage={"enabled": True, "unitPrice": 100})  # type: ignore[arg-type]
    client.customers.create(email="ada@example.com", id="user_1")
    subscription = client.subscriptions.create(customer_id="user_1", plan_code="wallet")
    client.usage.track(feature_code="api_calls", customer_id="user_1", value=4600)
    received = [next_event(client, inbox, secret) for _ in range(4)]
    by_topic = {event["event"]: event["data"] for event in received}
    assert [event["event"] for event in received][-1] == "balance.low"
    assert sorted(by_topic) == sorted(events)
    assert SubscriptionActivatedData(**by_topic["subscription.activated"]).subscriptionId == subscription.id
    assert InvoiceCreatedData(**by_topic["invoice.created"]).total == 5000
    assert by_topic["balance.low"]["currentBalance"] == 40_000
