"""How settled usage looks on the wire."""

from collections.abc import Sequence

from tallybook.charge.commands import Outcome
from tallybook.core import clock, errors, ids, money
from tallybook.flows import usage
from tallybook.flows.usage import Settled
from tallybook.subscriptions.terms import ConsumptionModel

Json = dict[str, object]
_COUNTS = {
    "accepted": "accepted",
    "duplicate": "duplicates",
    "conflict": "conflicts",
    "rejected": "rejected",
    "invalid": "invalid",
    "retry": "retry",
}
"""The counter of a batch response by the status of an item."""


def event(settled: Settled) -> Json:
    """One recorded event as the API shows it, with the original's amounts for a repeat."""
    priced, receipt = settled.priced, settled.receipt
    accepted_at = clock.iso(clock.from_ms(receipt.accepted_at_ms))
    wire: Json = {
        "id": ids.event_public_id(priced.charge.record.digest),
        "featureCode": priced.feature.code,
        "value": money.units(priced.charge.record.quantity_nano),
        "customerId": priced.terms.customer_public_id,
        "eventId": priced.event.event_id,
        "ts": accepted_at if priced.event.occurred_at_ms is None else clock.iso(clock.from_ms(priced.event.occurred_at_ms)),
        "createdAt": accepted_at,
        "properties": [{"property": name, "value": value} for name, value in (priced.event.properties or {}).items()],
        "object": "usage_event",
        "livemode": priced.terms.tenant.livemode,
    }
    if priced.subscription.consumption_model is not ConsumptionModel.METERED:
        wire["consumption"] = _consumption(settled)
    return wire


def _consumption(settled: Settled) -> Json:
    """What was deducted and what is left: credits, or money in rate scale (10000 = $1.00)."""
    model, receipt = settled.priced.subscription.consumption_model, settled.receipt
    left = receipt.left + receipt.spare_left
    in_scale = money.rate if model is ConsumptionModel.BALANCE else money.units
    return {
        "model": model.value,
        "deducted": in_scale(-receipt.amount),
        "remaining": in_scale(left),
        "blocked": left <= 0 and settled.priced.charge.blocks,
    }


def batch(results: Sequence[usage.Result], *, livemode: bool) -> Json:
    """All results of a batch, same length and order, and how many there are of each status."""
    items = [_item(result) for result in results]
    counts = dict.fromkeys(_COUNTS.values(), 0)
    for item in items:
        counts[_COUNTS[str(item["status"])]] += 1
    return {"object": "usage_batch", "livemode": livemode, "results": items, **counts}


def _item(result: usage.Result) -> Json:
    failure = result if isinstance(result, errors.TallybookError) else usage.refusal(result)
    if failure is not None:
        return {"status": _failed_status(failure), "error": error(failure)}
    assert isinstance(result, Settled)
    return {"status": "accepted" if is_accepted(result) else "duplicate", "event": event(result)}


def is_accepted(settled: Settled) -> bool:
    """Whether this request is the one that recorded the event: now, or when it was first delivered with the same key."""
    receipt = settled.receipt
    return not settled.repeated and (receipt.outcome is Outcome.ACCEPTED or receipt.same_request)


def _failed_status(failure: errors.TallybookError) -> str:
    if isinstance(failure, errors.Unavailable | errors.RateLimited):
        return "retry"
    if isinstance(failure, errors.BillingError):
        return "rejected"
    return "conflict" if failure.code in ("conflict", "idempotency_key_mismatch") else "invalid"


def error(failure: errors.TallybookError) -> Json:
    """An error inside a batch item; the same fields as the error of a whole request."""
    return {
        "type": failure.type,
        "code": failure.code,
        "message": failure.message,
        "param": failure.param,
        "details": failure.details,
    }
