"""Plans and their prices. What a plan says about a feature is in `features`."""

from functools import partial
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from tallybook.catalog import actions, model, store
from tallybook.core import clock, cursors, errors, money
from tallybook.entrypoints.http.resources.features import (
    CatalogQuery,
    Description,
    Name,
    PlanFeatureItem,
    Reference,
    item_of_plan,
    scaled,
)
from tallybook.entrypoints.http.routing import Call, Operation, Page

Code = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_-]+(?!\n)$")]
Metadata = Annotated[dict[str, Any], msgspec.Meta(max_length=50)]
Cents = Annotated[int, msgspec.Meta(ge=0, le=10_000_000_000, description="cents")]
TrialDays = Annotated[int, msgspec.Meta(ge=0, le=730)]
Balance = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000_000, description="10000 = $1.00")]
Credits = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)]


class _Request(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
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
    description: Description | UnsetType | None = UNSET
    metadata: Metadata | UnsetType | None = UNSET
    is_public: bool | UnsetType = UNSET


class SetVisibility(_Request, kw_only=True):
    """Whether the plan is listed publicly."""

    is_public: bool


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
    included_balance: Balance | UnsetType | None = UNSET
    included_credits: Credits | UnsetType | None = UNSET
    metadata: Metadata | UnsetType = UNSET
    market_prices: list[dict[str, Any]] | None = None


class PlansQuery(CatalogQuery, kw_only=True):
    """Which plans to list."""

    include_private: bool = False


class _PriceFields(msgspec.Struct, rename="camel", kw_only=True):
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
    market_prices: list[Any] = []


class PlanPrice(_PriceFields, kw_only=True):
    """A price of a plan."""

    object: str = "plan_price"
    plan_id: str
    created_at: str
    updated_at: str


class PlanPriceItem(_PriceFields, kw_only=True):
    """A price as its plan shows it."""

    regional_prices: list[Any] = []


class Plan(msgspec.Struct, rename="camel", kw_only=True):
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
    features: list[PlanFeatureItem]
    prices: list[PlanPriceItem]
    exchange_rates: list[Any] = []


class Deleted(msgspec.Struct, rename="camel", kw_only=True):
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
    change = model.PlanChange(name=body.name, description=body.description, metadata=body.metadata, is_public=body.is_public)
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


async def add_price(call: Call) -> PlanPrice:
    """Add a price to a plan."""
    body: AddPrice = call.body
    _refuse_unsupported(inheritsFromPriceId=body.inherits_from_price_id, marketPrices=body.market_prices)
    if body.price is None:
        raise errors.invalid("price", "price is required.")
    amounts = model.PriceAmounts(
        body.price, body.trial_days, scaled(body.included_balance, money.NANO_PER_RATE), body.included_credits
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
        included_balance_nano=scaled(body.included_balance, money.NANO_PER_RATE),
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


async def _shown(call: Call, plan: model.Plan) -> Plan:
    contents = await store.contents(call.connection, [plan])
    return _plan(plan, contents[plan.id])


def _plan(plan: model.Plan, contents: model.Contents) -> Plan:
    return Plan(
        id=plan.public_id,
        name=plan.name,
        code=plan.code,
        description=plan.description,
        consumption_model=plan.consumption_model,
        is_public=plan.is_public,
        is_free=plan.is_free,
        block_on_exhaustion=plan.block_on_exhaustion,
        sort_order=plan.sort_order,
        metadata=None if plan.metadata is None else dict(plan.metadata),
        created_at=clock.iso(plan.created_at),
        updated_at=clock.iso(plan.updated_at),
        features=[item_of_plan(included) for included in contents.features],
        prices=[PlanPriceItem(**_price_fields(price)) for price in contents.prices],
    )


def _plan_price(plan: model.Plan, price: model.Price) -> PlanPrice:
    return PlanPrice(
        plan_id=plan.public_id,
        created_at=clock.iso(price.created_at),
        updated_at=clock.iso(price.updated_at),
        **_price_fields(price),
    )


def _price_fields(price: model.Price) -> dict[str, Any]:
    amounts = price.amounts
    return {
        "id": price.public_id,
        "billing_interval": price.billing_interval,
        "price": amounts.price_cents,
        "is_default": price.is_default,
        "trial_days": amounts.trial_days,
        "included_balance": None if amounts.included_balance_nano is None else money.rate(amounts.included_balance_nano),
        "included_credits": amounts.included_credits,
        "metadata": dict(price.metadata),
    }


_operation = partial(Operation, permission="plan")

OPERATIONS = (
    _operation(
        method="POST",
        path="/plans",
        id="create-plan",
        summary="Add a plan.",
        handler=create,
        body=CreatePlan,
        returns=Plan,
        example={"name": "Pro", "code": "pro", "consumptionModel": "balance", "blockOnExhaustion": True},
    ),
    _operation(method="GET", path="/plans/{id}", id="get-plan", summary="Get a plan by id or code.", handler=get, returns=Plan),
    _operation(
        method="GET",
        path="/plans",
        id="list-plans",
        summary="List the plans on offer, newest first; private ones on request.",
        handler=list_all,
        query=PlansQuery,
        returns=Plan,
        is_list=True,
    ),
    _operation(
        method="PATCH",
        path="/plans/{id}",
        id="update-plan",
        summary="Change the name, description, visibility or metadata of a plan.",
        handler=update,
        body=UpdatePlan,
        returns=Plan,
        example={"description": "For growing teams"},
    ),
    _operation(
        method="PUT",
        path="/plans/{id}/visibility",
        id="set-plan-visibility",
        summary="List a plan publicly, or not.",
        handler=set_visibility,
        body=SetVisibility,
        returns=Plan,
        example={"isPublic": False},
    ),
    _operation(
        method="DELETE",
        path="/plans/{id}",
        id="delete-plan",
        summary="Take a plan off offer; subscriptions keep it.",
        handler=delete,
        returns=Deleted,
    ),
    _operation(
        method="POST",
        path="/plans/{id}/prices",
        id="add-plan-price",
        summary="Add a price to a plan; the first one is the default.",
        handler=add_price,
        body=AddPrice,
        returns=PlanPrice,
        example={"billingInterval": "monthly", "price": 2900},
    ),
    _operation(
        method="PATCH",
        path="/plans/{id}/prices/{priceId}",
        id="update-plan-price",
        summary="Change a price: at once for new subscriptions, at renewal for running ones.",
        handler=update_price,
        body=UpdatePrice,
        returns=PlanPrice,
        example={"price": 3900},
    ),
    _operation(
        method="PUT",
        path="/plans/{id}/prices/{priceId}/default",
        id="set-default-plan-price",
        summary="Make a price the one that new subscriptions get if they choose none.",
        handler=set_default_price,
        returns=PlanPrice,
    ),
    _operation(
        method="DELETE",
        path="/plans/{id}/prices/{priceId}",
        id="delete-plan-price",
        summary="Take a price off offer; subscriptions bound to it keep it.",
        handler=delete_price,
        returns=Deleted,
    ),
)
