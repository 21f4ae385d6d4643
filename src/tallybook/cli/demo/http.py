"""The demo's HTTP client: one keep-alive connection, the API's shapes, and the rule that unknown is not failed."""

import http.client
import time
from decimal import Decimal
from typing import Any, TypeVar
from urllib.parse import urlencode

import msgspec

_BASE = "/api/v1"
_VERSION = "2026-08-27"
_TIMEOUT_S = 30.0
_TRY_FOR_S = 40.0
_PAUSE_S = 0.2
_COME_BACK = (429, 503)
_FAILED_FROM = 400

Shape = TypeVar("Shape")


class DemoError(Exception):
    """The demo can't go on; the message says why."""


class Problem(msgspec.Struct):
    """The error of a request, or of an item of a batch."""

    code: str
    message: str
    details: Any = None


class Failure(msgspec.Struct):
    """The body of a refused request."""

    error: Problem


class RefusedError(Exception):
    """The API answered with an error."""

    def __init__(self, status: int, problem: Problem) -> None:
        super().__init__(f"{status} {problem.code}: {problem.message}")
        self.status = status
        self.problem = problem


class Consumption(msgspec.Struct):
    """What an event took and what it left: credits, or money in rate scale (10000 = $1.00)."""

    model: str
    deducted: Decimal
    remaining: Decimal


class Recorded(msgspec.Struct, rename="camel"):
    """A recorded event."""

    id: str
    event_id: str
    consumption: Consumption | None = None


class Item(msgspec.Struct):
    """What became of one event."""

    status: str
    event: Recorded | None = None
    error: Problem | None = None


class Batch(msgspec.Struct):
    """What became of a batch."""

    results: list[Item]


class Made(msgspec.Struct):
    """Anything that was created."""

    id: str


class FeatureUsage(msgspec.Struct):
    """Units used of a metered feature."""

    current: Decimal
    included: Decimal


class SubscribedFeature(msgspec.Struct):
    """A feature of a subscription."""

    code: str
    usage: FeatureUsage | None = None


class Credits(msgspec.Struct):
    """Credits left."""

    remaining: Decimal
    included: Decimal
    purchased: Decimal


class Balance(msgspec.Struct):
    """Balance left, in rate scale; below zero it is overdrawn."""

    remaining: Decimal
    included: Decimal


class Subscription(msgspec.Struct, rename="camel"):
    """A subscription with what is left of it."""

    id: str
    status: str
    features: list[SubscribedFeature]
    credits: Credits | None = None
    balance: Balance | None = None


class Adjusted(msgspec.Struct, rename="camel"):
    """Credits after a purchase."""

    new_balance: Decimal


class InvoiceLine(msgspec.Struct, rename="camel"):
    """One line of an invoice; `amount` in cents."""

    line_type: str
    description: str
    amount: int


class Invoice(msgspec.Struct, rename="camel"):
    """An invoice; `total` in cents. A list shows it without its lines."""

    id: str
    invoice_number: str
    customer_id: str
    period_start: str
    period_end: str
    issue_date: str
    total: int
    line_items: list[InvoiceLine] = []


class Invoices(msgspec.Struct, rename="camel"):
    """A page of invoices."""

    data: list[Invoice]
    has_more: bool


class ClockRun(msgspec.Struct, rename="camel"):
    """A run of the test clock."""

    id: str
    status: str
    completed_deadline_count: int
    failed_deadline_count: int
    error: str | None


class TestClock(msgspec.Struct, rename="camel"):
    """The test clock of a sandbox."""

    now: str
    latest_run: ClockRun | None


class Band(msgspec.Struct, rename="camel"):
    """Prices of a model, USD per million tokens."""

    input: str
    output: str
    cache_read: str | None = None
    cache_write: str | None = None


class Price(msgspec.Struct):
    """The price of a model; later bands are for longer prompts than the demo has."""

    standard: list[Band]


class AiModel(msgspec.Struct):
    """A model of the catalog."""

    price: Price


class Quote(msgspec.Struct, rename="camel"):
    """What a request to a model costs, exact USD."""

    cost_usd: str
    charge_usd: str


_encode = msgspec.json.Encoder(decimal_format="number").encode


class Client:
    """One connection with one API key. Each thread has its own."""

    def __init__(self, host: str, port: int, api_key: str) -> None:
        self._connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
        self._headers = {"x-api-key": api_key, "commet-version": _VERSION, "content-type": "application/json"}
        self.requests = 0

    def get(self, path: str, shape: type[Shape], **query: str) -> Shape:
        """Read something. Raises RefusedError, DemoError."""
        return self._call("GET", f"{path}?{urlencode(query)}" if query else path, b"", {}, shape)

    def post(self, path: str, body: object, shape: type[Shape], key: str) -> Shape:
        """Write under an idempotency key, again until it is known what became of it. Raises RefusedError, DemoError."""
        return self._call("POST", path, _encode(body), {"idempotency-key": key}, shape)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _call(self, method: str, path: str, body: bytes, headers: dict[str, str], shape: type[Shape]) -> Shape:
        status, answer = self._until_known(method, _BASE + path, body, self._headers | headers)
        if status >= _FAILED_FROM:
            raise RefusedError(status, msgspec.json.decode(answer, type=Failure).error)
        return msgspec.json.decode(answer, type=shape)

    def _until_known(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        give_up_at = time.monotonic() + _TRY_FOR_S
        while True:
            try:
                self.requests += 1
                self._connection.request(method, path, body or None, headers)
                response = self._connection.getresponse()
                status, answer = response.status, response.read()
                problem = f"{status} {answer.decode(errors='replace')}"
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                status, answer, problem = 0, b"", repr(error)
            if status and status not in _COME_BACK:
                return status, answer
            if time.monotonic() > give_up_at:
                raise DemoError(f"{method} {path} was not answered for {_TRY_FOR_S:g} s: {problem}")
            time.sleep(_PAUSE_S)
