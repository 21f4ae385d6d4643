"""What can be done with the catalog: one verb a function, each inside the caller's transaction."""

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from tallybook.ai_models import catalog_files, locks, rules, store
from tallybook.ai_models.catalog_files import Catalog
from tallybook.ai_models.model import PRICE_CHANGES, ChangeKind, ModelList, Plan, SyncReport, SyncStatus
from tallybook.ai_models.store import NewOverride, NewPrice, StoredAlias, StoredChange, StoredModel, StoredPrice, StoredSync
from tallybook.core import errors
from tallybook.core.clock import Clock
from tallybook.core.tenant import Tenant
from tallybook.pricing import overrides
from tallybook.pricing.model_ids import TEXT_MAX
from tallybook.pricing.overrides import Override
from tallybook.pricing.price_book import PriceBook
from tallybook.pricing.rates import Price
from tallybook.storage.postgres import Connection

PACKAGED = "packaged"
"""The source's name for the catalog that ships with the program."""
ALIASES_MAX = 1_000
OVERRIDES_MAX = 1_000
LEAD = timedelta(seconds=5)
"""How long after its publication a price comes into force: time for every process to load the book, so that all of them change to
it at the same moment."""
_INSTANT = timedelta(microseconds=1)

Announce = Callable[[Connection, SyncReport], Awaitable[None]]
"""Tells others of what was published, in its transaction."""


@dataclass(frozen=True, slots=True)
class CatalogStatus:
    """How the catalog stands: its version, the last attempt to sync it, and the last good one from a real source."""

    version: int
    changed_at: datetime
    last: StoredSync | None
    good: StoredSync | None


async def load_book(connection: Connection) -> PriceBook:
    """The price book as it is now, all of one moment. Opens its own snapshot, so call it outside any transaction."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        return await _read_book(connection)


async def _read_book(connection: Connection) -> PriceBook:
    version = await store.current_version(connection)
    return PriceBook(version, await store.entries(connection), await store.tenants(connection))


async def current_version(connection: Connection) -> int:
    """The number that every change of the catalog raises; a process whose book has another one loads a new book."""
    return await store.current_version(connection)


async def load_packaged(connection: Connection, clock: Clock, announce: Announce | None = None) -> SyncReport:
    """Take over the catalog that ships with the program, unless the database has it or a newer list already.

    Any number of processes may call this at once. Raises BrokenCatalogError for files that were edited.
    """
    return await load_catalog(connection, catalog_files.read(catalog_files.packaged()), clock, announce)


async def load_catalog(connection: Connection, catalog: Catalog, clock: Clock, announce: Announce | None = None) -> SyncReport:
    """Take over a catalog from files: with its whole history into an empty database, else what differs, from now on."""
    await locks.lock_catalog(connection)
    now = clock()
    if await store.has_synced(connection, PACKAGED, catalog.digest) or await _synced_after(connection, catalog.fetched_at):
        return SyncReport(SyncStatus.UNCHANGED, PACKAGED, digest=catalog.digest)
    known = await store.known(connection)
    listed = ModelList(tuple(entry.model for entry in catalog.entries.values() if entry.removed_at is None))
    plan = rules.plan(known, listed)
    is_first = plan.refused is None and not known
    if is_first:
        await _put_history(connection, catalog, now)
    else:
        await _put_models(connection, plan, now)
    report = await _record(connection, Attempt(PACKAGED, now, catalog.digest), plan, listed, now)
    if announce is not None:
        await announce(connection, report)
    if not is_first:
        await _put_prices(connection, plan, clock)
    return report


async def _synced_after(connection: Connection, moment: datetime) -> bool:
    last = await store.last_good_sync(connection, PACKAGED)
    return last is not None and last.started_at >= moment


async def _put_history(connection: Connection, catalog: Catalog, now: datetime) -> None:
    entries = [catalog.entries[model_id] for model_id in sorted(catalog.entries)]
    await store.put_models(connection, [(entry.model, entry.removed_at) for entry in entries], now)
    dated = [NewPrice(entry.model.id, each.effective_from, each.price) for entry in entries for each in entry.prices]
    await store.add_prices(connection, dated)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A sync under way: its source, when it began, and the digest and ETag of what came."""

    source: str
    started_at: datetime
    digest: str
    etag: str | None = None


