"""What subscriptions tell the outside about themselves. Payloads name the customer by the caller's own id, where there is one."""

from tallybook.core import clock
from tallybook.core.tenant import Tenant
from tallybook.storage.postgres import Connection
from tallybook.subscriptions.model import Period, Subscription
from tallybook.tenancy import actions as tenancy


async def created(connection: Connection, tenant: Tenant, subscription: Subscription) -> None:
    """A subscription exists now."""
    about = {
        "planId": subscription.plan_public_id,
        "planName": subscription.plan_name,
        "startDate": clock.iso(subscription.started_at),
        "name": subscription.name,
    }
    await tenancy.announce(connection, tenant, "subscription.created", _identity(subscription) | about)


async def activated(
    connection: Connection, tenant: Tenant, subscription: Subscription, cycle: Period, invoice: dict[str, object]
) -> None:
    """A subscription became active: at once, or after its trial. `invoice` says what was billed for it."""
    about = {
        "currentPeriodStart": clock.iso(cycle.starts_at),
        "currentPeriodEnd": clock.iso(cycle.ends_at),
        "name": subscription.name,
    }
    await tenancy.announce(connection, tenant, "subscription.activated", _identity(subscription) | about | invoice)


async def cancellation_scheduled(connection: Connection, tenant: Tenant, subscription: Subscription) -> None:
    """A subscription will end with its cycle; also told by the older name of any change."""
    ending = _ending(subscription)
    await tenancy.announce(connection, tenant, "subscription.updated", _identity(subscription) | ending)
    about = {"effectiveAt": ending.pop("endDate")}
    await tenancy.announce(connection, tenant, "subscription.cancellation_scheduled", _identity(subscription) | ending | about)


async def cancellation_revoked(connection: Connection, tenant: Tenant, subscription: Subscription, cycle: Period) -> None:
    """A subscription goes on after all."""
    await tenancy.announce(connection, tenant, "subscription.updated", _identity(subscription) | _ending(subscription))
    about = {"currentPeriodEnd": clock.iso(cycle.ends_at)}
    await tenancy.announce(connection, tenant, "subscription.cancellation_revoked", _identity(subscription) | about)


async def trial_started(connection: Connection, tenant: Tenant, subscription: Subscription) -> None:
    """A subscription begins with a trial."""
    await tenancy.announce(connection, tenant, "trial.started", _identity(subscription) | _trial(subscription))


async def trial_expired(connection: Connection, tenant: Tenant, subscription: Subscription) -> None:
    """A trial has run out and the subscription is active."""
    await tenancy.announce(connection, tenant, "trial.expired", _identity(subscription) | _trial(subscription))


async def canceled(connection: Connection, tenant: Tenant, subscription: Subscription) -> None:
    """A subscription has ended."""
    await tenancy.announce(connection, tenant, "subscription.canceled", _identity(subscription) | _ending(subscription))


def _identity(subscription: Subscription) -> dict[str, object]:
    return {
        "subscriptionId": subscription.public_id,
        "customerId": subscription.customer_external_id or subscription.customer_public_id,
        "status": subscription.status,
    }


def _ending(subscription: Subscription) -> dict[str, object]:
    return {
        "canceledAt": None if subscription.canceled_at is None else clock.iso(subscription.canceled_at),
        "cancelReason": subscription.cancel_reason,
        "endDate": None if subscription.cancel_at is None else clock.iso(subscription.cancel_at),
    }


def _trial(subscription: Subscription) -> dict[str, object]:
    return {
        "planId": subscription.plan_public_id,
        "planName": subscription.plan_name,
        "trialEndsAt": None if subscription.trial_ends_at is None else clock.iso(subscription.trial_ends_at),
    }
