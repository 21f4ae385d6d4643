"""Subscriptions: create, get, list, cancel, take a cancellation back, correct a balance."""

from typing import Annotated, Literal

import msgspec

from tallybook.catalog import store as catalog
from tallybook.core import clock, cursors, errors
from tallybook.customers import store as customers
from tallybook.entrypoints.http import moments
from tallybook.entrypoints.http.resources import subscriptions_wire as wire
from tallybook.entrypoints.http.routing import Call, ListQuery, Operation, Page
from tallybook.flows import adjustment, billing
from tallybook.flows.access import Standing
from tallybook.flows.adjustment import Adjustment
from tallybook.rollup import totals
from tallybook.subscriptions import actions, model, store
from tallybook.subscriptions.schedule import Order

Interval = Literal["weekly", "monthly", "quarterly", "semiannual", "yearly", "one_time"]
Status = Literal["draft", "pending_payment", "trialing", "active", "past_due", "paused", "canceled"]
CustomerId = Annotated[str, msgspec.Meta(min_length=1, max_length=256, description="`cus_…` or your own id")]
Reference = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Moment = Annotated[str, msgspec.Meta(min_length=1, max_length=moments.CHARACTERS_MAX)]
Reason = Annotated[str, msgspec.Meta(max_length=500)]
_OUR_STATUSES = ("trialing", "active", "canceled")


