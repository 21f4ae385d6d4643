"""A customer's subscription to a plan, its usage periods, and runs of the sandbox test clock. Frozen values."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from tallybook.catalog.model import Edition
from tallybook.core.tenant import Tenant

Status = Literal["trialing", "active", "canceled"]
PeriodState = Literal["open", "closing", "closed"]
RunStatus = Literal["pending", "running", "completed", "failed"]


@dataclass(frozen=True, slots=True)
class Period:
    """A stretch of time: the start belongs to it, the end to the next one."""

    starts_at: datetime
    ends_at: datetime

    def __contains__(self, moment: datetime) -> bool:
        return self.starts_at <= moment < self.ends_at

    @property
    def key_s(self) -> int:
        """The Unix second of the start, the name of the period in pools."""
        return int(self.starts_at.timestamp())


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscription with the names of what it points at.

    `billing_interval` is None on a free plan. `anchor_at` is where paid periods are counted from: the start, or the trial's end.
    `canceled_at` is when the cancellation was asked for, `cancel_at` when it takes effect, `ended_at` when it did.
    """

    id: int
    tenant_id: int
    public_id: str
    customer_id: int
    customer_public_id: str
    customer_external_id: str | None
    customer_name: str | None
    plan_id: int
    plan_public_id: str
    plan_name: str
    consumption_model: str | None
    block_on_exhaustion: bool | None
    is_free: bool
    price_id: int | None
    price_public_id: str | None
    billing_interval: str | None
    name: str
    status: Status
    started_at: datetime
    trial_ends_at: datetime | None
    anchor_at: datetime
    cancel_at: datetime | None
    cancel_reason: str | None
    canceled_at: datetime | None
    ended_at: datetime | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class NewSubscription:
    """What a subscription is made from; its schedule is already decided."""

    customer_id: int
    plan_id: int
    price_id: int | None
    name: str
    status: Status
    started_at: datetime
    trial_ends_at: datetime | None
    anchor_at: datetime
    cancel_at: datetime | None


@dataclass(frozen=True, slots=True)
class UsagePeriod:
    """One usage period as the book has it. `closing_seq` is the log sequence that the book must pass before it is closed.

    `edition` is what it began with; a trial's price is the one that its first period began with.
    """

    tenant: Tenant
    subscription_id: int
    customer_id: int
    starts_at: datetime
    ends_at: datetime
    state: PeriodState
    closing_seq: int | None
    edition: Edition

    @property
    def span(self) -> Period:
        """Where it begins and ends."""
        return Period(self.starts_at, self.ends_at)


@dataclass(frozen=True, slots=True)
class ClockRun:
    """One advance of a tenant's test clock. `items` tell what became of each deadline, in the wire's words."""

    id: str
    tenant: Tenant
    status: RunStatus
    started_at_time: datetime
    target_time: datetime
    estimated: int
    completed: int
    failed: int
    items: tuple[Mapping[str, str | None], ...]
    error: str | None
