"""Telling tenants that the catalog's prices changed: one outbox event a sync, in the transaction that publishes.

Told are the tenants, live and sandbox, that have a plan with a feature priced by AI model: nobody else's bill can move. The event
lists the changes that matter most first (other prices, models that are gone, models that are new) and says how many it leaves
out; all of them are at `GET /ai-models/changes`. An own price that covers a model still holds, whatever the event says of it.
"""

from tallybook.ai_models import price_codec
from tallybook.ai_models.model import PRICE_CHANGES, Change, ChangeKind, SyncReport
from tallybook.catalog import store as catalog
from tallybook.pricing.rates import Price
from tallybook.storage.postgres import Connection
from tallybook.tenancy import actions as tenancy

TOPIC = "ai_model.prices_changed"
CHANGES_MAX = 100
_ORDER = (ChangeKind.REPRICED, ChangeKind.REMOVED, ChangeKind.PRICED, ChangeKind.RETURNED, ChangeKind.ADDED)


async def announce(connection: Connection, report: SyncReport) -> None:
    """Queue the event for every tenant that prices by model; nothing when no price changed."""
    changes = sorted(
        (change for change in report.plan.changes if change.kind in PRICE_CHANGES),
        key=lambda change: (_ORDER.index(change.kind), change.model.id),
    )
    if report.version is None or not changes:
        return
    payload: dict[str, object] = {
        "catalogVersion": report.version,
        "changes": [_shown(change) for change in changes[:CHANGES_MAX]],
        "leftOut": max(len(changes) - CHANGES_MAX, 0),
    }
    for tenant in await catalog.tenants_pricing_by_model(connection):
        await tenancy.announce(connection, tenant, TOPIC, payload)


def _shown(change: Change) -> dict[str, object]:
    after = None if change.kind is ChangeKind.REMOVED else change.model.price
    return {"model": change.model.id, "change": change.kind.value, "before": _usd(change.before), "after": _usd(after)}


def _usd(price: Price | None) -> object:
    return None if price is None else price_codec.to_json(price)
