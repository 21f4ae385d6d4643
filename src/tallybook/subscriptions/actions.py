"""What can be done with subscriptions. Each verb runs inside the caller's transaction and raises the customer's terms version."""

from dataclasses import replace
from datetime import datetime, timedelta

from tallybook.catalog import store as catalog
from tallybook.catalog.model import Plan, Price
from tallybook.core import ids
from tallybook.core.errors import Conflict, NotFound
from tallybook.core.tenant import Tenant
from tallybook.customers import store as customers
from tallybook.customers.model import Customer
from tallybook.storage.postgres import Connection
from tallybook.subscriptions import announcements, period_store, rules, schedule, store
from tallybook.subscriptions.model import NewSubscription, Period, Subscription, UsagePeriod
from tallybook.subscriptions.schedule import Order
from tallybook.tenancy import actions as tenancy

_INSTANT = timedelta(microseconds=1)


async def create(connection: Connection, tenant: Tenant, now: datetime, order: Order) -> Subscription:
    """Start a subscription and its usage period, and announce it; the flow that called bills it.

    Raises NotFound (`customer_not_found`, `plan_not_found`, `price_not_found`), Conflict (`already_has_active_subscription`,
    `no_prices_configured`) and ValidationError.
    """
    customer = await _free_customer(connection, tenant, order)
    plan = await catalog.plan_by_reference(connection, tenant, order.plan)
    if plan is None:
        raise NotFound("plan_not_found", f"There is no plan {order.plan}.", param=order.plan_field)
    price = await _price(connection, plan, order)
    new = _scheduled(customer, plan, price, order, now)
    subscription = await store.insert(connection, tenant, now, ids.new("sub"), new)
    edition = await catalog.edition(connection, plan.id, new.price_id)
    await period_store.insert(connection, subscription.id, tenant.id, usage_period_at(subscription, now), edition)
    await tenancy.bump_customer_terms(connection, tenant, customer.id)
    await announcements.created(connection, tenant, subscription)
    if subscription.status == "trialing":
        await announcements.trial_started(connection, tenant, subscription)
    return subscription


async def cancel(
    connection: Connection, tenant: Tenant, now: datetime, public_id: str, *, immediate: bool, reason: str | None
) -> Subscription:
    """End a subscription with its billing cycle, or at once: `immediate`, and always on a free plan.

    At once means that usage stops with this transaction; the running period is closed and billed by the worker right after.
    Raises NotFound (`subscription_not_found`) and Conflict (`subscription_already_canceled`, `already_scheduled`,
    `one_time_subscription_not_cancelable`).
    """
    subscription = await _held(connection, tenant, public_id)
    _check_cancelable(subscription, now, immediate=immediate)
    if immediate or subscription.is_free:
        await _end_now(connection, subscription, now, reason)
        subscription = await store.by_id(connection, subscription.id)
        await announcements.canceled(connection, tenant, subscription)
    else:
        await store.schedule_cancellation(connection, subscription.id, cycle_at(subscription, now).ends_at, reason, now)
        subscription = await store.by_id(connection, subscription.id)
        await announcements.cancellation_scheduled(connection, tenant, subscription)
    await tenancy.bump_customer_terms(connection, tenant, subscription.customer_id)
    return subscription


async def uncancel(connection: Connection, tenant: Tenant, now: datetime, public_id: str) -> Subscription:
    """Take a scheduled cancellation back before it takes effect.

    Raises NotFound (`subscription_not_found`) and Conflict (`subscription_already_canceled`, `not_scheduled_for_cancellation`).
    """
    subscription = await _held(connection, tenant, public_id)
    if subscription.status == "canceled" or (subscription.cancel_at is not None and subscription.cancel_at <= now):
        raise _already_canceled(subscription)
    if subscription.cancel_at is None:
        raise Conflict("not_scheduled_for_cancellation", f"Subscription {public_id} is not scheduled to be canceled.")
    await store.unschedule_cancellation(connection, subscription.id, now)
    subscription = await store.by_id(connection, subscription.id)
    await tenancy.bump_customer_terms(connection, tenant, subscription.customer_id)
    await announcements.cancellation_revoked(connection, tenant, subscription, cycle_at(subscription, now))
    return subscription


async def move_on(connection: Connection, subscription: Subscription, ended: UsagePeriod, now: datetime) -> Subscription:
    """After a period was closed: open the next one, or end the subscription where its cancellation takes effect.

    The caller holds the subscription and the period. A subscription that was canceled at once may have a period left to
    close: up to the moment of its cancellation.
    """
    if has_ended(subscription, ended.ends_at):
        if await store.end(connection, subscription.id, ended.ends_at, now):
            subscription = await store.by_id(connection, subscription.id)
            await announcements.canceled(connection, ended.tenant, subscription)
        return subscription
    following = _following(subscription, ended)
    edition = await catalog.edition(connection, subscription.plan_id, subscription.price_id, following.starts_at)
    if rules.in_trial(subscription.trial_ends_at, following.starts_at):
        edition = replace(edition, price=ended.edition.price)
    await period_store.insert(connection, subscription.id, ended.tenant.id, following, edition)
    if ended.ends_at == subscription.trial_ends_at and await store.activate(connection, subscription.id, now):
        subscription = await store.by_id(connection, subscription.id)
        await announcements.trial_expired(connection, ended.tenant, subscription)
    return subscription