async def publish(
    connection: Connection,
    listed: ModelList,
    attempt: Attempt,
    clock: Clock,
    *,
    accepted: Collection[str] = (),
    announce: Announce | None = None,
) -> SyncReport:
    """Compare a list with the catalog and take over what is safe. A list that is refused changes nothing.

    Prices come into force `LEAD` after the last statement of this, however long the lock and the others took.
    """
    await locks.lock_catalog(connection)
    now = clock()
    plan = rules.plan(await store.known(connection), listed, accepted)
    await _put_models(connection, plan, now)
    report = await _record(connection, attempt, plan, listed, now)
    if announce is not None and report.status is SyncStatus.PUBLISHED:
        await announce(connection, report)
    await _put_prices(connection, plan, clock)
    return report


async def _put_models(connection: Connection, plan: Plan, now: datetime) -> None:
    removed = [(change.model, now) for change in plan.changes if change.kind is ChangeKind.REMOVED]
    present = [(change.model, None) for change in plan.changes if change.kind is not ChangeKind.REMOVED]
    await store.put_models(connection, [*removed, *present], now)


async def _put_prices(connection: Connection, plan: Plan, clock: Clock) -> None:
    newest = await store.latest_price_at(connection)
    repriced = [change.model for change in plan.changes if change.model.price != change.before]
    begins = clock() + LEAD
    effective_from = begins if newest is None or newest < begins else newest + _INSTANT
    await store.add_prices(
        connection, [NewPrice(each.id, effective_from, each.price) for each in repriced if each.price is not None]
    )


async def _record(connection: Connection, attempt: Attempt, plan: Plan, listed: ModelList, now: datetime) -> SyncReport:
    """Record a sync whose effect is in this transaction, and raise the version if there is one."""
    status = SyncStatus.REFUSED if plan.refused else SyncStatus.PUBLISHED if plan.changes else SyncStatus.UNCHANGED
    report = SyncReport(
        status=status,
        source=attempt.source,
        plan=plan,
        models=len(listed.models),
        priced=sum(model.price is not None for model in listed.models),
        digest=attempt.digest,
        error=plan.refused,
        version=await store.raise_version(connection, now) if status is SyncStatus.PUBLISHED else None,
    )
    # A refused list is looked at again next time, so its ETag is not kept.
    sync_id = await store.add_sync(connection, report, attempt.started_at, None if plan.refused else attempt.etag)
    await store.add_changes(connection, sync_id, plan.changes, now)
    return report


async def note_sync(connection: Connection, report: SyncReport, now: datetime, etag: str | None = None) -> None:
    """Record a sync that changed nothing."""
    await store.add_sync(connection, report, now, etag)


async def last_good_sync(connection: Connection) -> StoredSync | None:
    """The latest sync from a real source that published, or found nothing new."""
    return await store.last_good_sync(connection, PACKAGED)


async def catalog_status(connection: Connection) -> CatalogStatus:
    """How the catalog stands; wants a snapshot."""
    version, changed_at = await store.version_and_time(connection)
    attempts = await store.last_syncs(connection, 1)
    return CatalogStatus(version, changed_at, attempts[0] if attempts else None, await last_good_sync(connection))


async def last_syncs(connection: Connection, limit: int = 10) -> list[StoredSync]:
    """The latest syncs, newest first, failed ones too."""
    return await store.last_syncs(connection, limit)


async def changes_since(
    connection: Connection, since: datetime, *, described: bool = False, after: int = 0, limit: int = 100
) -> list[StoredChange]:
    """Changes of models and prices since a moment and after a change's id, oldest first; with `described`, of mere names and limits too."""
    kinds = {*PRICE_CHANGES, ChangeKind.DESCRIBED} if described else PRICE_CHANGES
    return await store.changes_since(connection, since, kinds, after, limit)


async def list_models(
    connection: Connection,
    *,
    before: int = store.NUMBER_MAX,
    limit: int = 100,
    search: str | None = None,
    provider: str | None = None,
    removed: bool = False,
) -> list[StoredModel]:
    """Models that arrived before a number, newest first."""
    return await store.list_models(connection, before=before, limit=limit, search=search, provider=provider, removed=removed)


async def find_model(connection: Connection, model_id: str) -> tuple[StoredModel, list[StoredPrice]] | None:
    """A model by its exact id, with its price rows, newest first."""
    model = await store.find_model(connection, model_id)
    return None if model is None else (model, await store.prices_of(connection, model_id))


