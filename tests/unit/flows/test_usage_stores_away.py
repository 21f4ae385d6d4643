"""A store that does not answer for one event costs no other event of the request."""

from collections.abc import Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from tallybook.charge.commands import Outcome, Receipt
from tallybook.core import errors
from tallybook.core.tenant import Tenant
from tallybook.flows import price_event, recorded_before, usage
from tallybook.flows.price_event import PricedEvent
from tallybook.flows.usage import Result, Settled, Source
from tallybook.receive.model import Event
from tallybook.storage import redis

TENANT = Tenant(1, "org_1", livemode=True)
GONE = redis.ConnectionLostError("gone")
ACCEPTED, STALE = Receipt(Outcome.ACCEPTED, -1), Receipt(Outcome.STALE, -1)


class Stores:
    """A till and a book of one customer whose name is "here", and of "refused" and "new" ones; each can fail."""

    def __init__(
        self, receipts: Sequence[Sequence[Receipt] | Exception] = (), *, reading: bool = True, loading: bool = True
    ) -> None:
        self.receipts = list(receipts)
        self.is_reading = reading
        self.is_loading = loading
        self.known = {"here", "refused"}

    async def settle(self, charges: Sequence[object]) -> list[Receipt]:
        answer = self.receipts.pop(0) if self.receipts else [ACCEPTED] * len(charges)
        if isinstance(answer, Exception):
            raise answer
        return list(answer)

    async def read(self, _tenant_id: int, _customer_id: int) -> SimpleNamespace:
        if not self.is_reading:
            raise GONE
        return SimpleNamespace(tenant_version=1, customer_version=1)

    def at_hand(self, _tenant: Tenant, reference: str) -> SimpleNamespace | None:
        if reference not in self.known:
            return None
        return SimpleNamespace(
            catalog_version=0, simulated_at=None, tenant=TENANT, customer_id=reference, tenant_version=1, customer_version=1
        )

    async def load(self, _tenant: Tenant, reference: str) -> None:
        if not self.is_loading:
            raise OSError
        self.known.add(reference)


def priced(event: Event, *_rest: object) -> PricedEvent:
    if event.customer_id == "refused":
        raise errors.BillingError("feature_disabled", "no")
    charge: Any = SimpleNamespace(record=SimpleNamespace(digest=event.customer_id.encode()), amount=-1)
    terms: Any = None
    return PricedEvent(event, terms, charge)


@pytest.fixture(autouse=True)
def flows(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(*_arguments: object) -> dict[int, Any]:
        return {}

    async def not_newer(_services: object) -> bool:
        return False

    monkeypatch.setattr(price_event, "price", priced)
    monkeypatch.setattr(recorded_before, "look_up", nothing)
    monkeypatch.setattr(recorded_before, "refused", lambda *_arguments: True)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    monkeypatch.setattr(usage.current_book, "refresh", not_newer)


async def track(stores: Stores, *customers: str) -> list[Result]:
    services: Any = SimpleNamespace(
        till=stores,
        terms=stores,
        book=SimpleNamespace(version=1),
        settings=SimpleNamespace(retention_ms=1),
        clock=lambda: datetime.now(UTC),
    )
    events = [
        Event("feature", customer, 10**9, None, 0, 0, 0, 0, 0, None, 0, True, f"event {customer}", None, None, bytes(8))  # noqa: FBT003
        for customer in customers
    ]
    return await usage.track(services, Source(TENANT, None, is_batch=True), events)


def told(results: Sequence[Result]) -> list[str]:
    return [result.receipt.outcome.name if isinstance(result, Settled) else result.code for result in results]


async def test_terms_that_can_not_be_compared_cost_only_the_refused_event() -> None:
    assert told(await track(Stores(reading=False), "here", "refused")) == ["ACCEPTED", "store_unavailable"]


async def test_a_refusal_stands_when_the_terms_can_be_compared() -> None:
    assert told(await track(Stores(), "here", "refused")) == ["ACCEPTED", "feature_disabled"]


async def test_a_customer_who_can_not_be_loaded_costs_only_their_event() -> None:
    assert told(await track(Stores(loading=False), "here", "new")) == ["ACCEPTED", "store_unavailable"]


async def test_a_memory_that_can_not_be_asked_costs_only_the_refused_event(monkeypatch: pytest.MonkeyPatch) -> None:
    async def gone(*_arguments: object) -> None:
        raise GONE

    monkeypatch.setattr(recorded_before, "look_up", gone)
    assert told(await track(Stores(), "here", "refused")) == ["ACCEPTED", "store_unavailable"]


async def test_what_was_recorded_is_told_when_the_second_attempt_of_another_event_fails() -> None:
    unavailable = errors.Unavailable("till_unavailable", "gone")
    results = await track(Stores([[ACCEPTED, STALE], unavailable]), "here", "new")
    assert told(results) == ["ACCEPTED", "till_unavailable"]


@pytest.mark.parametrize("stores", [Stores(loading=False), Stores([GONE])], ids=["book", "till"])
async def test_when_nothing_is_known_of_any_event_the_request_fails_as_a_whole(stores: Stores) -> None:
    with pytest.raises((errors.Unavailable, redis.RedisError)):
        await track(stores, "new")