class CreateSubscription(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Which customer gets which plan, from when. `successUrl` is taken and unused: there is no checkout."""

    customer_id: CustomerId
    plan_code: Reference | None = None
    plan_id: Reference | None = None
    billing_interval: Interval | None = None
    price_id: Reference | None = None
    name: Name | None = None
    start_date: Moment | None = None
    skip_trial: bool | None = None
    custom_trial_days: Annotated[int, msgspec.Meta(ge=1, le=730)] | None = None
    cancel_at_period_end: bool | None = None
    success_url: Annotated[str, msgspec.Meta(max_length=2048)] | None = None
    offer_id: Reference | None = None
    promo_code: Reference | None = None
    initial_seats: dict[str, int] | None = None
    prepaid_periods: int | None = None
    card_promotion_id: Reference | None = None
    provider: Reference | None = None


class CancelSubscription(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Whether to end at once or with the billing cycle, and why."""

    reason: Reason | None = None
    immediate: bool | None = None


class AdjustBalance(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """What to add (below zero: take away): whole credits, or a balance in rate scale (10000 = $1.00).

    Added credits last until they are used, like purchased ones. They and purchased ones are taken away first, then the plan's.
    """

    amount: int
    reason: Reason | None = None
    type: Literal["credits", "balance"] | None = None


class BalanceAdjustment(msgspec.Struct, rename="camel", kw_only=True):
    """A correction that was made, and what there is after it, in the unit of `amount`; of credits, plan and purchased ones."""

    object: str = "balance_transaction"
    amount: int
    new_balance: int | float
    reason: str | None


class SubscriptionsQuery(ListQuery, kw_only=True):
    """Which subscriptions to list."""

    customer_id: CustomerId | None = None
    status: Status | None = None


class ActiveQuery(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Whose subscription."""

    customer_id: CustomerId


async def create(call: Call) -> wire.CreatedSubscription:
    """Start a subscription and bill its first cycle."""
    order = _order(call.body)
    return wire.created(await billing.subscribe(call.connection, call.tenant, call.now, order), call.now)


async def get(call: Call) -> wire.Subscription:
    """A subscription in any status."""
    return await _full(call, await _found(call))


async def get_active(call: Call) -> wire.Subscription | None:
    """The customer's subscription that has not ended, or null."""
    customer = await customers.find(call.connection, call.tenant, call.query.customer_id)
    if customer is None:
        raise _no_customer(call.query.customer_id)
    subscription = await store.open_of_customer(call.connection, customer.id)
    return None if subscription is None else await _full(call, subscription)


async def list_all(call: Call) -> Page:
    """Subscriptions, newest first."""
    query: SubscriptionsQuery = call.query
    before_id = None if query.cursor is None else cursors.decode(query.cursor)
    customer_id = None
    if query.customer_id is not None:
        customer = await customers.find(call.connection, call.tenant, query.customer_id)
        if customer is None:
            raise _no_customer(query.customer_id)
        customer_id = customer.id
    if query.status is not None and query.status not in _OUR_STATUSES:
        return Page([], None)
    found = await store.page(call.connection, call.tenant, customer_id, query.status, before_id, query.limit + 1)
    page, next_cursor = cursors.cut(found, query.limit, lambda subscription: subscription.id)
    return Page([wire.summary(subscription, call.now) for subscription in page], next_cursor)


async def cancel(call: Call) -> wire.Subscription:
    """End a subscription, now or with its billing cycle."""
    body: CancelSubscription = call.body
    subscription = await actions.cancel(
        call.connection, call.tenant, call.now, call.path["id"], immediate=bool(body.immediate), reason=body.reason
    )
    return await _full(call, subscription)


async def uncancel(call: Call) -> wire.Subscription:
    """Take a scheduled cancellation back."""
    return await _full(call, await actions.uncancel(call.connection, call.tenant, call.now, call.path["id"]))


async def adjust_balance(call: Call) -> BalanceAdjustment:
    """Correct a balance or credits without charging."""
    body: AdjustBalance = call.body
    wanted = Adjustment(body.amount, body.type, body.reason, call.idempotency_key)
    subscription = await _found(call)
    new_balance = await adjustment.adjust(call.services, call.connection, subscription, call.tenant, wanted, call.real_now)
    return BalanceAdjustment(amount=body.amount, new_balance=new_balance, reason=body.reason)


def _order(body: CreateSubscription) -> Order:
    problems = [errors.FieldError(name, f"{name} is not supported yet; leave it out.") for name in _unsupported(body)]
    if (body.plan_code is None) == (body.plan_id is None):
        problems.append(errors.FieldError("planCode", "Send planCode or planId, one of them."))
    if problems:
        raise errors.ValidationError(problems)
    return Order(
        customer=body.customer_id,
        plan=body.plan_code or body.plan_id or "",
        plan_field="planCode" if body.plan_id is None else "planId",
        billing_interval=body.billing_interval,
        price=body.price_id,
        name=body.name,
        start_at=None if body.start_date is None else moments.parse("startDate", body.start_date),
        skip_trial=bool(body.skip_trial),
        custom_trial_days=body.custom_trial_days,
        cancel_at_period_end=bool(body.cancel_at_period_end),
    )


def _unsupported(body: CreateSubscription) -> list[str]:
    later = {
        "offerId": body.offer_id,
        "promoCode": body.promo_code,
        "initialSeats": body.initial_seats,
        "prepaidPeriods": None if body.prepaid_periods == 1 else body.prepaid_periods,
        "cardPromotionId": body.card_promotion_id,
        "provider": body.provider,
    }
    return [name for name, value in later.items() if value is not None]


async def _found(call: Call) -> model.Subscription:
    subscription = await store.find(call.connection, call.tenant, call.path["id"])
    if subscription is None:
        raise errors.NotFound("subscription_not_found", f"There is no subscription {call.path['id']}.", param="id")
    return subscription


def _no_customer(reference: str) -> errors.NotFound:
    return errors.NotFound("customer_not_found", f"There is no customer {reference}.", param="customerId")


async def _full(call: Call, subscription: model.Subscription) -> wire.Subscription:
    """A subscription with its consumption: pools from the till, quantities of features that share a pool from the book."""
    connection = call.connection
    price_id = subscription.price_id
    price = None if price_id is None else await catalog.price_terms(connection, price_id, call.now)
    standing = await _standing(call, subscription)
    if standing is not None:
        features = list(standing.period.features.values())
        period_start = clock.from_ms(standing.period.start_s * 1000)
        counted = await totals.of_period(connection, call.tenant, subscription.customer_id, subscription.id, period_start)
        used = {feature_id: total.quantity_nano for feature_id, total in counted.items()}
    else:
        at = max(subscription.started_at, min(call.now, subscription.ended_at or call.now))
        features, used = await catalog.feature_terms(connection, subscription.plan_id, at, at), {}
    return wire.full(subscription, price, sorted(features, key=lambda feature: feature.code), standing, used, call.now)


async def _standing(call: Call, subscription: model.Subscription) -> Standing | None:
    if subscription.status == "canceled":
        return None
    reference = subscription.customer_public_id
    standing = await adjustment.standing_of(call.services, call.connection, call.tenant, reference, call.real_now)
    return None if standing is None or standing.subscription.subscription_id != subscription.id else standing


OPERATIONS = (
    Operation(
        method="POST",
        path="/subscriptions",
        id="create-subscription",
        summary="Give a customer a plan; it is active, or in its trial, at once, and the first cycle is invoiced.",
        permission="subscription",
        handler=create,
        body=CreateSubscription,
        returns=wire.CreatedSubscription,
        example={"customerId": "user_123", "planCode": "pro", "billingInterval": "monthly"},
    ),
    Operation(
        method="GET",
        path="/subscriptions/active",
        id="get-active-subscription",
        summary="Get the subscription of a customer that has not ended, with what is left of it; null without one.",
        permission="subscription",
        handler=get_active,
        query=ActiveQuery,
        returns=wire.Subscription,
        nullable=True,
    ),
    Operation(
        method="GET",
        path="/subscriptions",
        id="list-subscriptions",
        summary="List subscriptions, newest first; of one customer or one status if asked.",
        permission="subscription",
        handler=list_all,
        query=SubscriptionsQuery,
        returns=wire.SubscriptionSummary,
        is_list=True,
    ),
    Operation(
        method="GET",
        path="/subscriptions/{id}",
        id="get-subscription",
        summary="Get a subscription in any status, with what is left of it.",
        permission="subscription",
        handler=get,
        returns=wire.Subscription,
    ),
    Operation(
        method="POST",
        path="/subscriptions/{id}/cancel",
        id="cancel-subscription",
        summary="End a subscription with its billing cycle, or at once.",
        permission="subscription",
        handler=cancel,
        body=CancelSubscription,
        returns=wire.Subscription,
        example={"reason": "Too expensive", "immediate": False},
    ),
    Operation(
        method="POST",
        path="/subscriptions/{id}/uncancel",
        id="uncancel-subscription",
        summary="Take a cancellation back before it takes effect.",
        permission="subscription",
        handler=uncancel,
        returns=wire.Subscription,
    ),
    Operation(
        method="POST",
        path="/subscriptions/{id}/balance/adjust",
        id="adjust-balance",
        summary="Add to a balance or to credits, or take away (added and purchased credits first, then the plan's), without a charge.",
        permission="subscription",
        handler=adjust_balance,
        body=AdjustBalance,
        returns=BalanceAdjustment,
        refusals=(402,),
        example={"amount": 50000, "reason": "Goodwill after an incident", "type": "balance"},
    ),
)
