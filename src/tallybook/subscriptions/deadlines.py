"""What a processed deadline is told as in a run of the test clock, in the wire's words. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from tallybook.core import clock
from tallybook.subscriptions.model import Subscription, UsagePeriod


@dataclass(frozen=True, slots=True)
class Billed:
    """What is told of an invoice."""

    public_id: str
    number: str
    total_cents: int


def processed(period: UsagePeriod, after: Subscription, invoice: Billed | None) -> Mapping[str, str | None]:
    """A period that was closed: what became of the subscription, and what was billed."""
    billed = None if invoice is None else f"{invoice.number}: {invoice.total_cents} cents"
    return _item(period, after, "completed") | {
        "outcome": _outcome(period, after, billed=invoice is not None),
        "detail": billed or "nothing to bill",
        "invoiceId": None if invoice is None else invoice.public_id,
        "invoiceNumber": None if invoice is None else invoice.number,
    }


def failed(period: UsagePeriod, subscription: Subscription, error: Exception) -> Mapping[str, str | None]:
    """A period that could not be closed."""
    return _item(period, subscription, "failed") | {"error": f"{type(error).__name__}: {error}"}


def _item(period: UsagePeriod, subscription: Subscription, status: str) -> dict[str, str | None]:
    return {
        "kind": "billing_cycle",
        "status": status,
        "dueAt": clock.iso(period.ends_at),
        "subscriptionId": subscription.public_id,
        "customerName": subscription.customer_name,
        "invoiceNumber": None,
        "invoiceId": None,
        "outcome": None,
        "detail": None,
        "error": None,
    }


def _outcome(period: UsagePeriod, after: Subscription, *, billed: bool) -> str:
    if after.status == "canceled":
        return "canceled"
    if period.ends_at == after.trial_ends_at:
        return "trial_ended"
    return "invoiced" if billed else "usage_reset"
