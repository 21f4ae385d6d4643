"""The catalog as files: a manifest with the provenance, and one shard a provider with every dated price.

Written only by `tallybook models sync --catalog DIR`. The manifest holds the digest of each shard, so that a shard edited by
hand, or half written, is an error when it is read and never a price.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from itertools import count, groupby
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from tallybook.ai_models import price_codec
from tallybook.ai_models.decimals import UnreadablePriceError
from tallybook.ai_models.model import ChangeKind, Known, Model, Plan
from tallybook.ai_models.price_codec import PriceUsd
from tallybook.core import clock, errors
from tallybook.pricing import price_book
from tallybook.pricing.price_book import ModelEntry, PriceBook, PriceRow
from tallybook.pricing.rates import Price

FORMAT: Literal[1] = 1
MANIFEST = "catalog.json"
SHARDS = "providers"
_SHARD_BYTES_MAX = 16 * 1024 * 1024
_SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema"

_File = TypeVar("_File", bound=msgspec.Struct)


class BrokenCatalogError(errors.TallybookError):
    """The catalog's files cannot be used. The message names the file and what is wrong with it."""

    def __init__(self, message: str) -> None:
        super().__init__("broken_model_catalog", message)


class DatedPriceFile(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A price and when it came into force. Never edited: a new price is a new entry."""

    effective_from: datetime
    price: PriceUsd


class ModelFile(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """One model. No `prices` means that it is known and has no token price, which is an error when used, never $0."""

    id: str
    name: str
    type: str
    context_window: int | None = None
    output_max: int | None = None
    other_units: tuple[str, ...] = ()
    deprecated_at: datetime | None = None
    removed_at: datetime | None = None
    prices: tuple[DatedPriceFile, ...] = ()


class Shard(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """The models of one provider, by id. Token prices are in USD per million tokens."""

    format: Literal[1] = FORMAT
    provider: str
    models: tuple[ModelFile, ...]


class ShardReference(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A shard's file, how many models it holds, and the sha256 of its bytes."""

    file: str
    models: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Where the catalog comes from. `digest` is the sha256 of the list it was last made from, `fetchedAt` when that was read."""

    format: Literal[1] = FORMAT
    source: str
    fetched_at: datetime
    digest: str
    models: int
    priced: int
    shards: tuple[ShardReference, ...]


@dataclass(frozen=True, slots=True)
class DatedPrice:
    """A price in force from a time on."""

    effective_from: datetime
    price: Price


@dataclass(frozen=True, slots=True)
class Entry:
    """One model with its history, oldest price first."""

    model: Model
    prices: tuple[DatedPrice, ...] = ()
    removed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Catalog:
    """A whole catalog. `entries` by model id."""

    source: str
    fetched_at: datetime
    digest: str
    entries: Mapping[str, Entry]

    def known(self) -> dict[str, Known]:
        """What the next list is compared with."""
        return {model_id: Known(entry.model, entry.removed_at is not None) for model_id, entry in self.entries.items()}

    def priced(self) -> int:
        """How many models that are not removed have a token price."""
        return sum(entry.removed_at is None and entry.model.price is not None for entry in self.entries.values())


def packaged() -> Path:
    """The folder of the catalog that ships with the program: inside the wheel, or at the top of a checkout.

    Raises BrokenCatalogError when there is neither.
    """
    here = Path(str(resources.files("tallybook")))
    for folder in (here / "model_catalog", here.parent.parent / "model_catalog"):
        if (folder / MANIFEST).is_file():
            return folder
    raise BrokenCatalogError("the package has no model catalog; make one with `tallybook models sync --source URL --catalog DIR`")


def book(catalog: Catalog) -> PriceBook:
    """A price book of the catalog alone, for quotes without a database. Its price rows are numbered from 1."""
    numbers = count(1)
    return PriceBook(0, (_book_entry(catalog.entries[model_id], numbers) for model_id in sorted(catalog.entries)))


def _book_entry(entry: Entry, numbers: Iterator[int]) -> ModelEntry:
    model_id = entry.model.id
    rows = [PriceRow(next(numbers), model_id, clock.to_ms(each.effective_from), each.price) for each in entry.prices]
    return price_book.entry(model_id, rows, tombstoned=entry.removed_at is not None)


def apply(catalog: Catalog | None, plan: Plan, source: str, fetched_at: datetime, digest: str) -> Catalog:
    """The catalog after a plan: prices are appended, removals dated."""
    entries = dict(catalog.entries) if catalog else {}
    for change in plan.changes:
        before = entries.get(change.model.id, Entry(change.model))
        prices, price = before.prices, change.model.price
        if price is not None and (not prices or prices[-1].price != price):
            prices = (*prices, DatedPrice(fetched_at, price))
        removed_at = fetched_at if change.kind is ChangeKind.REMOVED else None
        entries[change.model.id] = Entry(change.model, prices, removed_at)
    return Catalog(source, fetched_at, digest, entries)


def read(folder: Path) -> Catalog:
    """Read a catalog. Raises BrokenCatalogError for anything that `write` did not write."""
    manifest = _decoded(MANIFEST, (folder / MANIFEST).read_bytes(), Manifest)
    entries = {entry.model.id: entry for reference in manifest.shards for entry in _read_shard(folder, reference)}
    catalog = Catalog(manifest.source, manifest.fetched_at, manifest.digest, entries)
    if (len(entries), catalog.priced()) != (manifest.models, manifest.priced):
        raise BrokenCatalogError(f"{MANIFEST} counts {manifest.models} models, {manifest.priced} priced; the shards hold others")
    return catalog


def _read_shard(folder: Path, reference: ShardReference) -> Iterable[Entry]:
    path = folder / reference.file
    if path.parent != folder / SHARDS or not path.is_file() or path.stat().st_size > _SHARD_BYTES_MAX:
        raise BrokenCatalogError(f"{reference.file} is missing, too large or outside {SHARDS}/")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != reference.sha256:
        raise BrokenCatalogError(f"{reference.file} is not the file that the manifest names: its sha256 differs")
    for each in _decoded(reference.file, data, Shard).models:
        try:
            yield _entry(each)
        except UnreadablePriceError as error:
            raise BrokenCatalogError(f"{reference.file}: {each.id}: {error}") from error


def _decoded(name: str, data: bytes, kind: type[_File]) -> _File:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:
        raise BrokenCatalogError(f"{name}: {error}") from error


def _entry(each: ModelFile) -> Entry:
    prices = tuple(DatedPrice(dated.effective_from, price_codec.read(dated.price)) for dated in each.prices)
    model = Model(
        id=each.id,
        provider=each.id.partition("/")[0],
        name=each.name,
        type=each.type,
        context_window=each.context_window,
        output_max=each.output_max,
        other_units=each.other_units,
        deprecated_at=each.deprecated_at,
        price=prices[-1].price if prices else None,
    )
    return Entry(model, prices, each.removed_at)


def write(folder: Path, catalog: Catalog) -> None:
    """Write a catalog: shards first, the manifest last, so that a catalog left half written does not match its manifest."""
    (folder / SHARDS).mkdir(parents=True, exist_ok=True)
    by_provider = sorted(catalog.entries.values(), key=lambda entry: (entry.model.provider.lower(), entry.model.id))
    references = [
        _write_shard(folder, provider, tuple(entries))
        for provider, entries in groupby(by_provider, key=lambda entry: entry.model.provider.lower())
    ]
    manifest = Manifest(
        source=catalog.source,
        fetched_at=catalog.fetched_at,
        digest=catalog.digest,
        models=len(catalog.entries),
        priced=catalog.priced(),
        shards=tuple(references),
    )
    _replace(folder / MANIFEST, _pretty(manifest))
    for stale in set((folder / SHARDS).glob("*.json")) - {folder / reference.file for reference in references}:
        stale.unlink()
    for name, data in schemas().items():
        _replace(folder / name, data)


def _write_shard(folder: Path, provider: str, entries: tuple[Entry, ...]) -> ShardReference:
    data = _pretty(Shard(provider=provider, models=tuple(_model_file(entry) for entry in entries)))
    file = f"{SHARDS}/{provider}.json"
    _replace(folder / file, data)
    return ShardReference(file=file, models=len(entries), sha256=hashlib.sha256(data).hexdigest())


def _model_file(entry: Entry) -> ModelFile:
    model = entry.model
    return ModelFile(
        id=model.id,
        name=model.name,
        type=model.type,
        context_window=model.context_window,
        output_max=model.output_max,
        other_units=model.other_units,
        deprecated_at=model.deprecated_at,
        removed_at=entry.removed_at,
        prices=tuple(
            DatedPriceFile(effective_from=each.effective_from, price=price_codec.write(each.price)) for each in entry.prices
        ),
    )


def schemas() -> dict[str, bytes]:
    """The JSON Schemas that describe the files, by file name."""
    kinds: dict[str, type[msgspec.Struct]] = {"catalog.schema.json": Manifest, "provider.schema.json": Shard}
    return {name: _pretty({"$schema": _SCHEMA_DIALECT, **msgspec.json.schema(kind)}) for name, kind in kinds.items()}


def _pretty(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def _replace(path: Path, data: bytes) -> None:
    scratch = path.with_suffix(".partial")
    scratch.write_bytes(data)
    scratch.replace(path)
