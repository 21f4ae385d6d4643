"""Answers about usage, what is left of it, and what AI models cost; see `models` for the units."""

from dataclasses import dataclass, field
from typing import Any

from tallybook.client.models import Amount


@dataclass(frozen=True, slots=True, kw_only=True)
class Property:
    """One entry of an event's properties."""

    property: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumption:
    """What was deducted and what is left: credits, or money in rate scale (10000 = $1.00)."""

    model: str
    deducted: Amount
    remaining: Amount
    blocked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageEvent:
    """A recorded event. `consumption` is there for plans with credits or a balance."""

    id: str
    feature_code: str
    value: Amount
    customer_id: str
    ts: str
    created_at: str
    event_id: str | None = None
    properties: list[Property] = field(default_factory=list[Property])
    consumption: Consumption | None = None
    livemode: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemError:
    """Why an event of a batch was not recorded."""

    code: str
    message: str
    type: str = "api_error"
    param: str | None = None
    details: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchResult:
    """What became of one event: accepted, duplicate, conflict, rejected, invalid or retry."""

    status: str
    event: UsageEvent | None = None
    error: ItemError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageBatch:
    """One result per event in the order they were sent, and how many there are of each status."""

    results: list[BatchResult]
    accepted: int
    duplicates: int
    conflicts: int
    rejected: int
    invalid: int
    retry: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageCheck:
    """Whether a usage would be taken, and why not. Which other fields are there depends on `consumption_model`."""

    allowed: bool
    feature_code: str
    quantity: Amount
    consumption_model: str
    subscription_status: str
    reason: str | None = None
    message: str | None = None
    current: Amount | None = None
    remaining: Amount | None = None
    included: Amount | None = None
    unlimited: bool | None = None
    overage_enabled: bool | None = None
    overage_unit_price: Amount | None = None
    credits_per_unit: int | None = None
    estimated_credits: Amount | None = None
    plan_credits: Amount | None = None
    purchased_credits: Amount | None = None
    total_credits: Amount | None = None
    unit_price: Amount | None = None
    estimated_amount: Amount | None = None
    current_balance: Amount | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageAdjustment:
    """A period's total that was set."""

    id: str
    value: Amount
    previous_value: Amount
    adjustment: Amount
    customer_id: str
    feature_code: str
    reason: str | None = None
    ts: str
    created_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureAccess:
    """A feature as a customer has it now. `consumption` is there for usage features, `enabled` for boolean ones."""

    code: str
    name: str
    allowed: bool
    type: str
    unit_name: str | None = None
    enabled: bool | None = None
    consumption: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOfSubscription:
    """The plan of a subscription; its base price, in cents, is there when the subscription was asked for by itself."""

    id: str
    name: str
    base_price: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CurrentPeriod:
    """The billing cycle that runs now; of a trial, the whole trial."""

    start: str
    end: str
    days_remaining: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Credits:
    """Credits left: of the plan in this usage period, and purchased ones."""

    remaining: Amount
    included: Amount
    purchased: Amount


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """The balance of this usage period in rate scale (10000 = $1.00); below zero it is overdrawn."""

    remaining: Amount
    included: Amount
    currency: str = "usd"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """A customer's plan. Balance, credits and features are there when it was asked for by itself."""

    id: str
    customer_id: str
    name: str
    status: str
    plan: PlanOfSubscription
    start_date: str
    created_at: str
    updated_at: str
    description: str | None = None
    billing_interval: str | None = None
    trial_ends_at: str | None = None
    current_period: CurrentPeriod | None = None
    cancellation: dict[str, Any] | None = None
    cancel_at_period_end: bool = False
    end_date: str | None = None
    billing_day_of_month: int | None = None
    next_billing_date: str | None = None
    checkout_url: str | None = None
    price_id: str | None = None
    consumption_model: str | None = None
    features: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    credits: Credits | None = None
    balance: Balance | None = None
    livemode: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceAdjustment:
    """A correction that was made, and what there is after it, in the unit of `amount`."""

    amount: int
    new_balance: Amount
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AiModel:
    """A model. `price` is in USD, exact, tokens by the million; None means that it is known and has no token price."""

    id: str
    provider: str
    name: str
    type: str
    context_window: int | None = None
    output_max: int | None = None
    price: dict[str, Any] | None = None
    prices: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    deprecated_at: str | None = None
    removed_at: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """What a request would cost. `cost` and `charge` in rate scale (10000 = $1.00); the `…_usd` texts are exact."""

    model: str
    matched_by: str
    price_id: int
    input_tokens: int
    unit_prices: dict[str, Any]
    margin: int
    cost: Amount
    margin_amount: Amount
    charge: Amount
    cost_usd: str
    charge_usd: str
