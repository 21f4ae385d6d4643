"""Reads and writes the rows of the catalog. Prices are jsonb in the form of `price_codec`; times are given by the caller."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from tallybook.ai_models import price_codec
from tallybook.ai_models.model import Change, ChangeKind, Known, Model, Remark, SyncReport, SyncStatus
from tallybook.core import clock
from tallybook.core.tenant import Tenant
from tallybook.pricing import price_book
from tallybook.pricing.overrides import Override
from tallybook.pricing.price_book import ModelEntry, PriceRow, TenantModels
from tallybook.pricing.rates import Price
from tallybook.storage import queries
from tallybook.storage.postgres import Connection, Row

_SQL = queries.load(__package__)
NUMBER_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model with its place in the order of arrival and its dates."""

    model: Model
    number: int
    added_at: datetime
    removed_at: datetime | None


@dataclass(frozen=True, slots=True)
class StoredPrice:
    """A price row of the catalog."""

    id: int
    effective_from: datetime
    price: Price


@dataclass(frozen=True, slots=True)
class StoredSync:
    """How a sync ended."""

    source: str
    status: SyncStatus
    started_at: datetime
    digest: str | None
    etag: str | None
    models: int
    priced: int
    changes: Mapping[str, int]
    quarantined: tuple[Remark, ...]
    repaired: tuple[Remark, ...]
    error: str | None


@dataclass(frozen=True, slots=True)
class StoredAlias:
    """A tenant's own word for a model."""

    id: int
    alias: str
    model_id: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class StoredChange:
    """A recorded change of one model. `id` grows with time."""

    id: int
    model_id: str
    kind: ChangeKind
    changed_at: datetime
    before: Price | None
    after: Price | None


@dataclass(frozen=True, slots=True)
class NewPrice:
    """A price row to add."""

    model_id: str
    effective_from: datetime
    price: Price


@dataclass(frozen=True, slots=True)
class NewOverride:
    """A tenant's own price to add; `reaches_back` as in `Override`."""

    pattern: str
    price: Price
    effective_from: datetime
    reaches_back: bool


async def current_version(connection: Connection) -> int:
    """The catalog's version."""
    return await connection.fetchval(_SQL["current_version"])


async def version_and_time(connection: Connection) -> tuple[int, datetime]:
    """The catalog's version, and when it was raised to it."""
    row = await connection.fetchrow(_SQL["catalog_version"])
    assert row is not None
    return row["version"], row["changed_at"]


async def raise_version(connection: Connection, now: datetime) -> int:
    """Raise the catalog's version. Returns the new one."""
    return await connection.fetchval(_SQL["raise_version"], now)


async def known(connection: Connection) -> dict[str, Known]:
    """Every model as last listed, by id."""
    rows = await connection.fetch(_SQL["all_models"])
    return {row["id"]: Known(_model(row), row["removed_at"] is not None) for row in rows}


async def entries(connection: Connection) -> list[ModelEntry]:
    """Every model with its price rows, for a price book."""
    rows: dict[str, list[PriceRow]] = {}
    for row in await connection.fetch(_SQL["all_prices"]):
        effective_from_ms = clock.to_ms(row["effective_from"])
        price_row = PriceRow(row["id"], row["model_id"], effective_from_ms, price_codec.from_json(row["price"]))
        rows.setdefault(row["model_id"], []).append(price_row)
    models = await connection.fetch(_SQL["all_models"])
    return [price_book.entry(each["id"], rows.get(each["id"], ()), tombstoned=each["removed_at"] is not None) for each in models]


async def tenants(connection: Connection) -> dict[int, TenantModels]:
    """What tenants have set themselves, by tenant id."""
    aliases: dict[int, dict[str, str]] = {}
    for row in await connection.fetch(_SQL["all_aliases"]):
        aliases.setdefault(row["tenant_id"], {})[row["alias"]] = row["model_id"]
    overrides: dict[int, list[Override]] = {}
    for row in await connection.fetch(_SQL["all_overrides"]):
        overrides.setdefault(row["tenant_id"], []).append(_override(row))
    return {each: TenantModels(aliases.get(each, {}), tuple(overrides.get(each, ()))) for each in {*aliases, *overrides}}


async def put_models(connection: Connection, models: Sequence[tuple[Model, datetime | None]], now: datetime) -> None:
    """Add models or bring them up to date; the second of each pair is when it was removed, None for a listed one."""
    columns = list(zip(*((*_columns(model), removed_at) for model, removed_at in models), strict=True))
    if columns:
        await connection.execute(_SQL["put_models"], *columns[:8], now, columns[8])


