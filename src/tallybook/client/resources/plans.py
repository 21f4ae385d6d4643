"""Plans, their prices (cents) and the features they include (unit prices and balances in rate scale, 10000 = $1.00)."""

from collections.abc import Mapping
from typing import Any, Literal

from tallybook.client.decoding import reader
from tallybook.client.models import Amount, Deleted, ListOf, Overage, Plan, PlanFeature, PlanPrice
from tallybook.client.requests import UNSET, Mode, Request, Resource, Unset, changes, operation, present, query
from tallybook.client.resources.pages import page

Interval = Literal["weekly", "monthly", "quarterly", "semiannual", "yearly", "one_time"]


def create(
    *,
    name: str,
    code: str,
    description: str | None = None,
    consumption_model: Literal["metered", "credits", "balance"] | None = None,
    is_public: bool | None = None,
    is_free: bool | None = None,
    block_on_exhaustion: bool | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Request[Plan]:
    """Create a plan; without a consumption model it is metered."""
    body = present(
        name=name,
        code=code,
        description=description,
        consumption_model=consumption_model,
        is_public=is_public,
        is_free=is_free,
        block_on_exhaustion=block_on_exhaustion,
        metadata=metadata,
    )
    return Request("POST", "/plans", reader(Plan), body)


def get(plan: str) -> Request[Plan]:
    """One plan, by its id or code."""
    return Request("GET", f"/plans/{plan}", reader(Plan))


def list_(*, include_private: bool | None = None, limit: int | None = None, cursor: str | None = None) -> Request[ListOf[Plan]]:
    """Plans; the private ones when asked for."""
    return Request("GET", "/plans", page(Plan), query=query(include_private=include_private, limit=limit, cursor=cursor))


def update(
    plan: str,
    *,
    name: str | Unset = UNSET,
    description: str | Unset | None = UNSET,
    metadata: Mapping[str, Any] | Unset | None = UNSET,
    is_public: bool | Unset = UNSET,
) -> Request[Plan]:
    """Change what is given; None removes."""
    body = changes(name=name, description=description, metadata=metadata, is_public=is_public)
    return Request("PATCH", f"/plans/{plan}", reader(Plan), body)


def set_visibility(plan: str, *, is_public: bool) -> Request[Plan]:
    """List the plan publicly, or not."""
    return Request("PUT", f"/plans/{plan}/visibility", reader(Plan), present(is_public=is_public))


def delete(plan: str) -> Request[Deleted]:
    """Take a plan off the market."""
    return Request("DELETE", f"/plans/{plan}", reader(Deleted))


def add_price(
    plan: str,
    *,
    billing_interval: Interval,
    price: int | None = None,
    is_default: bool | None = None,
    trial_days: int | None = None,
    included_balance: Amount | None = None,
    included_credits: int | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Request[PlanPrice]:
    """Add a price for a billing interval."""
    body = present(
        billing_interval=billing_interval,
        price=price,
        is_default=is_default,
        trial_days=trial_days,
        included_balance=included_balance,
        included_credits=included_credits,
        metadata=metadata,
    )
    return Request("POST", f"/plans/{plan}/prices", reader(PlanPrice), body)


def update_price(
    plan: str,
    price_id: str,
    *,
    price: int | Unset = UNSET,
    is_default: bool | Unset = UNSET,
    trial_days: int | Unset = UNSET,
    included_balance: Amount | Unset | None = UNSET,
    included_credits: int | Unset | None = UNSET,
    metadata: Mapping[str, Any] | Unset = UNSET,
) -> Request[PlanPrice]:
    """Change what is given of a price."""
    body = changes(
        price=price,
        is_default=is_default,
        trial_days=trial_days,
        included_balance=included_balance,
        included_credits=included_credits,
        metadata=metadata,
    )
    return Request("PATCH", f"/plans/{plan}/prices/{price_id}", reader(PlanPrice), body)


def set_default_price(plan: str, price_id: str) -> Request[PlanPrice]:
    """Make a price the plan's default."""
    return Request("PUT", f"/plans/{plan}/prices/{price_id}/default", reader(PlanPrice))


def delete_price(plan: str, price_id: str) -> Request[Deleted]:
    """Remove a price."""
    return Request("DELETE", f"/plans/{plan}/prices/{price_id}", reader(Deleted))


def add_feature(
    plan: str,
    *,
    feature_id: str,
    enabled: bool | None = None,
    included_amount: int | None = None,
    unlimited: bool | None = None,
    overage: Overage | None = None,
    credits_per_unit: int | None = None,
    pricing_mode: Literal["fixed", "ai_model"] | None = None,
    margin: int | None = None,
) -> Request[PlanFeature]:
    """Include a feature (its id or code). `pricing_mode="ai_model"` prices by model and tokens, plus `margin` percent."""
    body = present(
        feature_id=feature_id,
        enabled=enabled,
        included_amount=included_amount,
        unlimited=unlimited,
        overage=overage,
        credits_per_unit=credits_per_unit,
        pricing_mode=pricing_mode,
        margin=margin,
    )
    return Request("POST", f"/plans/{plan}/features", reader(PlanFeature), body)


def update_feature(
    plan: str,
    feature_id: str,
    *,
    enabled: bool | Unset = UNSET,
    included_amount: int | Unset = UNSET,
    unlimited: bool | Unset = UNSET,
    overage: Overage | Unset = UNSET,
    credits_per_unit: int | Unset | None = UNSET,
    margin: int | Unset | None = UNSET,
) -> Request[PlanFeature]:
    """Change what is given of a feature on a plan."""
    body = changes(
        enabled=enabled,
        included_amount=included_amount,
        unlimited=unlimited,
        overage=overage,
        credits_per_unit=credits_per_unit,
        margin=margin,
    )
    return Request("PATCH", f"/plans/{plan}/features/{feature_id}", reader(PlanFeature), body)


def remove_feature(plan: str, feature_id: str) -> Request[Deleted]:
    """Take a feature off a plan."""
    return Request("DELETE", f"/plans/{plan}/features/{feature_id}", reader(Deleted))


class Plans(Resource[Mode]):
    """`tallybook.plans`."""

    create = operation(create)
    get = operation(get)
    list = operation(list_)
    update = operation(update)
    set_visibility = operation(set_visibility)
    delete = operation(delete)
    add_price = operation(add_price)
    update_price = operation(update_price)
    set_default_price = operation(set_default_price)
    delete_price = operation(delete_price)
    add_feature = operation(add_feature)
    update_feature = operation(update_feature)
    remove_feature = operation(remove_feature)