def has_ended(subscription: Subscription, at: datetime) -> bool:
    """Whether a cancellation has taken effect by then."""
    return subscription.cancel_at is not None and subscription.cancel_at <= at


def usage_period_at(subscription: Subscription, moment: datetime) -> Period:
    """The usage period a moment falls in."""
    return rules.usage_period_at(
        subscription.started_at, subscription.anchor_at, subscription.trial_ends_at, subscription.billing_interval, moment
    )


def cycle_at(subscription: Subscription, moment: datetime) -> Period:
    """The billing cycle a moment falls in."""
    return rules.cycle_at(
        subscription.started_at, subscription.anchor_at, subscription.trial_ends_at, subscription.billing_interval, moment
    )


async def _free_customer(connection: Connection, tenant: Tenant, order: Order) -> Customer:
    """The customer, held so that of two subscriptions at once one is refused."""
    customer = await customers.hold(connection, tenant, order.customer)
    if customer is None:
        raise NotFound("customer_not_found", f"There is no customer {order.customer}.", param="customerId")
    existing = await store.open_of_customer(connection, customer.id)
    if existing is not None:
        message = f"Customer {order.customer} has subscription {existing.public_id}, which is {existing.status}."
        details = {"subscriptionId": existing.public_id, "status": existing.status}
        raise Conflict("already_has_active_subscription", message, param="customerId", details=details)
    return customer


async def _price(connection: Connection, plan: Plan, order: Order) -> Price | None:
    price = await catalog.price_for(connection, plan, order.billing_interval, order.price)
    if price is None and not plan.is_free:
        which = "" if order.billing_interval is None else f"{order.billing_interval} "
        raise Conflict(
            "no_prices_configured", f"Plan {plan.code} has no {which}price.", param="billingInterval" if which else None
        )
    return price


def _scheduled(customer: Customer, plan: Plan, price: Price | None, order: Order, now: datetime) -> NewSubscription:
    interval = None if plan.is_free or price is None else price.billing_interval
    schedule.check(order, is_free=plan.is_free, billing_interval=interval, now=now)
    trial_days = 0 if price is None else price.amounts.trial_days
    dates = schedule.decide(order, is_free=plan.is_free, billing_interval=interval, trial_days=trial_days, now=now)
    return NewSubscription(
        customer_id=customer.id,
        plan_id=plan.id,
        price_id=None if price is None else price.id,
        name=order.name or plan.name,
        status=dates.status,
        started_at=dates.started_at,
        trial_ends_at=dates.trial_ends_at,
        anchor_at=dates.anchor_at,
        cancel_at=dates.cancel_at,
    )


async def _held(connection: Connection, tenant: Tenant, public_id: str) -> Subscription:
    found = await store.find(connection, tenant, public_id)
    if found is None:
        raise NotFound("subscription_not_found", f"There is no subscription {public_id}.", param="id")
    return await store.lock(connection, found.id)


def _check_cancelable(subscription: Subscription, now: datetime, *, immediate: bool) -> None:
    if subscription.status == "canceled" or has_ended(subscription, now):
        raise _already_canceled(subscription)
    if subscription.billing_interval == "one_time":
        message = f"Subscription {subscription.public_id} was paid once for good and can't be canceled."
        raise Conflict("one_time_subscription_not_cancelable", message)
    if subscription.cancel_at is not None and not immediate:
        message = f"Subscription {subscription.public_id} is already scheduled to end at {subscription.cancel_at.isoformat()}."
        raise Conflict("already_scheduled", message)


async def _end_now(connection: Connection, subscription: Subscription, now: datetime, reason: str | None) -> None:
    """Ends the subscription now, and the running period with it. A period that is over by now closes as it would have."""
    period = await period_store.unclosed(connection, subscription.id)
    # A simulated clock can stand still between the start and the cancellation; a period is never empty.
    ends_at = now if period is None else max(now, period.starts_at + _INSTANT)
    await store.schedule_cancellation(connection, subscription.id, ends_at, reason, now)
    await store.end(connection, subscription.id, ends_at, now)
    if period is not None and ends_at < period.ends_at:
        await period_store.begin_closing(connection, period, ends_at)


def _following(subscription: Subscription, ended: UsagePeriod) -> Period:
    following = rules.next_period(
        subscription.started_at, subscription.anchor_at, subscription.trial_ends_at, subscription.billing_interval, ended.span
    )
    ends_at = following.ends_at if subscription.cancel_at is None else min(following.ends_at, subscription.cancel_at)
    return Period(ended.ends_at, ends_at)


def _already_canceled(subscription: Subscription) -> Conflict:
    return Conflict("subscription_already_canceled", f"Subscription {subscription.public_id} is already canceled.")