async def set_alias(connection: Connection, tenant: Tenant, alias: str, model: str, now: datetime) -> str:
    """Let a tenant's own word mean a model from now on; `model` may be written in any way that resolves. Returns the model's id.

    Raises NotFound `model_not_found` or Conflict `ambiguous_model` for the model, and ValidationError for the alias.
    """
    if not 0 < len(alias) <= TEXT_MAX or not alias.isascii() or not alias.isprintable() or alias != alias.strip():
        raise errors.invalid("alias", f"an alias is 1 to {TEXT_MAX} printable ASCII characters")
    await locks.lock_catalog(connection)
    if await store.count_aliases(connection, tenant, alias) >= ALIASES_MAX:
        raise errors.invalid("alias", f"an organization has at most {ALIASES_MAX} aliases in each mode")
    model_id = (await _read_book(connection)).resolve(tenant.id, model).model_id
    await store.put_alias(connection, tenant, alias, model_id, now)
    await store.raise_version(connection, now)
    return model_id


async def remove_alias(connection: Connection, tenant: Tenant, alias: str, now: datetime) -> None:
    """Forget a tenant's own word. Raises NotFound `alias_not_found`."""
    if not await store.remove_alias(connection, tenant, alias):
        raise errors.NotFound("alias_not_found", f"there is no alias {alias!r}", param="alias")
    await store.raise_version(connection, now)


async def find_alias(connection: Connection, tenant: Tenant, alias: str) -> StoredAlias | None:
    """What a tenant's own word means, if it means anything."""
    return await store.find_alias(connection, tenant, alias)


async def list_aliases(
    connection: Connection, tenant: Tenant, *, before: int = store.NUMBER_MAX, limit: int = ALIASES_MAX
) -> list[StoredAlias]:
    """A tenant's own words and the ids of the models they mean, newest first."""
    return await store.aliases_of(connection, tenant, before, limit)


async def set_override(
    connection: Connection,
    tenant: Tenant,
    pattern: str,
    price: Price,
    now: datetime,
    effective_from: datetime | None = None,
    *,
    tenant_now: datetime | None = None,
) -> Override:
    """Let a tenant's own price hold from a time on (default: now): for a model, the models of a glob, or an own model.

    `now` is real; `tenant_now` is the tenant's clock where that is another one. A text that the catalog knows in another way of writing
    means the catalog's model. An earlier price under the same pattern ends then. From a time in the past it also prices late events, and
    what `models rerate` is asked for; nothing else that was priced before moves. Raises ValidationError for a pattern that no id can match.
    """
    if not overrides.PATTERN.fullmatch(pattern):
        raise errors.invalid("model", f"{pattern[:128]!r} is neither a model id nor a glob with *")
    await locks.lock_catalog(connection)
    if await store.count_overrides(connection, tenant) >= OVERRIDES_MAX:
        raise errors.invalid("model", f"an organization has at most {OVERRIDES_MAX} own prices in each mode, ended ones included")
    if not overrides.is_glob(pattern):
        pattern = (await _read_book(connection)).catalog_id(pattern) or pattern
    begins = effective_from or tenant_now or now
    await store.end_overrides(connection, tenant, pattern, begins)
    new = NewOverride(pattern, price, begins, reaches_back=effective_from is None)
    made = await store.add_override(connection, tenant, new, now)
    await store.raise_version(connection, now)
    return made


async def end_override(
    connection: Connection,
    tenant: Tenant,
    override_id: int,
    now: datetime,
    at: datetime | None = None,
    *,
    tenant_now: datetime | None = None,
) -> Override:
    """End a tenant's own price at a time (default: now); later events are priced by the catalog. Times as for `set_override`.

    Raises NotFound `price_override_not_found`.
    """
    ended = await store.end_override(connection, tenant, override_id, at or tenant_now or now)
    if ended is None:
        raise errors.NotFound("price_override_not_found", f"no price override {override_id} goes on", param="id")
    await store.raise_version(connection, now)
    return ended


async def list_overrides(
    connection: Connection, tenant: Tenant, *, before: int = store.NUMBER_MAX, limit: int = OVERRIDES_MAX
) -> list[Override]:
    """A tenant's own prices, newest first, ended ones too."""
    return await store.overrides_of(connection, tenant, before, limit)
