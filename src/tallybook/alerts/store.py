"""Reads and writes alerts and what was announced; reads pools and hourly totals. Each function runs inside the caller's transaction."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from tallybook.alerts.model import Alert, AlertSettings, Crossing, Reading, Standing, Watch
from tallybook.core import pools
from tallybook.core.tenant import Tenant
from tallybook.storage import queries
from tallybook.storage.postgres import Connection, Row

_SQL = queries.load("tallybook.alerts")


@dataclass(frozen=True, slots=True)
class Found:
    """Pools to look at, by customer, and the tenants among them that have alerts."""

    standings: list[Standing]
    tenants_with_alerts: list[int]


async def standings(connection: Connection, customer_ids: Sequence[int]) -> Found:
    """The open pools of customers that may be something to tell of."""
    rows = await connection.fetch(_SQL["standings"], customer_ids)
    return Found([_standing(row) for row in rows], sorted({row["tenant_id"] for row in rows if row["has_alerts"]}))


async def watch(connection: Connection, noted: Iterable[tuple[Standing, Watch]]) -> None:
    """Remember something of pools."""
    rows = [
        (
            standing.customer_id,
            standing.pool,
            standing.tenant.id,
            noting.adjusted,
            noting.refilled_to,
            noting.told_low,
            noting.told_depleted,
        )
        for standing, noting in noted
    ]
    if rows:
        await connection.execute(_SQL["watch"], *[list(column) for column in zip(*rows, strict=True)])


async def of_tenants(connection: Connection, tenant_ids: Sequence[int]) -> list[Alert]:
    """The alerts of some tenants that are switched on."""
    return [_alert(row) for row in await connection.fetch(_SQL["alerts_of_tenants"], tenant_ids)]


async def used(connection: Connection, customer_ids: Sequence[int], feature_ids: Sequence[int]) -> dict[tuple[int, int], Reading]:
    """What customers used of features in their running period, by customer and feature, on plans with credits or a balance."""
    rows = await connection.fetch(_SQL["used_of_features"], customer_ids, feature_ids)
    return {(row["customer_id"], row["feature_id"]): _used(row) for row in rows}


async def crossings(connection: Connection, alert_ids: Sequence[int], customer_ids: Sequence[int]) -> set[Crossing]:
    """What was announced of alerts for customers."""
    rows = await connection.fetch(_SQL["crossings"], alert_ids, customer_ids)
    return {Crossing(row["alert_id"], row["customer_id"], row["scope"]) for row in rows}


async def note_crossing(connection: Connection, tenant: Tenant, crossing: Crossing, now: datetime) -> bool:
    """Note that an alert is announced; False when it was before."""
    noted = await connection.fetchval(
        _SQL["note_crossing"], crossing.alert_id, crossing.customer_id, crossing.scope, tenant.id, now
    )
    return noted is not None


async def arm_again(connection: Connection, crossing: Crossing) -> None:
    """The next crossing is announced again."""
    await connection.execute(_SQL["arm_again"], crossing.alert_id, crossing.customer_id, crossing.scope)


async def arm_all_again(connection: Connection, alert: Alert) -> None:
    """The next crossing of any customer is announced again."""
    await connection.execute(_SQL["arm_all_again"], alert.id)


async def count(connection: Connection, tenant: Tenant) -> int:
    """How many alerts a tenant has."""
    return await connection.fetchval(_SQL["count_alerts"], tenant.id)


async def insert(connection: Connection, tenant: Tenant, now: datetime, public_id: str, wanted: AlertSettings) -> Alert:
    """Add an alert."""
    await connection.execute(
        _SQL["insert_alert"],
        tenant.id,
        public_id,
        wanted.name,
        wanted.metric,
        wanted.unit,
        wanted.threshold_nano,
        wanted.customer_id,
        wanted.feature_id,
        wanted.is_active,
        now,
    )
    made = await find(connection, tenant, public_id)
    assert made is not None
    return made


async def find(connection: Connection, tenant: Tenant, public_id: str) -> Alert | None:
    """The tenant's alert with this id."""
    row = await connection.fetchrow(_SQL["alert"], tenant.id, public_id)
    return None if row is None else _alert(row)


async def hold(connection: Connection, tenant: Tenant, public_id: str) -> Alert | None:
    """`find`, and nobody else changes it until the transaction ends."""
    await connection.execute(_SQL["hold_alert"], tenant.id, public_id)
    return await find(connection, tenant, public_id)


async def page(connection: Connection, tenant: Tenant, customer_id: int | None, before_id: int | None, limit: int) -> list[Alert]:
    """Up to `limit` alerts with a smaller row id, newest first; those of one customer alone where one is given."""
    return [_alert(row) for row in await connection.fetch(_SQL["alerts_page"], tenant.id, customer_id, before_id, limit)]


async def update(connection: Connection, alert: Alert, wanted: AlertSettings, now: datetime) -> None:
    """Write what may be changed of an alert."""
    await connection.execute(
        _SQL["update_alert"], alert.id, wanted.name, wanted.unit, wanted.threshold_nano, wanted.is_active, now
    )


async def delete(connection: Connection, tenant: Tenant, public_id: str) -> bool:
    """Drop an alert; False when there is none."""
    return await connection.fetchval(_SQL["delete_alert"], tenant.id, public_id) is not None


async def forget_watches(connection: Connection, limit: int) -> int:
    """Drop up to `limit` rows about closed pools. Returns how many."""
    return len(await connection.fetch(_SQL["forget_watches"], limit))


async def forget_crossings(connection: Connection, before: datetime, limit: int) -> int:
    """Drop up to `limit` crossings from before a moment. Returns how many."""
    return len(await connection.fetch(_SQL["forget_crossings"], before, limit))


def _standing(row: Row) -> Standing:
    watch = None
    if row["watched_adjusted"] is not None:
        refilled_to = row["refilled_to"]
        watch = Watch(
            int(row["watched_adjusted"]), None if refilled_to is None else int(refilled_to), row["told_low"], row["told_depleted"]
        )
    return Standing(
        Tenant(row["tenant_id"], row["organization_id"], row["livemode"]),
        row["customer_id"],
        row["pool"],
        pools.parse(row["pool"]),
        int(row["opening"]),
        int(row["charged"]),
        int(row["adjusted"]),
        int(row["balance"]),
        watch,
    )


def _used(row: Row) -> Reading:
    start_s = int(row["starts_at"].timestamp())
    scope = f"{row['subscription_id']}.usage{row['feature_id']}.{start_s}"
    return Reading(row["subscription_id"], scope, start_s, int(row["quantity_nano"]))


def _alert(row: Row) -> Alert:
    names = ("name", "metric", "unit", "threshold_nano", "customer_id", "feature_id", "is_active")
    return Alert(
        row["id"],
        row["tenant_id"],
        row["public_id"],
        AlertSettings(*(row[name] for name in names)),
        row["customer"],
        row["feature_code"],
        row["created_at"],
        row["updated_at"],
    )
