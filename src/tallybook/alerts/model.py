"""Thresholds, and where a customer stands. Frozen values; amounts are 1e-9 of the pool's unit, a percent 1e-9 of a percent."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Literal

from tallybook.core.pools import PoolName
from tallybook.core.tenant import Tenant

Metric = Literal["balance", "spend", "usage"]
Unit = Literal["amount", "credits", "units", "percent"]


@dataclass(frozen=True, slots=True)
class AlertSettings:
    """What an alert looks at. `customer_id` None: every customer; `feature_id` is that of usage."""

    name: str
    metric: Metric
    unit: Unit
    threshold_nano: int
    customer_id: int | None
    feature_id: int | None
    is_active: bool = True


@dataclass(frozen=True, slots=True)
class Alert:
    """A threshold that a tenant set, with the names of what it points at."""

    id: int
    tenant_id: int
    public_id: str
    settings: AlertSettings
    customer: str | None
    feature_code: str | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Watch:
    """What is remembered of a pool: its corrections when last looked at, what the last refill left, and what was announced."""

    adjusted: int = 0
    refilled_to: int | None = None
    told_low: bool = False
    told_depleted: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """An open pool as the book has it, and what is remembered of it. `watch` None: nothing was ever noted."""

    tenant: Tenant
    customer_id: int
    pool: str
    name: PoolName
    opening: int
    charged: int
    adjusted: int
    balance: int
    watch: Watch | None


class Signal(Enum):
    """What there is to tell of a pool."""

    LOW = "low"
    DEPLETED = "depleted"


@dataclass(frozen=True, slots=True)
class Reading:
    """What an alert reads of a customer. Percents are of `base`. `scope` names what it is of, and for which period."""

    subscription_id: int
    scope: str
    period_start_s: int
    value: int
    base: int = 0


@dataclass(frozen=True, slots=True)
class Crossing:
    """That an alert was announced for a customer and scope, and is not armed again."""

    alert_id: int
    customer_id: int
    scope: str
