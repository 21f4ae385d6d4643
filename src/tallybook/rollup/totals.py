"""What the book has counted, for those who ask about one customer."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from tallybook.core.tenant import Tenant
from tallybook.storage import queries
from tallybook.storage.postgres import Connection

_QUERIES = queries.load("tallybook.rollup")


@dataclass(frozen=True, slots=True)
class FeatureTotal:
    """Nano-units used, and what they took from the pool in 1e-9 of its unit."""

    quantity_nano: int
    amount: int


async def of_period(
    connection: Connection, tenant: Tenant, customer_id: int, subscription_id: int, period_start: datetime
) -> Mapping[int, FeatureTotal]:
    """Totals by feature id in one billing period of a subscription, as far as the book has read: normally less than a second behind."""
    rows = await connection.fetch(_QUERIES["feature_totals"], tenant.id, customer_id, period_start, subscription_id)
    return {row["feature_id"]: FeatureTotal(int(row["quantity_nano"]), int(row["amount"])) for row in rows}
