"""Usage over HTTP: events one at a time and in batches, the check before and the correction after."""

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from tallybook.core import errors
from tallybook.entrypoints import metrics
from tallybook.entrypoints.http.resources import usage_wire
from tallybook.entrypoints.http.resources.usage_wire import Property, UsageBatch, UsageEvent
from tallybook.entrypoints.http.routing import HotCall, Operation
from tallybook.flows import check, correction, simulated_times, usage
from tallybook.flows.usage import Result, Settled, Source
from tallybook.receive import events as receive
from tallybook.receive.model import Event

SINGLE_BYTES_MAX = 16_384
BATCH_BYTES_MAX = 262_144


class TrackUsage(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """A usage event: `value` of a plain feature, or a model with its tokens. Documents the body; `receive` reads it."""

    feature_code: str
    customer_id: str
    value: Annotated[float, msgspec.Meta(ge=0, le=1e9, description="at most 9 decimals; 1 when absent")] | None = None
    event_id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None
    timestamp: str | None = None
    properties: list[Property] | None = None
    model: str | None = None
    input_tokens: Annotated[int, msgspec.Meta(ge=0, le=10**9, description="the whole prompt, cache included")] | None = None
    output_tokens: Annotated[int, msgspec.Meta(ge=0, le=10**9)] | None = None
    cache_read_tokens: Annotated[int, msgspec.Meta(ge=0, le=10**9)] | None = None
    cache_write_tokens: Annotated[int, msgspec.Meta(ge=0, le=10**9)] | None = None
    cache_write_1h_tokens: Annotated[int, msgspec.Meta(ge=0, le=10**9)] | None = msgspec.field(
        name="cacheWrite1hTokens", default=None
    )
    service_tier: str | None = None
    web_search_requests: Annotated[int, msgspec.Meta(ge=0)] | None = None
    input_tokens_include_cache: bool | None = None


class TrackUsageBatch(msgspec.Struct, forbid_unknown_fields=True):
    """Up to 100 events; each is taken or not on its own."""

    events: Annotated[list[TrackUsage], msgspec.Meta(min_length=1, max_length=100)]


class CheckUsage(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """A question: may this be used, and what would it cost."""

    feature_code: str
    customer_id: str
    quantity: Annotated[float, msgspec.Meta(ge=0, le=1e9)] | None = None
    model: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None


class SetUsage(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """What the running period's total of a metered feature is to be."""

    feature_code: str
    customer_id: str
    value: Annotated[float, msgspec.Meta(ge=0, le=1e9)]
    reason: str | None = None


class UsageCheck(msgspec.Struct, rename="camel", kw_only=True):
    """Whether a usage would be taken. Further fields depend on `consumptionModel`: what is left, and what it would cost."""

    allowed: bool
    subscription_status: str
    feature_code: str
    quantity: float
    consumption_model: Literal["metered", "credits", "balance"]
    reason: str | msgspec.UnsetType = msgspec.UNSET
    message: str | msgspec.UnsetType = msgspec.UNSET
    object: str = "usage_check"
    livemode: bool = False


class UsageAdjustment(msgspec.Struct, rename="camel", kw_only=True):
    """A period's total that was set."""

    id: str
    value: float
    previous_value: float
    adjustment: float
    customer_id: str
    reason: str | None
    ts: str
    created_at: str
    feature_code: str
    object: str = "usage_adjustment"
    livemode: bool = False


async def track(call: HotCall) -> UsageEvent:
    """POST /usage/events. A repeat is a 409 that carries the original, or the original answer when the request is a replay."""
    event = receive.parse_one(call.body)
    if call.is_older:
        event = receive.whenever(event)
    call.spend(call.key.id, 1)
    results = await usage.track(call.services, Source(call.tenant, call.idempotency_key), [event])
    [result] = results if call.tenant.livemode else await simulated_times.as_recorded(call.services, results)
    metrics.count_usage([result])
    status, failure = usage_wire.status(result)
    if failure is not None:
        raise failure
    assert isinstance(result, Settled)
    if status == "duplicate":
        raise _duplicate(result)
    return usage_wire.event(result)


def _duplicate(settled: Settled) -> errors.Conflict:
    event = settled.priced.event
    message = f"Event {event.event_id} of customer {event.customer_id} was recorded before; `details` has the original."
    return errors.Conflict("duplicate", message, param="eventId", details=msgspec.to_builtins(usage_wire.event(settled)))


async def track_batch(call: HotCall) -> UsageBatch:
    """POST /usage/events/batch. Always one result per event; an error of one never costs another."""
    events = receive.parse_batch(call.body)
    if call.is_older:
        events = [receive.whenever(event) if isinstance(event, Event) else event for event in events]
    call.spend(call.key.id, len(events))
    results: Sequence[Result] = await usage.track(call.services, Source(call.tenant, call.idempotency_key, is_batch=True), events)
    if not call.tenant.livemode:
        results = await simulated_times.as_recorded(call.services, results)
    metrics.count_usage(results)
    return usage_wire.batch(results, livemode=call.tenant.livemode)


async def check_usage(call: HotCall) -> usage_wire.Json:
    """POST /usage/check."""
    wanted = receive.parse_check(call.body)
    return usage_wire.check(await check.check(call.services, call.tenant, wanted))


async def set_usage(call: HotCall) -> usage_wire.Json:
    """PUT /usage. The till remembers the Idempotency-Key, so it needs no stored response."""
    wanted = receive.parse_set(call.body)
    call.spend(call.key.id, 1)
    corrected = await correction.set_period_total(call.services, call.tenant, wanted, call.idempotency_key)
    return usage_wire.adjustment(corrected, wanted, livemode=call.tenant.livemode)


OPERATIONS = (
    Operation(
        method="POST",
        path="/usage/events",
        id="track-usage",
        summary="Record one usage event, deduct it, and answer with what is left.",
        permission="usage",
        handler=track,
        body=TrackUsage,
        returns=UsageEvent,
        hot=True,
        body_max=SINGLE_BYTES_MAX,
        example={"featureCode": "ai_chat", "customerId": "user_123", "model": "gpt-4o", "inputTokens": 1500, "outputTokens": 300},
    ),
    Operation(
        method="POST",
        path="/usage/events/batch",
        id="track-usage-batch",
        summary="Record up to 100 usage events; each gets its own result.",
        permission="usage",
        handler=track_batch,
        body=TrackUsageBatch,
        returns=UsageBatch,
        hot=True,
        body_max=BATCH_BYTES_MAX,
    ),
    Operation(
        method="POST",
        path="/usage/check",
        id="check-usage-availability",
        summary="Ask whether a customer may use something and what it would cost, without recording anything.",
        permission="usage",
        handler=check_usage,
        body=CheckUsage,
        returns=UsageCheck,
        hot=True,
        reads=True,
        body_max=SINGLE_BYTES_MAX,
    ),
    Operation(
        method="PUT",
        path="/usage",
        id="set-usage",
        summary="Set the running period's total of a metered feature; recorded as a signed adjustment.",
        permission="usage",
        handler=set_usage,
        body=SetUsage,
        returns=UsageAdjustment,
        hot=True,
        body_max=SINGLE_BYTES_MAX,
    ),
)
