"""Usage: sent and answered at once. To send in the background use `tallybook.meter`."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypedDict

from tallybook.client.decoding import reader
from tallybook.client.models import Amount
from tallybook.client.models_usage import UsageAdjustment, UsageBatch, UsageCheck, UsageEvent
from tallybook.client.requests import CustomerResource, Mode, Request, Resource, customer_operation, operation, present


class _EventOptions(TypedDict, total=False):
    value: Amount
    event_id: str
    timestamp: datetime | str
    properties: Mapping[str, str]
    model: str
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cache_write_1h_tokens: int
    service_tier: str
    web_search_requests: int
    input_tokens_include_cache: bool


class NewEvent(_EventOptions):
    """An event of a batch: a plain dict with the parameters of `track`."""

    customer_id: str
    feature_code: str


def track(
    customer_id: str,
    feature_code: str,
    value: Amount | None = None,
    *,
    event_id: str | None = None,
    timestamp: datetime | str | None = None,
    properties: Mapping[str, str] | None = None,
    model: str | None = None,
    input_tokens: int | None = None,
    output_tokens: int | None = None,
    cache_read_tokens: int | None = None,
    cache_write_tokens: int | None = None,
    cache_write_1h_tokens: int | None = None,
    service_tier: str | None = None,
    web_search_requests: int | None = None,
    input_tokens_include_cache: bool | None = None,
) -> Request[UsageEvent]:
    """Record one event: `value` of a plain feature, or a model with its tokens; the answer has what is left.

    `input_tokens` is the whole prompt, cache reads and writes included. Raises Duplicate when the event id was recorded before.
    """
    body = present(
        customer_id=customer_id,
        feature_code=feature_code,
        value=value,
        event_id=event_id,
        timestamp=timestamp,
        properties=properties,
        model=model,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cache_read_tokens=cache_read_tokens,
        cache_write_tokens=cache_write_tokens,
        cache_write_1h_tokens=cache_write_1h_tokens,
        service_tier=service_tier,
        web_search_requests=web_search_requests,
        input_tokens_include_cache=input_tokens_include_cache,
    )
    return Request("POST", "/usage/events", reader(UsageEvent), body)


def track_batch(*, events: Sequence[NewEvent]) -> Request[UsageBatch]:
    """Record up to 100 events; each gets its own result, and an error of one never costs another."""
    body: dict[str, Any] = {"events": [present(**event) for event in events]}
    return Request("POST", "/usage/events/batch", reader(UsageBatch), body)


def check(
    customer_id: str,
    feature_code: str,
    *,
    quantity: Amount | None = None,
    model: str | None = None,
    input_tokens: int | None = None,
    output_tokens: int | None = None,
    cache_read_tokens: int | None = None,
    cache_write_tokens: int | None = None,
) -> Request[UsageCheck]:
    """May this be used, and what would it cost? Records nothing."""
    body = present(
        customer_id=customer_id,
        feature_code=feature_code,
        quantity=quantity,
        model=model,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cache_read_tokens=cache_read_tokens,
        cache_write_tokens=cache_write_tokens,
    )
    return Request("POST", "/usage/check", reader(UsageCheck), body)


def set_(customer_id: str, feature_code: str, value: Amount, *, reason: str | None = None) -> Request[UsageAdjustment]:
    """Set the running period's total of a metered feature; recorded as a signed adjustment."""
    body = present(customer_id=customer_id, feature_code=feature_code, value=value, reason=reason)
    return Request("PUT", "/usage", reader(UsageAdjustment), body)


class Usage(Resource[Mode]):
    """`tallybook.usage`."""

    track = operation(track)
    track_batch = operation(track_batch)
    check = operation(check)
    set = operation(set_)


class CustomerUsage(CustomerResource[Mode]):
    """`tallybook.customer(…).usage`."""

    track = customer_operation(track)
    check = customer_operation(check)
    set = customer_operation(set_)
