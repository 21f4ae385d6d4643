"""An invoice, its lines, and the pools they are computed from. Frozen values; `*_nano` is 1e-9 USD or 1e-9 of a unit."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from tallybook.subscriptions.model import Period

InvoiceStatus = Literal["draft", "outstanding", "paid", "void", "uncollectible"]
InvoiceType = Literal["recurring", "overage"]
LineType = Literal["plan_base", "feature_overage", "balance_overage"]
ChargeType = Literal["standard", "advance", "true_up"]
Waiver = Literal["free_plan", "trial", "unlimited", "overage_off"]
"""Why overage of a feature is nobody's to pay."""
Verdict = Literal["billed"] | Waiver


@dataclass(frozen=True, slots=True)
class PoolTotals:
    """What the book says of one pool, in 1e-9 of the pool's unit: granted, taken by usage, signed corrections, left."""

    pool: str
    opening: int
    charged: int
    adjusted: int
    balance: int


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of the overage of a feature's pool, in nano-units, when its period was billed."""

    pool: str
    verdict: Verdict
    overage_nano: int


@dataclass(frozen=True, slots=True)
class BasePrice:
    """A plan's base price that falls due."""

    plan_name: str
    billing_interval: str
    price_cents: int


@dataclass(frozen=True, slots=True)
class Line:
    """One line. `exact_nano` is the amount before it was rounded to cents; the quantities of a balance are nano-USD.

    `pool` names what it bills; None for a base price.
    """

    line_type: LineType
    description: str
    quantity_nano: int
    unit_price_nano: int
    amount_cents: int
    exact_nano: int
    charge_type: ChargeType
    feature_id: int | None = None
    feature_name: str | None = None
    pool: str | None = None
    included_nano: int | None = None
    used_nano: int | None = None
    overage_nano: int | None = None


@dataclass(frozen=True, slots=True)
class LateUsage:
    """Usage that a period pays although it happened in a closed one: `period`, None when that was before any. Signed sums."""

    feature_code: str
    period: Period | None
    events: int
    quantity_nano: int


@dataclass(frozen=True, slots=True)
class Draft:
    """An invoice without a number. `billed_at` is the period boundary it belongs to: one invoice a subscription and boundary."""

    subscription_id: int
    customer_id: int
    plan_name: str
    type: InvoiceType
    billed_at: datetime
    period: Period
    lines: tuple[Line, ...]
    late: tuple[LateUsage, ...] = ()


@dataclass(frozen=True, slots=True)
class Invoice:
    """An issued invoice. It is never changed."""

    id: int
    tenant_id: int
    public_id: str
    number: int
    customer_id: int
    customer_public_id: str
    customer_external_id: str | None
    subscription_id: int | None
    subscription_public_id: str | None
    billed_at: datetime
    type: str
    status: InvoiceStatus
    currency: str
    total_cents: int
    period_start: datetime
    period_end: datetime
    issued_at: datetime
    due_at: datetime
    plan_name: str | None
    metadata: Mapping[str, Any]
    created_at: datetime
    updated_at: datetime

    @property
    def number_text(self) -> str:
        """`INV-000042`, as people see it."""
        return f"INV-{self.number:06d}"
