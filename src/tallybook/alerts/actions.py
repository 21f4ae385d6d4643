"""What can be done with alerts: a verb a function, inside the caller's transaction. What they come to is in `judging`."""

from datetime import datetime, timedelta

from tallybook.alerts import rules, store
from tallybook.alerts.model import Alert, AlertSettings
from tallybook.core import errors, ids
from tallybook.core.tenant import Tenant
from tallybook.storage.postgres import Connection

CROSSINGS_KEPT = timedelta(days=800)
"""Longer than any period, and the events that may still come for it."""


async def create(connection: Connection, tenant: Tenant, now: datetime, wanted: AlertSettings) -> Alert:
    """Add an alert; it is judged by the next usage. Raises ValidationError, also where the tenant has as many as it may."""
    if await store.count(connection, tenant) >= rules.ALERTS_MAX:
        raise errors.invalid("metric", f"There are {rules.ALERTS_MAX} alerts already; delete one first.")
    return await store.insert(connection, tenant, now, ids.new("alt"), rules.check(wanted))


async def get(connection: Connection, tenant: Tenant, public_id: str) -> Alert:
    """The alert. Raises NotFound."""
    return _found(await store.find(connection, tenant, public_id), public_id)


async def hold(connection: Connection, tenant: Tenant, public_id: str) -> Alert:
    """`get`, and nobody else changes it until the transaction ends."""
    return _found(await store.hold(connection, tenant, public_id), public_id)


async def update(connection: Connection, tenant: Tenant, alert: Alert, wanted: AlertSettings, now: datetime) -> Alert:
    """Change an alert that is held. Another threshold is a new one: it is announced even where the old one was. Raises ValidationError."""
    before = alert.settings
    rules.check(wanted)
    if (wanted.unit, wanted.threshold_nano) != (before.unit, before.threshold_nano):
        await store.arm_all_again(connection, alert)
    await store.update(connection, alert, wanted, now)
    return await get(connection, tenant, alert.public_id)


async def delete(connection: Connection, tenant: Tenant, public_id: str) -> None:
    """Drop an alert for good. Raises NotFound."""
    if not await store.delete(connection, tenant, public_id):
        raise _not_found(public_id)


async def forget(connection: Connection, now: datetime, *, limit: int = 10_000) -> int:
    """Drop what is remembered of pools and periods that are over, a bounded number at once. Returns how many rows."""
    watches = await store.forget_watches(connection, limit)
    return watches + await store.forget_crossings(connection, now - CROSSINGS_KEPT, limit)


def _found(alert: Alert | None, public_id: str) -> Alert:
    if alert is None:
        raise _not_found(public_id)
    return alert


def _not_found(public_id: str) -> errors.NotFound:
    return errors.NotFound("alert_not_found", f"There is no alert {public_id[:64]}.", param="id")
