"""What falls due at a boundary of a subscription: the base price of the cycle that begins, the overage of the period that ended.

Runs inside the transaction that starts the subscription or closes the period, so that what is owed and why are saved together.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from tallybook.catalog import store as catalog
from tallybook.core.tenant import Tenant
from tallybook.invoice import actions as invoices
from tallybook.invoice import rules as invoice_rules
from tallybook.invoice import store as invoice_store
from tallybook.invoice.model import BasePrice, Draft, Invoice, Line, Waiver
from tallybook.storage.postgres import Connection
from tallybook.subscriptions import actions as subscriptions
from tallybook.subscriptions import announcements, rules
from tallybook.subscriptions.model import Period, Subscription, UsagePeriod
from tallybook.subscriptions.schedule import Order


async def subscribe(connection: Connection, tenant: Tenant, now: datetime, order: Order) -> Subscription:
    """Start a subscription and bill its first cycle, unless it is free or begins with a trial. Raises what `create` raises."""
    subscription = await subscriptions.create(connection, tenant, now, order)
    if subscription.status == "active":
        cycle = subscriptions.cycle_at(subscription, now)
        draft = _draft(subscription, cycle.starts_at, cycle, await _base_lines(connection, subscription, now))
        invoice = await invoices.issue(connection, tenant, now, draft)
        await announce_activation(connection, tenant, subscription, now, invoice)
    return subscription


async def bill(connection: Connection, subscription: Subscription, ended: UsagePeriod, now: datetime) -> Invoice | None:
    """The invoice of the boundary where a period ended; None when nothing is owed. The book has read all of its usage."""
    overage = await _overage_lines(connection, subscription, ended)
    renews = not subscriptions.has_ended(subscription, ended.ends_at) and rules.is_renewal(
        subscription.anchor_at, subscription.billing_interval, ended.ends_at
    )
    base = await _base_lines(connection, subscription, ended.ends_at) if renews else []
    period = subscriptions.cycle_at(subscription, ended.ends_at) if base else ended.span
    late = await invoice_store.late_usage(connection, ended.customer_id, subscription.id, ended.starts_at)
    draft = replace(_draft(subscription, ended.ends_at, period, [*base, *overage]), late=tuple(late))
    return await invoices.issue(connection, ended.tenant, now, draft)


async def announce_activation(
    connection: Connection, tenant: Tenant, subscription: Subscription, at: datetime, invoice: Invoice | None
) -> None:
    """Tell that a subscription became active, and what was billed for it."""
    billed: dict[str, object] = {
        "invoiceId": None if invoice is None else invoice.public_id,
        "invoiceNumber": None if invoice is None else invoice.number_text,
        "invoiceTotal": 0 if invoice is None else invoice.total_cents,
        "invoiceCurrency": "usd",
        "provider": None,
    }
    await announcements.activated(connection, tenant, subscription, subscriptions.cycle_at(subscription, at), billed)


async def _base_lines(connection: Connection, subscription: Subscription, at: datetime) -> list[Line]:
    """The base price at its current value; nothing on a free plan or where it is 0."""
    if subscription.is_free or subscription.price_id is None or subscription.billing_interval is None:
        return []
    price = await catalog.price_terms(connection, subscription.price_id, at)
    if price is None or price.price_cents == 0:
        return []
    return [invoice_rules.base_line(BasePrice(subscription.plan_name, subscription.billing_interval, price.price_cents))]


async def _overage_lines(connection: Connection, subscription: Subscription, ended: UsagePeriod) -> list[Line]:
    """What was used past the pools; what becomes of a feature's is kept, whether it is billed or not.

    Free plans and trials have no overage: the till stopped usage at what is included.
    """
    found = await invoice_store.pools_of_period(connection, ended.customer_id, subscription.id, ended.span.key_s)
    terms = await catalog.features_of_period(
        connection, subscription.plan_id, ended.starts_at, ended.ends_at, ended.edition.features
    )
    features = {feature.feature_id: feature for feature in terms}
    waiver = _waiver(subscription, ended)
    decisions = invoice_rules.decisions(found, features, waiver)
    await invoice_store.insert_decisions(connection, ended.tenant, ended.customer_id, decisions)
    if waiver is not None:
        return []
    return invoice_rules.overage_lines(found, features, balance_may_be_overdrawn=not subscription.block_on_exhaustion)


def _waiver(subscription: Subscription, ended: UsagePeriod) -> Waiver | None:
    if subscription.is_free:
        return "free_plan"
    return "trial" if rules.in_trial(subscription.trial_ends_at, ended.starts_at) else None


def _draft(subscription: Subscription, billed_at: datetime, period: Period, lines: Sequence[Line]) -> Draft:
    return Draft(
        subscription_id=subscription.id,
        customer_id=subscription.customer_id,
        plan_name=subscription.plan_name,
        type=invoice_rules.invoice_type(lines),
        billed_at=billed_at,
        period=period,
        lines=tuple(lines),
    )
