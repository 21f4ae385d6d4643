"""Subscriptions: which customer has which plan."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal

from tallybook.client import decoding
from tallybook.client.decoding import reader
from tallybook.client.models import ListOf
from tallybook.client.models_usage import BalanceAdjustment, Subscription
from tallybook.client.requests import CustomerResource, Mode, Request, Resource, customer_operation, operation, present, query
from tallybook.client.resources.pages import page
from tallybook.client.resources.plans import Interval


def create(
    customer_id: str,
    *,
    plan_code: str | None = None,
    plan_id: str | None = None,
    billing_interval: Interval | None = None,
    price_id: str | None = None,
    name: str | None = None,
    start_date: datetime | str | None = None,
    skip_trial: bool | None = None,
    custom_trial_days: int | None = None,
    cancel_at_period_end: bool | None = None,
) -> Request[Subscription]:
    """Subscribe a customer to a plan."""
    body = present(
        customer_id=customer_id,
        plan_code=plan_code,
        plan_id=plan_id,
        billing_interval=billing_interval,
        price_id=price_id,
        name=name,
        start_date=start_date,
        skip_trial=skip_trial,
        custom_trial_days=custom_trial_days,
        cancel_at_period_end=cancel_at_period_end,
    )
    return Request("POST", "/subscriptions", reader(Subscription), body)


def get(subscription_id: str) -> Request[Subscription]:
    """One subscription with what is left of it."""
    return Request("GET", f"/subscriptions/{subscription_id}", reader(Subscription))


def get_active(customer_id: str) -> Request[Subscription | None]:
    """The customer's running subscription, or None."""
    return Request("GET", "/subscriptions/active", _or_none(Subscription), query=query(customer_id=customer_id))


def list_(
    *, customer_id: str | None = None, status: str | None = None, limit: int | None = None, cursor: str | None = None
) -> Request[ListOf[Subscription]]:
    """Subscriptions, newest first."""
    return Request(
        "GET",
        "/subscriptions",
        page(Subscription),
        query=query(customer_id=customer_id, status=status, limit=limit, cursor=cursor),
    )


def cancel(subscription_id: str, *, reason: str | None = None, immediate: bool | None = None) -> Request[Subscription]:
    """End a subscription with its billing cycle, or at once."""
    return Request(
        "POST", f"/subscriptions/{subscription_id}/cancel", reader(Subscription), present(reason=reason, immediate=immediate)
    )


def uncancel(subscription_id: str) -> Request[Subscription]:
    """Take a scheduled cancellation back."""
    return Request("POST", f"/subscriptions/{subscription_id}/uncancel", reader(Subscription))


def adjust_balance(
    subscription_id: str,
    *,
    amount: int,
    reason: str | None = None,
    type: Literal["credits", "balance"] | None = None,  # noqa: A002 - the API's word
) -> Request[BalanceAdjustment]:
    """Add (below zero: take away) whole credits, or a balance in rate scale (10000 = $1.00)."""
    body = present(amount=amount, reason=reason, type=type)
    return Request("POST", f"/subscriptions/{subscription_id}/balance/adjust", reader(BalanceAdjustment), body)


def _or_none(kind: type[Subscription]) -> Callable[[Any], Subscription | None]:
    return lambda given: None if given is None else decoding.read(kind, given)


class Subscriptions(Resource[Mode]):
    """`tallybook.subscriptions`."""

    create = operation(create)
    get = operation(get)
    get_active = operation(get_active)
    list = operation(list_)
    cancel = operation(cancel)
    uncancel = operation(uncancel)
    adjust_balance = operation(adjust_balance)


class CustomerSubscriptions(CustomerResource[Mode]):
    """`tallybook.customer(…).subscriptions`."""

    create = customer_operation(create)
    get_active = customer_operation(get_active)
