"""The two clients. Both have the same resources; those of `AsyncTallybook` are awaited."""

import asyncio
from types import TracebackType
from typing import Any, Self

import httpx

from tallybook.client import transport
from tallybook.client.meter.outbox import MeterSettings, Outbox
from tallybook.client.meter.problems import OnError
from tallybook.client.meter.task import AsyncMeter
from tallybook.client.meter.thread import Meter
from tallybook.client.requests import Async, CustomerResource, Mode, Resource, Sync
from tallybook.client.resources.ai_models import AiModels
from tallybook.client.resources.api_keys import ApiKeys
from tallybook.client.resources.customers import Customers
from tallybook.client.resources.feature_access import CustomerFeatures, FeatureAccesses
from tallybook.client.resources.features import Features
from tallybook.client.resources.invoices import Invoices
from tallybook.client.resources.plans import Plans
from tallybook.client.resources.subscriptions import CustomerSubscriptions, Subscriptions
from tallybook.client.resources.test_clock import Clock
from tallybook.client.resources.usage import CustomerUsage, Usage

_METER = MeterSettings()


class _Resources(Resource[Mode]):
    """All resources of one client, which share how they send."""

    def __init__(self, send: Any) -> None:
        super().__init__(send)
        self.ai_models: AiModels[Mode] = AiModels(send)
        self.api_keys: ApiKeys[Mode] = ApiKeys(send)
        self.customers: Customers[Mode] = Customers(send)
        self.feature_access: FeatureAccesses[Mode] = FeatureAccesses(send)
        self.features: Features[Mode] = Features(send)
        self.invoices: Invoices[Mode] = Invoices(send)
        self.plans: Plans[Mode] = Plans(send)
        self.subscriptions: Subscriptions[Mode] = Subscriptions(send)
        self.test_clock: Clock[Mode] = Clock(send)
        self.usage: Usage[Mode] = Usage(send)

    def customer(self, customer_id: str) -> "CustomerScope[Mode]":
        """Everything about one customer, who is named once: `tallybook.customer("user_123").usage.track("api_calls")`."""
        return CustomerScope(self._send, customer_id)


class CustomerScope(CustomerResource[Mode]):
    """The resources of one customer."""

    def __init__(self, send: Any, customer_id: str) -> None:
        """`customer_id` is `cus_…` or your own id."""
        super().__init__(send, customer_id)
        self.usage: CustomerUsage[Mode] = CustomerUsage(send, customer_id)
        self.features: CustomerFeatures[Mode] = CustomerFeatures(send, customer_id)
        self.subscriptions: CustomerSubscriptions[Mode] = CustomerSubscriptions(send, customer_id)


class Tallybook(_Resources[Sync]):
    """A Tallybook service. Calls answer or raise `TallybookError`; `meter` takes events without waiting.

    The address and the key come from the arguments, or from TALLYBOOK_URL and TALLYBOOK_API_KEY.
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        url: str | None = None,
        timeout_s: float = 30.0,
        retries: int = 3,
        meter: MeterSettings = _METER,
        on_error: OnError | None = None,
        http: httpx.Client | None = None,
    ) -> None:
        """`http` is used for calls, if given; the meter has connections of its own. Raises ValueError without a key."""
        address = transport.address(api_key, url, timeout_s, retries)
        self._transport = transport.SyncTransport(address, http)
        super().__init__(self._transport.send)
        self.send_once = self._transport.send_once
        self.meter = Meter(Outbox(meter, address, on_error))

    def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until everything metered before is with the service; False when `timeout_s` seconds were not enough."""
        return self.meter.flush(timeout_s)

    def close(self, timeout_s: float | None = None) -> None:
        """Send what waits, and close. Happens by itself when the process ends."""
        self.meter.close(timeout_s)
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class AsyncTallybook(_Resources[Async]):
    """A Tallybook service for asyncio. See `Tallybook`."""

    def __init__(
        self,
        api_key: str | None = None,
        *,
        url: str | None = None,
        timeout_s: float = 30.0,
        retries: int = 3,
        meter: MeterSettings = _METER,
        on_error: OnError | None = None,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        """As for `Tallybook`."""
        address = transport.address(api_key, url, timeout_s, retries)
        self._transport = transport.AsyncTransport(address, http)
        super().__init__(self._transport.send)
        self.send_once = self._transport.send_once
        self.meter = AsyncMeter(Outbox(meter, address, on_error))

    async def flush(self, timeout_s: float | None = None) -> bool:
        """Wait until everything metered before is with the service; False when `timeout_s` seconds were not enough."""
        return await self.meter.flush(timeout_s)

    async def close(self, timeout_s: float | None = None) -> None:
        """Send what waits, and close."""
        await self.meter.close(timeout_s)
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await asyncio.shield(self.close())
