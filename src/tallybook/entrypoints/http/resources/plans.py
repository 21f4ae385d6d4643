"""Plans, what they say about features, and their prices."""

from functools import partial
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from tallybook.catalog import actions, model, store
from tallybook.core import clock, cursors, errors, money
from tallybook.entrypoints.http.resources.features import CatalogQuery, Description, Name
from tallybook.entrypoints.http.routing import Call, Operation, Page

BPS_PER_PERCENT = 100
Code = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_-]+(?!\n)$")]
Reference = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Metadata = Annotated[dict[str, Any], msgspec.Meta(max_length=50)]
Units = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)]
UnitPrice = Annotated[int, msgspec.Meta(ge=0, le=10_000_000_000, description="10000 = $1.00")]
CreditsPerUnit = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
Margin = Annotated[int, msgspec.Meta(ge=0, le=10_000, description="percent")]
Cents = Annotated[int, msgspec.Meta(ge=0, le=10_000_000_000, description="cents")]
TrialDays = Annotated[int, msgspec.Meta(ge=0, le=730)]
Balance = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000_000, description="10000 = $1.00")]
Credits = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)]


class _Request(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    pass


class _Response(msgspec.Struct, rename="camel", kw_only=True):
    pass


class CreatePlan(_Request, kw_only=True):
    """A plan to create; without `consumptionModel` it is metered. `planGroupId` is not supported yet."""

    name: Name
    code: Code
    description: Description | None = None
    consumption_model: model.ConsumptionModel | None = None
    is_public: bool = True
    is_free: bool = False
    block_on_exhaustion: bool | None = None
    plan_group_id: Reference | None = None
    metadata: Metadata | None = None


class UpdatePlan(_Request, kw_only=True):
    """What to change of a plan; null removes. `metadata` replaces what was there."""

    name: Name | UnsetType = UNSET
    description: Description | None | UnsetType = UNSET
    metadata: Metadata | None | UnsetType = UNSET
    is_public: bool | UnsetType = UNSET


class SetVisibility(_Request, kw_only=True):
    """Whether the plan is listed publicly."""

    is_public: bool


class Overage(_Request, kw_only=True):
    """Use beyond what is included. On a balance plan `unitPrice` is the fixed price of every unit."""

    enabled: bool | UnsetType = UNSET
    unit_price: UnitPrice | UnsetType = UNSET


class UpdatePlanFeature(_Request, kw_only=True):
    """What to change of a feature on a plan. `margin` is Tallybook's own."""

    enabled: bool | UnsetType = UNSET
    included_amount: Units | UnsetType = UNSET
    unlimited: bool | UnsetType = UNSET
    overage: Overage | UnsetType = UNSET
    credits_per_unit: CreditsPerUnit | None | UnsetType = UNSET
    margin: Margin | None | UnsetType = UNSET


class AddPlanFeature(UpdatePlanFeature, kw_only=True):
    """A feature to include in a plan: `feat_…` or its code."""

    feature_id: Reference
    pricing_mode: model.PricingMode | UnsetType = UNSET


class AddPrice(_Request, kw_only=True):
    """A price to add. `marketPrices` and `inheritsFromPriceId` are not supported yet."""

    billing_interval: model.BillingInterval
    price: Cents | None = None
    is_default: bool = False
    trial_days: TrialDays = 0
    included_balance: Balance | None = None
    included_credits: Credits | None = None
    metadata: Metadata | None = None
    market_prices: list[dict[str, Any]] | None = None
    inherits_from_price_id: Reference | None = None


class UpdatePrice(_Request, kw_only=True):
    """What to change of a price. `metadata` is merged key by key. `marketPrices` is not supported yet."""

    price: Cents | UnsetType = UNSET
    is_default: bool | UnsetType = UNSET
    trial_days: TrialDays | UnsetType = UNSET
    included_balance: Balance | None | UnsetType = UNSET
    included_credits: Credits | None | UnsetType = UNSET
    metadata: Metadata | UnsetType = UNSET
    market_prices: list[dict[str, Any]] | None = None


class PlansQuery(CatalogQuery, kw_only=True):
    """Which plans to list."""

    include_private: bool = False


class PlanOverage(_Response, kw_only=True):
    """Use beyond what is included, as a plan shows it."""

    enabled: bool
    model: str | None
    unit_price: int | float | None


class PlanItemFeature(_Response, kw_only=True):
    """A feature as a plan shows it. `featureId`, `creditsPerUnit`, `pricingMode` and `margin` are Tallybook's own."""

    feature_id: str
    code: str
    name: str
    type: model.FeatureType
    unit_name: str | None
    enabled: bool
    included_amount: int | None
    unlimited: bool
    overage: PlanOverage | None
    credits_per_unit: int | None
    pricing_mode: model.PricingMode
    margin: int | None
    regional_prices: list[object] = []


class PlanItemPrice(_Response, kw_only=True):
    """A price as a plan shows it."""

    id: str
    billing_interval: model.BillingInterval
    price: int
    is_default: bool
    trial_days: int
    included_balance: int | float | None
    included_credits: int | None
    offer_id: str | None = None
    inherits_from_price_id: str | None = None
    metadata: dict[str, Any]
    market_prices: list[object] = []
    regional_prices: list[object] = []


class Plan(_Response, kw_only=True):
    """A plan with its features and prices."""

    object: str = "plan"
    id: str
    name: str
    code: str
    description: str | None
    consumption_model: model.ConsumptionModel | None
    is_public: bool
    is_default: bool = False
    is_free: bool
    block_on_exhaustion: bool | None
    sort_order: int
    plan_group_id: str | None = None
    metadata: dict[str, Any] | None
    created_at: str
    updated_at: str
    features: list[PlanItemFeature]
    prices: list[PlanItemPrice]
    exchange_rates: list[object] = []


class PlanFeatureOverage(_Response, kw_only=True):
    """Use beyond what is included."""

    enabled: bool
    unit_price: int | float


class PlanFeature(_Response, kw_only=True):
    """What a plan says about a feature."""

    object: str = "plan_feature"
    plan_id: str
    feature_id: str
    enabled: bool
    included_amount: int
    unlimited: bool
    overage: PlanFeatureOverage
    credits_per_unit: int | None
    pricing_mode: model.PricingMode
    margin: int | None


class RemovedPlanFeature(_Response, kw_only=True):
    """A feature that is no longer on a plan."""

    object: str = "plan_feature"
    id: str
    removed: bool = True


class PlanPrice(_Response, kw_only=True):
    """A price of a plan."""

    object: str = "plan_price"
    id: str
    plan_id: str
    billing_interval: model.BillingInterval
    price: int
    is_default: bool
    trial_days: int
    included_balance: int | float | None
    included_credits: int | None
    offer_id: str | None = None
    inherits_from_price_id: str | None = None
    metadata: dict[str, Any]
    market_prices: list[object] = []
    created_at: str
    updated_at: str


class Deleted(_Response, kw_only=True):
    """A plan or price that is no longer on offer."""

    object: str
    id: str
    deleted: bool = True


async def create(call: Call) -> Plan:
    """Add a plan, without features and prices yet."""
    body: CreatePlan = call.body
    _refuse_unsupported(planGroupId=body.plan_group_id)
    new = model.NewPlan(
        code=body.code,
        name=body.name,
        description=body.description,
        consumption_model=body.consumption_model,
        is_public=body.is_public,
        is_free=body.is_free,
        block_on_exhaustion=body.block_on_exhaustion,
        metadata=body.metadata,
    )
    return await _shown(call, await actions.create_plan(call.connection, call.tenant, call.now, new))


async def get(call: Call) -> Plan:
    """The plan on offer with this id or code."""
    plan = await store.plan_by_reference(call.connection, call.tenant, call.path["id"])
    if plan is None:
        raise actions.plan_not_found(call.path["id"])
    return await _shown(call, plan)


async def list_all(call: Call) -> Page:
    """Plans on offer, newest first."""
    query: PlansQuery = call.query
    before_id = None if query.cursor is None else cursors.decode(query.cursor)
    found = await store.plans_page(
        call.connection, call.tenant, before_id, query.limit + 1, include_private=query.include_private
    )
    page, next_cursor = cursors.cut(found, query.limit, lambda plan: plan.id)
    contents = await store.contents(call.connection, page)
    return Page([_plan(plan, contents[plan.id]) for plan in page], next_cursor)


async def update(call: Call) -> Plan:
    """Change what is given and leave the rest."""
    body: UpdatePlan = call.body
    change = model.PlanChange(
        name=body.name, description=body.description, metadata=body.metadata, is_public=body.is_public
    )
    return await _shown(call, await actions.update_plan(call.connection, call.tenant, call.now, call.path["id"], change))


async def set_visibility(call: Call) -> Plan:
    """List a plan publicly, or not."""
    body: SetVisibility = call.body
    change = model.PlanChange(is_public=body.is_public)
    return await _shown(call, await actions.update_plan(call.connection, call.tenant, call.now, call.path["id"], change))


async def delete(call: Call) -> Deleted:
    """Take a plan off offer."""
    plan = await actions.delete_plan(call.connection, call.tenant, call.now, call.path["id"])
    return Deleted(object="plan", id=plan.public_id)


async def add_feature(call: Call) -> PlanFeature:
    """Include a feature in a plan."""
    body: AddPlanFeature = call.body
    change = _change(body, body.pricing_mode)
    path = call.path["id"], body.feature_id
    return _plan_feature(*await actions.add_plan_feature(call.connection, call.tenant, call.now, *path, change))


async def update_feature(call: Call) -> PlanFeature:
    """Change what a plan says about a feature."""
    path = call.path["id"], call.path["featureId"]
    change = _change(call.body, UNSET)
    return _plan_feature(*await actions.update_plan_feature(call.connection, call.tenant, call.now, *path, change))


async def remove_feature(call: Call) -> RemovedPlanFeature:
    """Take a feature off a plan."""
    path = call.path["id"], call.path["featureId"]
    removed = await actions.remove_plan_feature(call.connection, call.tenant, call.now, *path)
    return RemovedPlanFeature(id=removed.feature.public_id)


async def add_price(call: Call) -> PlanPrice:
    """Add a price to a plan."""
    body: AddPrice = call.body
    _refuse_unsupported(inheritsFromPriceId=body.inherits_from_price_id, marketPrices=body.market_prices)
    if body.price is None:
        raise errors.invalid("price", "price is required.")
    amounts = model.PriceAmounts(
        body.price, body.trial_days, _times(body.included_balance, money.NANO_PER_RATE), body.included_credits
    )
    new = model.NewPrice(body.billing_interval, amounts, is_default=body.is_default, metadata=body.metadata)
    return _plan_price(*await actions.add_price(call.connection, call.tenant, call.now, call.path["id"], new))


async def update_price(call: Call) -> PlanPrice:
    """Change what a price charges and grants."""
    body: UpdatePrice = call.body
    _refuse_unsupported(marketPrices=body.market_prices)
    change = model.PriceChange(
        price_cents=body.price,
        trial_days=body.trial_days,
        included_balance_nano=_times(body.included_balance, money.NANO_PER_RATE),
        included_credits=body.included_credits,
        is_default=body.is_default,
        metadata=body.metadata,
    )
    return await _update_price(call, change)


async def set_default_price(call: Call) -> PlanPrice:
    """Make a price the one that new subscriptions get if they choose none."""
    return await _update_price(call, model.PriceChange(is_default=True))


async def delete_price(call: Call) -> Deleted:
    """Take a price off offer."""
    price = await actions.delete_price(call.connection, call.tenant, call.now, call.path["id"], call.path["priceId"])
    return Deleted(object="plan_price", id=price.public_id)


async def _update_price(call: Call, change: model.PriceChange) -> PlanPrice:
    path = call.path["id"], call.path["priceId"]
    return _plan_price(*await actions.update_price(call.connection, call.tenant, call.now, *path, change))


def _refuse_unsupported(**fields: object) -> None:
    for name, value in fields.items():
        if value:
            raise errors.invalid(name, f"{name} is not supported yet; leave it out.")


def _change(body: UpdatePlanFeature, pricing_mode: model.PricingMode | UnsetType) -> model.SettingsChange:
    overage = body.overage if isinstance(body.overage, Overage) else Overage()
    return model.SettingsChange(
        enabled=body.enabled,
        included_units=body.included_amount,
        unlimited=body.unlimited,
        overage_enabled=overage.enabled,
        unit_price_nano=UNSET if overage.unit_price is UNSET else overage.unit_price * money.NANO_PER_RATE,
        credits_per_unit=body.credits_per_unit,
        pricing_mode=pricing_mode,
        margin_bps=_times(body.margin, BPS_PER_PERCENT),
    )


def _times(value: int | None | UnsetType, factor: int) -> Any:
    return value * factor if isinstance(value, int) else value
