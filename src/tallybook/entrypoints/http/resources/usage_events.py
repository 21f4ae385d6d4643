"""Single usage events, after they were recorded: look at one, take one back."""

from typing import Annotated

import msgspec

from tallybook.core import clock, ids, money, pools
from tallybook.core.pools import PoolKind
from tallybook.entrypoints.http.resources.usage_wire import Property
from tallybook.entrypoints.http.routing import Call, Operation
from tallybook.flows import booked_events, void
from tallybook.rollup import events
from tallybook.rollup.events import Booked, Names

Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=500, description="why; it is kept with the event")]


class VoidUsageEvent(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Why an event is taken back."""

    reason: Reason


class Deduction(msgspec.Struct, rename="camel", kw_only=True):
    """What the event took, and what its answer said was left: credits, or money in rate scale (10000 = $1.00)."""

    model: str
    deducted: int | float
    remaining: int | float


class EventVoid(msgspec.Struct, rename="camel", kw_only=True):
    """That an event was taken back: why and when."""

    reason: str | None
    voided_at: str


class RecordedUsageEvent(msgspec.Struct, rename="camel", kw_only=True):
    """A usage event in the books. `periodStart` is of the period that pays.

    `belongsTo` is when late usage of a closed period happened; `void` is null while the event counts.
    """

    object: str = "usage_event"
    id: str
    feature_code: str
    value: int | float
    customer_id: str
    event_id: str | None
    ts: str
    created_at: str
    properties: list[Property]
    period_start: str
    belongs_to: str | None
    model: str | None
    consumption: Deduction | None
    void: EventVoid | None


async def get(call: Call) -> RecordedUsageEvent:
    """A usage event."""
    event = await booked_events.find(call.services, call.connection, call.tenant, call.path["id"])
    taken_back = await booked_events.void_of(call.services, call.connection, event)
    shown = (
        None if taken_back is None else EventVoid(reason=taken_back.record.reason, voided_at=clock.iso(taken_back.accepted_at))
    )
    return _wire(event, await events.names(call.connection, event), shown)


async def void_event(call: Call) -> RecordedUsageEvent:
    """A usage event that was taken back, and what it took was given back."""
    body: VoidUsageEvent = call.body
    event = await booked_events.find(call.services, call.connection, call.tenant, call.path["id"])
    names = await events.names(call.connection, event)
    done = await void.void(
        call.services, call.connection, call.tenant, event, names.customer_public_id, body.reason, call.idempotency_key
    )
    shown = EventVoid(reason=done.reason, voided_at=clock.iso(clock.from_ms(done.at_ms)))
    return _wire(event, names, shown)


def _wire(event: Booked, names: Names, taken_back: EventVoid | None) -> RecordedUsageEvent:
    record = event.record
    return RecordedUsageEvent(
        id=ids.event_public_id(record.digest),
        feature_code=names.feature_code,
        value=money.units(record.quantity_nano),
        customer_id=names.customer_public_id,
        event_id=record.event_id,
        ts=clock.iso(clock.from_ms(record.occurred_at_ms)),
        created_at=clock.iso(event.accepted_at),
        properties=[Property(name, value) for name, value in (record.properties or {}).items()],
        period_start=clock.iso(clock.from_ms(record.period_start_s * 1000)),
        belongs_to=clock.iso(clock.from_ms(record.belongs_to_s * 1000)) if record.belongs_to_s else None,
        model=record.model,
        consumption=_deduction(event),
        void=taken_back,
    )


def _deduction(event: Booked) -> Deduction | None:
    kind = pools.parse(event.record.pool).kind
    if kind is PoolKind.FEATURE:
        return None
    in_scale = money.rate if kind is PoolKind.BALANCE else money.units
    return Deduction(
        model="balance" if kind is PoolKind.BALANCE else "credits",
        deducted=in_scale(event.record.amount),
        remaining=in_scale(event.left + event.spare_left),
    )


OPERATIONS = (
    Operation(
        method="GET",
        path="/usage/events/{id}",
        id="get-usage-event",
        summary="Get one recorded usage event, and whether it was taken back.",
        permission="usage",
        handler=get,
        returns=RecordedUsageEvent,
    ),
    Operation(
        method="POST",
        path="/usage/events/{id}/void",
        id="void-usage-event",
        summary="Take one usage event back: it counts no more, and what it took goes back to where it came from.",
        permission="usage",
        handler=void_event,
        body=VoidUsageEvent,
        returns=RecordedUsageEvent,
        example={"reason": "sent for the wrong customer"},
    ),
)
