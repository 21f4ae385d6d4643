"""What can be bought: features, plans, what a plan says about a feature, and prices.

Amounts: `*_nano` is 1e-9 USD (`included_nano`: 1e-9 of a unit), `*_cents` cents, `*_bps` basis points.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from msgspec import UNSET, UnsetType

FeatureType = Literal["boolean", "usage", "seats", "quota"]
ConsumptionModel = Literal["metered", "credits", "balance"]
PricingMode = Literal["fixed", "ai_model"]
BillingInterval = Literal["weekly", "monthly", "quarterly", "semiannual", "yearly", "one_time"]


@dataclass(frozen=True, slots=True)
class Feature:
    """A capability that plans can include. Its code is what usage is sent for."""

    id: int
    tenant_id: int
    public_id: str
    code: str
    name: str
    type: FeatureType
    description: str | None
    unit_name: str | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan; metered if it has no `consumption_model`. `deleted_at` set: not on offer, kept by its subscriptions."""

    id: int
    tenant_id: int
    public_id: str
    code: str
    name: str
    description: str | None
    consumption_model: ConsumptionModel | None
    is_public: bool
    is_free: bool
    block_on_exhaustion: bool | None
    sort_order: int
    metadata: Mapping[str, Any] | None
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None


@dataclass(frozen=True, slots=True)
class FeatureSettings:
    """What a plan says about a feature."""

    enabled: bool = True
    included_units: int = 0
    unlimited: bool = False
    overage_enabled: bool = False
    unit_price_nano: int = 0
    credits_per_unit: int | None = None
    pricing_mode: PricingMode = "fixed"
    margin_bps: int | None = None


@dataclass(frozen=True, slots=True)
class FeatureRevision:
    """One entry of the append-only history of a feature on a plan."""

    feature_id: int
    effective_at: datetime
    removed: bool
    settings: FeatureSettings
    id: int = 0


@dataclass(frozen=True, slots=True)
class Edition:
    """What a period begins with, by the row ids of the last revisions: of its plan's features, and of its price if it has one.

    Ids tell before from after where times can't: a test clock stands still, and a period starts on a whole second.
    """

    features: int
    price: int | None


@dataclass(frozen=True, slots=True)
class PlanFeature:
    """A feature as a plan has it now."""

    plan_id: int
    feature: Feature
    settings: FeatureSettings


@dataclass(frozen=True, slots=True)
class FeatureTerms:
    """What holds for a feature in one usage period of a subscription."""

    feature_id: int
    code: str
    name: str
    unit_name: str | None
    type: FeatureType
    enabled: bool
    included_nano: int
    unlimited: bool
    overage_enabled: bool
    unit_price_nano: int
    credits_per_unit: int | None
    pricing_mode: PricingMode
    margin_bps: int | None


@dataclass(frozen=True, slots=True)
class PriceAmounts:
    """What a price charges and grants. A null balance is decided by `rules.granted_balance_nano`."""

    price_cents: int
    trial_days: int = 0
    included_balance_nano: int | None = None
    included_credits: int | None = None


@dataclass(frozen=True, slots=True)
class Price:
    """A price on offer of a plan, as it is now."""

    id: int
    plan_id: int
    public_id: str
    billing_interval: BillingInterval
    is_default: bool
    metadata: Mapping[str, Any]
    created_at: datetime
    updated_at: datetime
    amounts: PriceAmounts


@dataclass(frozen=True, slots=True)
class PriceTerms:
    """What a price charges at one moment, and the balance (nano-USD) and credits it grants a usage period."""

    price_id: int
    public_id: str
    billing_interval: BillingInterval
    price_cents: int
    trial_days: int
    included_balance_nano: int
    included_credits: int


@dataclass(frozen=True, slots=True)
class Contents:
    """What a plan consists of now: its features, and the prices that are not archived, oldest first."""

    features: tuple[PlanFeature, ...]
    prices: tuple[Price, ...]


@dataclass(frozen=True, slots=True)
class NewFeature:
    """What a feature is made from."""

    code: str
    name: str
    type: FeatureType
    description: str | None = None
    unit_name: str | None = None


@dataclass(frozen=True, slots=True)
class FeatureChange:
    """What changes of a feature: UNSET stays as it is, None is removed."""

    name: str | UnsetType = UNSET
    description: str | UnsetType | None = UNSET
    unit_name: str | UnsetType | None = UNSET


@dataclass(frozen=True, slots=True)
class NewPlan:
    """What a plan is made from."""

    code: str
    name: str
    description: str | None = None
    consumption_model: ConsumptionModel | None = None
    is_public: bool = True
    is_free: bool = False
    block_on_exhaustion: bool | None = None
    metadata: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class PlanChange:
    """What changes of a plan: UNSET stays as it is, None is removed."""

    name: str | UnsetType = UNSET
    description: str | UnsetType | None = UNSET
    metadata: Mapping[str, Any] | UnsetType | None = UNSET
    is_public: bool | UnsetType = UNSET


@dataclass(frozen=True, slots=True)
class SettingsChange:
    """What a caller says about a feature on a plan: UNSET stays as it is, or is the default of `FeatureSettings`."""

    enabled: bool | UnsetType = UNSET
    included_units: int | UnsetType = UNSET
    unlimited: bool | UnsetType = UNSET
    overage_enabled: bool | UnsetType = UNSET
    unit_price_nano: int | UnsetType = UNSET
    credits_per_unit: int | UnsetType | None = UNSET
    pricing_mode: PricingMode | UnsetType = UNSET
    margin_bps: int | UnsetType | None = UNSET


@dataclass(frozen=True, slots=True)
class NewPrice:
    """What a price is made from."""

    billing_interval: BillingInterval
    amounts: PriceAmounts
    is_default: bool = False
    metadata: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class PriceChange:
    """What changes of a price: UNSET stays as it is. `metadata` is merged into what is there, key by key."""

    price_cents: int | UnsetType = UNSET
    trial_days: int | UnsetType = UNSET
    included_balance_nano: int | UnsetType | None = UNSET
    included_credits: int | UnsetType | None = UNSET
    is_default: bool | UnsetType = UNSET
    metadata: Mapping[str, Any] | UnsetType = UNSET
