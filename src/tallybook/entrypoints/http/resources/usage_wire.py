"""How settled usage looks on the wire."""

from collections.abc import Sequence

from tallybook.charge.commands import Outcome
from tallybook.core import clock, errors, ids, money
from tallybook.flows import usage
from tallybook.flows.check import Answer
from tallybook.flows.correction import Correction
from tallybook.flows.price_event import PricedEvent
from tallybook.flows.usage import Settled
from tallybook.receive.model import PeriodTotal
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
        "ts": accepted_at if _occurs_on_arrival(priced) else clock.iso(clock.from_ms(priced.charge.record.occurred_at_ms)),
        "createdAt": accepted_at,
        "properties": [{"property": name, "value": value} for name, value in (priced.event.properties or {}).items()],
        "object": "usage_event",
        "livemode": priced.terms.tenant.livemode,
    }
    if priced.subscription.consumption_model is not ConsumptionModel.METERED:
        wire["consumption"] = _consumption(settled)
    return wire


def _occurs_on_arrival(priced: PricedEvent) -> bool:
    """Whether the event has neither a time of its own nor the test clock's."""
    return priced.event.occurred_at_ms is None and priced.terms.simulated_at is None


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
    named, failure = status(result)
    if failure is not None:
        return {"status": named, "error": error(failure)}
    assert isinstance(result, Settled)
    return {"status": named, "event": event(result)}


def status(result: usage.Result) -> tuple[str, errors.TallybookError | None]:
    """What became of an event, as a batch names it, and why it was not recorded, if it was not.

    An event counts as accepted in the request that recorded it: now, or when it was first delivered with the same key.
    """
    failure = result if isinstance(result, errors.TallybookError) else usage.refusal(result)
    if failure is not None:
        return _failed_status(failure), failure
    assert isinstance(result, Settled)
    receipt = result.receipt
    accepted = not result.repeated and (receipt.outcome is Outcome.ACCEPTED or receipt.same_request)
    return ("accepted" if accepted else "duplicate"), None


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


def check(answer: Answer) -> Json:
    """The answer to a usage check, by the plan's consumption model."""
    standing, feature = answer.standing, answer.feature
    wire: Json = {
        "allowed": answer.allowed,
        "subscriptionStatus": standing.subscription.status,
        "featureCode": feature.code,
        "quantity": money.units(answer.take.quantity_nano),
        "consumptionModel": standing.subscription.consumption_model.value,
        **_CHECKS[standing.subscription.consumption_model](answer),
        "object": "usage_check",
        "livemode": standing.terms.tenant.livemode,
    }
    if not answer.allowed:
        code, message = usage.EXHAUSTED[standing.subscription.consumption_model]
        wire |= {"reason": code, "message": message + "."}
    return wire


def _check_metered(answer: Answer) -> Json:
    standing, feature = answer.standing, answer.feature
    return {
        "current": money.units(standing.feature_used(feature)),
        "remaining": money.units(max(standing.feature_left(feature), 0)),
        "unlimited": feature.unlimited,
        "included": money.units(feature.included_nano),
        "overageEnabled": feature.overage_enabled and standing.period.overage_allowed,
        "overageUnitPrice": money.rate(feature.unit_price_nano) if feature.overage_enabled else None,
    }


def _check_credits(answer: Answer) -> Json:
    standing = answer.standing
    plan, purchased = standing.credits_left(), standing.purchased_credits_left()
    return {
        "creditsPerUnit": answer.feature.credits_per_unit or 0,
        "estimatedCredits": money.units(answer.take.amount),
        "planCredits": money.units(plan),
        "purchasedCredits": money.units(purchased),
        "totalCredits": money.units(plan + purchased),
    }


def _check_balance(answer: Answer) -> Json:
    return {
        "unitPrice": money.rate(answer.feature.unit_price_nano),
        "estimatedAmount": money.rate(answer.take.amount),
        "currentBalance": money.rate(answer.standing.balance_left()),
        "blockOnExhaustion": answer.take.blocks,
        "currency": "usd",
    }


_CHECKS = {
    ConsumptionModel.METERED: _check_metered,
    ConsumptionModel.CREDITS: _check_credits,
    ConsumptionModel.BALANCE: _check_balance,
}


def adjustment(corrected: Correction, wanted: PeriodTotal, *, livemode: bool) -> Json:
    """A period's total that was set."""
    at = clock.iso(corrected.at)
    return {
        "id": corrected.id,
        "value": money.units(corrected.total_nano),
        "previousValue": money.units(corrected.previous_nano),
        "adjustment": money.units(corrected.total_nano - corrected.previous_nano),
        "customerId": corrected.customer_id,
        "reason": wanted.reason,
        "ts": at,
        "createdAt": at,
        "featureCode": wanted.feature_code,
        "object": "usage_adjustment",
        "livemode": livemode,
    }
