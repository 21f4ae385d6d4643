"""What the service answers, as frozen dataclasses; the fields are those of the API in snake_case.

Money: plan prices and invoice amounts in cents; feature unit prices, balances and deducted amounts in rate scale (10000 = $1.00).
Times are ISO 8601 texts in UTC.
"""

from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

T = TypeVar("T")
Amount = int | float


@dataclass(frozen=True, slots=True)
class ListOf(Generic[T]):
    """One page. `next_cursor` asks for the one after."""

    data: list[T]
    has_more: bool = False
    next_cursor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a customer is billed."""

    line1: str
    city: str
    postal_code: str
    country: str
    line2: str | None = None
    state: str | None = None
    region: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCustomer:
    """A customer of a batch to create; `id` is the caller's own."""

    email: str
    id: str | None = None
    full_name: str | None = None
    tax_document: str | None = None
    timezone: str | None = None
    metadata: dict[str, Any] | None = None
    address: Address | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Customer:
    """Who is billed."""

    id: str
    email: str
    external_id: str | None = None
    full_name: str | None = None
    tax_document: str | None = None
    document_type: str | None = None
    timezone: str | None = None
    metadata: dict[str, Any] | None = None
    created_at: str
    updated_at: str
    livemode: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedCustomer:
    """A customer that exists after a batch."""

    id: str
    email: str
    external_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedCustomer:
    """An entry of a batch that made no customer: its place, why, and what was sent."""

    index: int
    error: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerBatch:
    """What became of a batch of customers."""

    successful: list[CreatedCustomer]
    failed: list[FailedCustomer]


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """A capability that plans can include."""

    id: str
    code: str
    name: str
    type: str
    description: str | None = None
    unit_name: str | None = None
    created_at: str
    updated_at: str
    livemode: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Overage:
    """Use beyond what is included. On a balance plan `unit_price` is the fixed price of every unit."""

    enabled: bool | None = None
    unit_price: Amount | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFeature:
    """What a plan says about a feature. `plan_id` is there when it was asked for by itself, code and name inside a plan."""

    feature_id: str
    enabled: bool
    unlimited: bool
    pricing_mode: str
    plan_id: str | None = None
    code: str | None = None
    name: str | None = None
    type: str | None = None
    unit_name: str | None = None
    included_amount: int | None = None
    overage: Overage | None = None
    credits_per_unit: int | None = None
    margin: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanPrice:
    """A price of a plan, in cents; the included balance in rate scale."""

    id: str
    billing_interval: str
    price: int
    is_default: bool
    trial_days: int
    plan_id: str | None = None
    included_balance: Amount | None = None
    included_credits: int | None = None
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A plan with its features and prices."""

    id: str
    name: str
    code: str
    is_public: bool
    is_free: bool
    consumption_model: str | None = None
    description: str | None = None
    block_on_exhaustion: bool | None = None
    sort_order: int = 0
    metadata: dict[str, Any] | None = None
    features: list[PlanFeature] = field(default_factory=list[PlanFeature])
    prices: list[PlanPrice] = field(default_factory=list[PlanPrice])
    created_at: str
    updated_at: str
    livemode: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted:
    """An object that is gone: `deleted`, or for a plan's feature `removed`."""

    id: str
    deleted: bool = False
    removed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key without its secret; `prefix` tells keys apart."""

    id: str
    name: str
    prefix: str
    permissions: dict[str, list[str]] | None = None
    expires_at: str | None = None
    last_used_at: str | None = None
    created_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatedApiKey(ApiKey):
    """A key just made; `api_key` is the only copy of its text."""

    api_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InvoiceLine:
    """A line. `amount` in cents; `unit_amount` of a base price in cents, of usage in rate scale."""

    line_type: str
    description: str
    quantity: Amount
    unit_amount: Amount
    amount: int
    charge_type: str
    feature_name: str | None = None
    included_amount: Amount | None = None
    used_amount: Amount | None = None
    overage_amount: Amount | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoice:
    """An invoice; its lines are there when it was asked for by itself. Amounts in cents."""

    id: str
    customer_id: str
    invoice_number: str
    status: str
    invoice_type: str
    currency: str
    subtotal: int
    total: int
    period_start: str
    period_end: str
    issue_date: str
    due_date: str
    subscription_id: str | None = None
    discount_amount: int = 0
    tax_amount: int = 0
    plan_name: str | None = None
    memo: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])
    line_items: list[InvoiceLine] = field(default_factory=list[InvoiceLine])
    created_at: str
    updated_at: str
    livemode: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TestClockRun:
    """A turn of the clock."""

    id: str
    status: str
    target_time: str
    estimated_deadline_count: int = 0
    completed_deadline_count: int = 0
    failed_deadline_count: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TestClock:
    """What a sandbox's clock shows; `simulated_time` is None as long as it was never turned."""

    is_active: bool
    now: str
    simulated_time: str | None = None
    latest_run: TestClockRun | None = None
