"""How settled usage looks on the wire."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from tallybook.charge.commands import Outcome, Receipt
from tallybook.core import clock, errors, ids, money
from tallybook.flows import usage
from tallybook.flows.check import Answer
from tallybook.flows.correction import Correction
from tallybook.flows.usage import Settled
from tallybook.receive.model import PeriodTotal
from tallybook.subscriptions.terms import ConsumptionModel, Tariff

Json = dict[str, object]
_ACCEPTED, _BALANCE, _CREDITS = Outcome.ACCEPTED, ConsumptionModel.BALANCE, ConsumptionModel.CREDITS
Status = Literal["accepted", "duplicate", "conflict", "rejected", "invalid", "retry"]


class Property(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One entry of an event's properties."""

    property: str
    value: str


class Consumption(msgspec.Struct, rename="camel", gc=False):
    """What was deducted and what is left: credits, or money in rate scale (10000 = $1.00).

    Credits are exact: part of a unit deducts part of its credits.
    """

    model: Literal["credits", "balance"]
    deducted: float
    remaining: float
    blocked: bool


class UsageEvent(msgspec.Struct, rename="camel", gc=False):
    """A recorded event."""

    id: str
    feature_code: str
    value: float
    customer_id: str
    event_id: str | None
    ts: str
    created_at: str
    properties: list[Property]
    consumption: Consumption | UnsetType = UNSET
    object: str = "usage_event"
    livemode: bool = False


class BatchError(msgspec.Struct, gc=False):
    """Why an event of a batch was not taken."""

    type: str
    code: str
    message: str
    param: str | None
    details: Any


class BatchResult(msgspec.Struct, omit_defaults=True, gc=False):
    """What became of one event of a batch."""

    status: Status
    event: UsageEvent | None = None
    error: BatchError | None = None


class UsageBatch(msgspec.Struct, rename="camel", kw_only=True):
    """One result per event, in the order they were sent, and how many there are of each kind."""

    results: list[BatchResult]
    accepted: int
    duplicates: int
    conflicts: int
    rejected: int
    invalid: int
    retry: int
    object: str = "usage_batch"
    livemode: bool = False


def event(settled: Settled) -> UsageEvent:
    """One recorded event as the API shows it, with the original's amounts for a repeat."""
    priced, receipt = settled.priced, settled.receipt
    sent, tariff, record = priced.event, priced.tariff, priced.charge.record
    accepted_at = clock.iso_ms(receipt.accepted_at_ms)
    is_undated = sent.occurred_at_ms is None and tariff.simulated_at is None
    return UsageEvent(
        ids.event_public_id(record.digest),
        tariff.feature.code,
        money.units(record.quantity_nano),
        tariff.customer_public_id,
        sent.event_id,
        accepted_at if is_undated else clock.iso_ms(record.occurred_at_ms),
        accepted_at,
        [Property(name, value) for name, value in sent.properties.items()] if sent.properties else [],
        _consumption(receipt, tariff),
        livemode=tariff.livemode,
    )


def _consumption(receipt: Receipt, tariff: Tariff) -> Consumption | UnsetType:
    """What was deducted and what is left: credits, or money in rate scale (10000 = $1.00). A metered plan has neither."""
    model, left = tariff.consumption_model, receipt.left + receipt.spare_left
    if model is _BALANCE:
        return Consumption("balance", money.rate(-receipt.amount), money.rate(left), left <= 0 and tariff.blocks)
    if model is _CREDITS:
        return Consumption("credits", money.units(-receipt.amount), money.units(left), left <= 0 and tariff.blocks)
    return UNSET


def batch(results: Sequence[usage.Result], *, livemode: bool) -> UsageBatch:
    """All results of a batch, same length and order, and how many there are of each status."""
    items = [_item(result) for result in results]
    counts = Counter([item.status for item in items])
    return UsageBatch(
        results=items,
        accepted=counts["accepted"],
        duplicates=counts["duplicate"],
        conflicts=counts["conflict"],
        rejected=counts["rejected"],
        invalid=counts["invalid"],
        retry=counts["retry"],
        livemode=livemode,
    )


def _item(result: usage.Result) -> BatchResult:
    if isinstance(result, Settled) and result.receipt.outcome is _ACCEPTED and not result.repeated:
        return BatchResult("accepted", event(result))
    named, failure = status(result)
    if failure is not None:
        return BatchResult(named, error=error(failure))
    assert isinstance(result, Settled)
    return BatchResult(named, event(result))


def status(result: usage.Result) -> tuple[Status, errors.TallybookError | None]:
    """What became of an event, as a batch names it, and why it was not recorded, if it was not.

    An event counts as accepted in the request that recorded it: now, or when it was first delivered with the same key.
    """
    failure = result if isinstance(result, errors.TallybookError) else usage.refusal(result)
    if failure is not None:
        return _failed_status(failure), failure
    assert isinstance(result, Settled)
    receipt = result.receipt
    accepted = not result.repeated and (receipt.outcome is _ACCEPTED or receipt.same_request)
    return ("accepted" if accepted else "duplicate"), None


def _failed_status(failure: errors.TallybookError) -> Status:
    if isinstance(failure, errors.Unavailable | errors.RateLimited):
        return "retry"
    if isinstance(failure, errors.BillingError):
        return "rejected"
    return "conflict" if failure.code in ("conflict", "idempotency_key_mismatch") else "invalid"


def error(failure: errors.TallybookError) -> BatchError:
    """An error inside a batch item; the same fields as the error of a whole request."""
    return BatchError(failure.type, failure.code, failure.message, failure.param, failure.details)


def check(answer: Answer) -> Json:
    """The answer to a usage check, by the plan's consumption model."""
    standing, feature = answer.standing, answer.tariff.feature
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
    standing, feature = answer.standing, answer.tariff.feature
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
        "creditsPerUnit": answer.tariff.feature.credits_per_unit or 0,
        "estimatedCredits": money.units(answer.take.amount),
        "planCredits": money.units(plan),
        "purchasedCredits": money.units(purchased),
        "totalCredits": money.units(plan + purchased),
    }


def _check_balance(answer: Answer) -> Json:
    return {
        "unitPrice": money.rate(answer.tariff.feature.unit_price_nano),
        "estimatedAmount": money.rate(answer.take.amount),
        "currentBalance": money.rate(answer.standing.balance_left()),
        "blockOnExhaustion": answer.tariff.blocks,
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
