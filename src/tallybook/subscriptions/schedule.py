"""How a new subscription is scheduled: its start, its trial, its anchor, and when it ends if that is known. Pure."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tallybook.catalog.model import BillingInterval
from tallybook.core import clock
from tallybook.core.errors import FieldError, ValidationError
from tallybook.subscriptions import rules
from tallybook.subscriptions.model import Status

AHEAD_MAX = timedelta(minutes=5)
"""A start this far in the future is taken for a clock that runs ahead, and means now."""
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
"""Nothing starts before this; an older date is a mistake."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a caller asks for. `plan` and `customer` are references; `custom_trial_days` overrides the price's trial."""

    customer: str
    plan: str
    plan_field: str = "planCode"
    billing_interval: BillingInterval | None = None
    price: str | None = None
    name: str | None = None
    start_at: datetime | None = None
    skip_trial: bool = False
    custom_trial_days: int | None = None
    cancel_at_period_end: bool = False


@dataclass(frozen=True, slots=True)
class Schedule:
    """The dates a subscription begins with."""

    status: Status
    started_at: datetime
    trial_ends_at: datetime | None
    anchor_at: datetime
    cancel_at: datetime | None


def check(order: Order, *, is_free: bool, billing_interval: str | None, now: datetime) -> None:
    """Raises ValidationError with everything that contradicts itself or the plan."""
    problems: list[FieldError] = []
    trial_asked = order.custom_trial_days is not None
    if order.start_at is not None and order.start_at > now + AHEAD_MAX:
        message = (
            f"startDate {clock.iso(order.start_at)} is in the future; a subscription that starts later is not supported yet."
        )
        problems.append(FieldError("startDate", message))
    if order.start_at is not None and order.start_at < EARLIEST:
        message = (
            f"startDate {clock.iso(order.start_at)} is too long ago; a subscription starts in {EARLIEST.year} at the earliest."
        )
        problems.append(FieldError("startDate", message))
    if trial_asked and order.skip_trial:
        problems.append(FieldError("customTrialDays", "customTrialDays and skipTrial contradict each other; send one of them."))
    if trial_asked and order.cancel_at_period_end:
        problems.append(FieldError("customTrialDays", "A purchase that ends with its period (cancelAtPeriodEnd) has no trial."))
    if trial_asked and is_free:
        problems.append(FieldError("customTrialDays", "The plan is free: there is nothing to try."))
    if order.cancel_at_period_end and billing_interval not in rules.PERIODS_PER_CYCLE:
        problems.append(
            FieldError("cancelAtPeriodEnd", "cancelAtPeriodEnd needs a recurring price: this plan has no paid period that ends.")
        )
    if problems:
        raise ValidationError(problems)


def decide(order: Order, *, is_free: bool, billing_interval: str | None, trial_days: int, now: datetime) -> Schedule:
    """The dates of a checked order, which starts on a whole second, as its periods are named. `trial_days` is what the price offers."""
    started_at = (now if order.start_at is None else min(order.start_at, now)).replace(microsecond=0)
    trial_ends_at = _trial_end(order, started_at, 0 if is_free else trial_days)
    anchor_at = trial_ends_at or started_at
    cycle = rules.cycle_at(started_at, anchor_at, trial_ends_at, billing_interval, now)
    return Schedule(
        status="trialing" if rules.in_trial(trial_ends_at, now) else "active",
        started_at=started_at,
        trial_ends_at=trial_ends_at,
        anchor_at=anchor_at,
        cancel_at=cycle.ends_at if order.cancel_at_period_end else None,
    )


def _trial_end(order: Order, started_at: datetime, offered_days: int) -> datetime | None:
    if order.skip_trial or order.cancel_at_period_end:
        return None
    days = offered_days if order.custom_trial_days is None else order.custom_trial_days
    return started_at + timedelta(days=days) if days else None