async def add_prices(connection: Connection, prices: Sequence[NewPrice]) -> None:
    """Add price rows. Raises UniqueViolationError for a second price of a model from the same moment."""
    model_ids = [each.model_id for each in prices]
    values = [price_codec.to_json(each.price) for each in prices]
    await connection.execute(_SQL["add_prices"], model_ids, [each.effective_from for each in prices], values)


async def latest_price_at(connection: Connection) -> datetime | None:
    """When the newest price row comes into force."""
    return await connection.fetchval(_SQL["latest_price_at"])


async def add_sync(connection: Connection, report: SyncReport, started_at: datetime, etag: str | None) -> int:
    """Record how a sync ended. Returns its id."""
    plan = report.plan
    return await connection.fetchval(
        _SQL["add_sync"],
        report.source,
        report.status.value,
        started_at,
        report.digest,
        etag,
        report.models,
        report.priced,
        {kind.value: count for kind, count in plan.counts.items() if count},
        _remarks_json(plan.quarantined),
        _remarks_json(plan.repaired),
        report.error,
    )


async def add_changes(connection: Connection, sync_id: int, changes: Sequence[Change], now: datetime) -> None:
    """Record what a sync changed."""
    ids, kinds = [change.model.id for change in changes], [change.kind.value for change in changes]
    before = [None if change.before is None else price_codec.to_json(change.before) for change in changes]
    after = [_price_after(change) for change in changes]
    await connection.execute(_SQL["add_changes"], sync_id, now, ids, kinds, before, after)


async def last_syncs(connection: Connection, limit: int) -> list[StoredSync]:
    """The latest syncs, newest first."""
    return [_sync(row) for row in await connection.fetch(_SQL["last_syncs"], limit)]


async def last_good_sync(connection: Connection, except_source: str) -> StoredSync | None:
    """The latest sync of any other source that left the catalog as the source has it."""
    row = await connection.fetchrow(_SQL["last_good_sync"], except_source)
    return None if row is None else _sync(row)


async def has_synced(connection: Connection, source: str, digest: str) -> bool:
    """Whether this list was judged before."""
    return await connection.fetchval(_SQL["has_synced_digest"], source, digest)


async def changes_since(
    connection: Connection, since: datetime, kinds: Iterable[ChangeKind], after: int, limit: int
) -> list[StoredChange]:
    """What changed since a moment and after a change's id, oldest first."""
    rows = await connection.fetch(_SQL["changes_since"], since, [kind.value for kind in kinds], after, limit)
    return [_change(row) for row in rows]


async def list_models(
    connection: Connection, *, before: int, limit: int, search: str | None, provider: str | None, removed: bool
) -> list[StoredModel]:
    """Models that arrived before a number, newest first; with `removed`, tombstones too."""
    rows = await connection.fetch(_SQL["list_models"], before, search, provider, removed, limit)
    return [_stored_model(row) for row in rows]


async def find_model(connection: Connection, model_id: str) -> StoredModel | None:
    """A model by its exact id."""
    row = await connection.fetchrow(_SQL["model_by_id"], model_id)
    return None if row is None else _stored_model(row)


async def prices_of(connection: Connection, model_id: str) -> list[StoredPrice]:
    """A model's price rows, newest first."""
    rows = await connection.fetch(_SQL["prices_of_model"], model_id)
    return [StoredPrice(row["id"], row["effective_from"], price_codec.from_json(row["price"])) for row in rows]


async def price_row(connection: Connection, price_id: int, model_id: str) -> PriceRow | None:
    """A price row, of the catalog or an own one, as it prices this model; None when there is none with this id."""
    row = await connection.fetchrow(_SQL["price_by_id"], price_id)
    if row is None:
        return None
    return PriceRow(price_id, model_id, clock.to_ms(row["effective_from"]), price_codec.from_json(row["price"]))


async def put_alias(connection: Connection, tenant: Tenant, alias: str, model_id: str, now: datetime) -> None:
    """Set what a tenant's own word for a model means."""
    await connection.execute(_SQL["put_alias"], tenant.id, alias, model_id, now)


async def remove_alias(connection: Connection, tenant: Tenant, alias: str) -> bool:
    """Remove an alias; False when there is none."""
    return await connection.fetchval(_SQL["remove_alias"], tenant.id, alias) is not None


