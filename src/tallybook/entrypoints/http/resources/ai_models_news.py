"""What happens to the catalog: how its last sync ended, and which prices changed."""

from datetime import timedelta
from typing import Annotated

import msgspec

from tallybook.ai_models import actions, fetch, price_codec
from tallybook.ai_models.price_codec import PriceUsd
from tallybook.ai_models.store import StoredChange, StoredSync
from tallybook.core import clock, cursors
from tallybook.entrypoints.http import moments
from tallybook.entrypoints.http.routing import Call, ListQuery, Operation, Page
from tallybook.storage import postgres

_RECENT = timedelta(days=30)


class Held(msgspec.Struct, rename="camel", kw_only=True):
    """A row of the list whose prices were not taken over, and why. Its model keeps the price it had."""

    model: str
    reason: str


class Sync(msgspec.Struct, rename="camel", kw_only=True):
    """A sync that ended. `status`: published, unchanged, refused (the list looks wrong as a whole) or failed."""

    status: str
    source: str
    started_at: str
    models: int
    priced: int
    changes: dict[str, int]
    quarantined: list[Held]
    error: str | None


class CatalogState(msgspec.Struct, rename="camel", kw_only=True):
    """How the catalog stands. A last sync that was refused or failed has changed nothing; `lastGood` is null before the first one."""

    object: str = "ai_model_catalog"
    version: int
    changed_at: str
    last: Sync | None
    last_good: Sync | None


class ChangesQuery(ListQuery, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Since when: 30 days ago unless it is given. The pages of one list want the same `since`."""

    since: Annotated[str, msgspec.Meta(max_length=moments.CHARACTERS_MAX)] | None = None


class PriceChange(msgspec.Struct, rename="camel", kw_only=True):
    """A model that was added, removed, returned, priced or repriced. `before` and `after` are null where there was no price."""

    object: str = "ai_model_change"
    id: str
    model: str
    change: str
    changed_at: str
    before: PriceUsd | None
    after: PriceUsd | None


async def state(call: Call) -> CatalogState:
    """Version, last sync and last good sync, of one moment."""
    async with postgres.snapshot(call.services.database) as connection:
        found = await actions.catalog_status(connection)
    return CatalogState(
        version=found.version,
        changed_at=clock.iso(found.changed_at),
        last=None if found.last is None else _sync(found.last),
        last_good=None if found.good is None else _sync(found.good),
    )


async def changes(call: Call) -> Page:
    """Changes of prices, oldest first."""
    query: ChangesQuery = call.query
    since = call.real_now - _RECENT if query.since is None else moments.parse("since", query.since)
    after = 0 if query.cursor is None else cursors.decode(query.cursor)
    found = await actions.changes_since(call.connection, since, after=after, limit=query.limit + 1)
    page, next_cursor = cursors.cut(found, query.limit, lambda each: each.id)
    return Page([_change(each) for each in page], next_cursor)


def _sync(each: StoredSync) -> Sync:
    return Sync(
        status=each.status.value,
        source=fetch.shown(each.source),
        started_at=clock.iso(each.started_at),
        models=each.models,
        priced=each.priced,
        changes=dict(each.changes),
        quarantined=[Held(model=remark.model_id, reason=remark.text) for remark in each.quarantined],
        error=each.error,
    )


def _change(each: StoredChange) -> PriceChange:
    return PriceChange(
        id=str(each.id),
        model=each.model_id,
        change=each.kind.value,
        changed_at=clock.iso(each.changed_at),
        before=None if each.before is None else price_codec.write(each.before),
        after=None if each.after is None else price_codec.write(each.after),
    )


OPERATIONS = (
    Operation(
        method="GET",
        path="/ai-models/sync",
        id="get-ai-model-sync",
        summary="Show how the last sync of the AI model catalog ended, and what is in quarantine.",
        permission="ai_model",
        handler=state,
        returns=CatalogState,
    ),
    Operation(
        method="GET",
        path="/ai-models/changes",
        id="list-ai-model-changes",
        summary="List changes of AI models and their prices since a moment, oldest first.",
        permission="ai_model",
        handler=changes,
        query=ChangesQuery,
        returns=PriceChange,
        is_list=True,
    ),
)