async def aliases_of(connection: Connection, tenant: Tenant, before: int, limit: int) -> list[StoredAlias]:
    """A tenant's aliases that are older than an id, newest first."""
    return [StoredAlias(**dict(row)) for row in await connection.fetch(_SQL["aliases_of_tenant"], tenant.id, before, limit)]


async def find_alias(connection: Connection, tenant: Tenant, alias: str) -> StoredAlias | None:
    """One alias of a tenant."""
    row = await connection.fetchrow(_SQL["alias_of_tenant"], tenant.id, alias)
    return None if row is None else StoredAlias(**dict(row))


async def count_aliases(connection: Connection, tenant: Tenant, other_than: str) -> int:
    """How many other aliases a tenant has."""
    return await connection.fetchval(_SQL["count_aliases"], tenant.id, other_than)


async def add_override(connection: Connection, tenant: Tenant, new: NewOverride, now: datetime) -> Override:
    """Add a tenant's own price."""
    price = price_codec.to_json(new.price)
    rows = await connection.fetch(_SQL["add_override"], tenant.id, new.pattern, price, new.effective_from, now, new.reaches_back)
    return _override(rows[0])


async def end_overrides(connection: Connection, tenant: Tenant, pattern: str, at: datetime) -> None:
    """End a tenant's own prices under a pattern that go on."""
    await connection.execute(_SQL["end_overrides_of_pattern"], tenant.id, pattern, at)


async def count_overrides(connection: Connection, tenant: Tenant) -> int:
    """How many own prices a tenant has, ended ones too."""
    return await connection.fetchval(_SQL["count_overrides"], tenant.id)


async def end_override(connection: Connection, tenant: Tenant, override_id: int, now: datetime) -> Override | None:
    """End a tenant's own price; None when there is none that goes on."""
    row = await connection.fetchrow(_SQL["end_override"], tenant.id, override_id, now)
    return None if row is None else _override(row)


async def overrides_of(connection: Connection, tenant: Tenant, before: int, limit: int) -> list[Override]:
    """A tenant's own prices that are older than an id, newest first, ended ones too."""
    return [_override(row) for row in await connection.fetch(_SQL["overrides_of_tenant"], tenant.id, before, limit)]


def _columns(model: Model) -> tuple[object, ...]:
    return (
        model.id,
        model.provider,
        model.name,
        model.type,
        model.context_window,
        model.output_max,
        {"names": list(model.other_units)},  # a list among jsonb[] elements would be taken for a second dimension
        model.deprecated_at,
    )


def _model(row: Row) -> Model:
    return Model(
        id=row["id"],
        provider=row["provider"],
        name=row["name"],
        type=row["type"],
        context_window=row["context_window"],
        output_max=row["output_max"],
        other_units=tuple(row["other_units"]),
        deprecated_at=row["deprecated_at"],
        price=_price(row["price"]),
    )


def _stored_model(row: Row) -> StoredModel:
    return StoredModel(_model(row), row["number"], row["added_at"], row["removed_at"])


def _price(value: object) -> Price | None:
    return None if value is None else price_codec.from_json(value)


def _override(row: Row) -> Override:
    ends_at = row["effective_to"]
    return Override(
        id=row["id"],
        pattern=row["pattern"],
        effective_from_ms=clock.to_ms(row["effective_from"]),
        effective_to_ms=None if ends_at is None else clock.to_ms(ends_at),
        price=price_codec.from_json(row["price"]),
        reaches_back=row["reaches_back"],
    )


def _price_after(change: Change) -> object:
    """The price that the change leaves in force: none after a removal."""
    price = change.model.price
    return None if price is None or change.kind is ChangeKind.REMOVED else price_codec.to_json(price)


def _remarks_json(remarks: Iterable[Remark]) -> list[dict[str, str]]:
    return [{"model": remark.model_id, "reason": remark.text} for remark in remarks]


def _remarks(values: Iterable[Mapping[str, str]]) -> tuple[Remark, ...]:
    return tuple(Remark(value["model"], value["reason"]) for value in values)


def _sync(row: Row) -> StoredSync:
    return StoredSync(
        source=row["source"],
        status=SyncStatus(row["status"]),
        started_at=row["started_at"],
        digest=row["digest"],
        etag=row["etag"],
        models=row["models"],
        priced=row["priced"],
        changes=row["changes"],
        quarantined=_remarks(row["quarantined"]),
        repaired=_remarks(row["repaired"]),
        error=row["error"],
    )


def _change(row: Row) -> StoredChange:
    kind = ChangeKind(row["kind"])
    return StoredChange(row["id"], row["model_id"], kind, row["changed_at"], _price(row["before"]), _price(row["after"]))
