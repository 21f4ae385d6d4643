"""The price book: an immutable snapshot of every model, price and override, swapped whole when a new version is published.

    resolved = book.resolve(tenant_id, "claude-sonnet-4-6")     which model, and how it was matched
    row = resolved.entry.row_at(occurred_at_ms)                  the price in force when the event happened
    priced = cost.price(row, usage, margin_bps)                  what it costs

Prices are dated and never edited, so a late event is priced by the row of its own time. The first row of a model reaches back
to the beginning: the catalog learned of the model then, the provider had it before.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tallybook.core import clock, errors
from tallybook.pricing import overrides
from tallybook.pricing.model_ids import Ambiguous, Match, MatchedBy, ModelIds
from tallybook.pricing.overrides import Override
from tallybook.pricing.rates import STANDARD_TIERS, Price, Schedule, schedule, sells_one_hour

_MEMO_MAX = 50_000


class PriceRow:
    """One dated price of one model, ready to be charged by. `id` is what an event stores as its price row."""

    __slots__ = ("effective_from_ms", "id", "listed", "model_id", "service_tiers", "standard", "web_search")

    def __init__(self, price_id: int, model_id: str, effective_from_ms: int, listed: Price) -> None:
        self.id = price_id
        self.model_id = model_id
        self.effective_from_ms = effective_from_ms
        self.listed = listed
        one_hour = sells_one_hour(model_id)
        self.standard = schedule(listed.standard, one_hour=one_hour)
        self.service_tiers = {name: schedule(bands, one_hour=one_hour) for name, bands in listed.service_tiers.items()}
        self.web_search = listed.web_search

    def schedule(self, service_tier: str) -> Schedule:
        """The rates of a service tier. Raises NotFound `price_not_listed` for a tier that the row does not price."""
        if service_tier in STANDARD_TIERS:
            return self.standard
        found = self.service_tiers.get(service_tier)
        if found is None:
            raise self.not_listed(f"the service tier {service_tier!r}")
        return found

    def not_listed(self, what: str) -> errors.NotFound:
        """The error for something that the row has no price for."""
        priced = [*STANDARD_TIERS[:1], *sorted(self.service_tiers)]
        details = {"model": self.model_id, "serviceTiers": priced}
        return errors.NotFound("price_not_listed", f"{self.model_id} lists no price for {what}", param="model", details=details)


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model and its price rows in order of time. A row of None is a time without a price (an own model that was ended)."""

    model_id: str
    tombstoned: bool = False
    starts_ms: tuple[int, ...] = ()
    rows: tuple[PriceRow | None, ...] = ()

    def row_at(self, occurred_at_ms: int) -> PriceRow:
        """The price in force at that time. Raises NotFound `model_unpriced` when there is none."""
        rows = self.rows
        if not rows:
            raise self._unpriced()
        newest = occurred_at_ms >= self.starts_ms[-1]
        found = rows[-1] if newest else rows[max(bisect_right(self.starts_ms, occurred_at_ms) - 1, 0)]
        if found is None:
            raise self._unpriced(occurred_at_ms)
        return found

    def _unpriced(self, at_ms: int | None = None) -> errors.NotFound:
        when = "" if at_ms is None else f" at {clock.iso(clock.from_ms(at_ms))}"
        message = f"{self.model_id} is known but has no token price{when}; set one with a price override"
        return errors.NotFound("model_unpriced", message, param="model", details={"model": self.model_id})


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a caller's text means."""

    model_id: str
    matched_by: MatchedBy
    entry: ModelEntry


@dataclass(frozen=True, slots=True)
class TenantModels:
    """What one tenant has set: aliases (its text → a model id) and prices for models by pattern."""

    aliases: Mapping[str, str]
    overrides: tuple[Override, ...] = ()


@dataclass(frozen=True, slots=True)
class _Unknown:
    nearest: tuple[str, ...]


def entry(model_id: str, rows: Iterable[PriceRow], *, tombstoned: bool = False) -> ModelEntry:
    """A model with its rows, in any order."""
    ordered = sorted(rows, key=lambda row: (row.effective_from_ms, row.id))
    return ModelEntry(model_id, tombstoned, tuple(row.effective_from_ms for row in ordered), tuple(ordered))


class PriceBook:
    """All that is needed to price an event; see the module. Two books never share state."""

    def __init__(self, version: int, entries: Iterable[ModelEntry], tenants: Mapping[int, TenantModels] | None = None) -> None:
        self.version = version
        self._entries = {each.model_id: each for each in entries}
        self._tenants = dict(tenants or {})
        self._own = {tenant_id: _own_models(tenant, self._entries) for tenant_id, tenant in self._tenants.items()}
        tombstoned = [each.model_id for each in self._entries.values() if each.tombstoned]
        self._ids = ModelIds(self._entries.keys() - set(tombstoned), tombstoned)
        self._memo: dict[tuple[int, str], Resolved | Ambiguous | _Unknown] = {}

    def __len__(self) -> int:
        """How many models the catalog part holds, tombstoned ones included."""
        return len(self._entries)

    def entries(self) -> list[ModelEntry]:
        """The catalog's models by id, tombstoned ones included."""
        return [self._entries[model_id] for model_id in sorted(self._entries)]

    def resolve(self, tenant_id: int, model: str) -> Resolved:
        """The model that `model` means for this tenant; a dict hit after the first time.

        Raises NotFound `model_not_found` with the nearest known ids in its details, or Conflict `ambiguous_model`.
        """
        key = (tenant_id if tenant_id in self._tenants else 0, model)
        found = self._memo.get(key)
        if found is None:
            found = self._resolve(*key)
            if len(self._memo) >= _MEMO_MAX:
                self._memo.clear()
            self._memo[key] = found
        if isinstance(found, Resolved):
            return found
        raise _unresolved(model, found)

    def _resolve(self, tenant_id: int, text: str) -> Resolved | Ambiguous | _Unknown:
        tenant = self._tenants.get(tenant_id)
        match = self._match(tenant_id, tenant, text)
        if match is None:
            return _Unknown(self._ids.nearest(text))
        if isinstance(match, Ambiguous):
            return match
        return Resolved(match.model_id, match.matched_by, self._priced_for(tenant, match.model_id))

    def _match(self, tenant_id: int, tenant: TenantModels | None, text: str) -> Match | Ambiguous | None:
        """The ladder, with the tenant's aliases first and its own models beside the catalog's on the exact and case rungs."""
        if tenant is None:
            return self._ids.find(text)
        own = self._own[tenant_id]
        target = tenant.aliases.get(text)
        if target is not None and (target in self._entries or target in own.values()):
            return Match(target, MatchedBy.ALIAS)
        if text in own.values():
            return Match(text, MatchedBy.EXACT)
        found = self._ids.find(text)
        lowered = own.get(text.lower()) if text.isascii() else None
        if lowered is None or (isinstance(found, Match) and found.matched_by is MatchedBy.EXACT):
            return found
        return Match(lowered, MatchedBy.CASE)

    def _priced_for(self, tenant: TenantModels | None, model_id: str) -> ModelEntry:
        listed = self._entries.get(model_id) or ModelEntry(model_id)
        mine = overrides.matching(tenant.overrides, model_id) if tenant else ()
        return _overlaid(listed, mine) if mine else listed


def _own_models(tenant: TenantModels, entries: Mapping[str, ModelEntry]) -> dict[str, str]:
    """Lower case → id of the models that only this tenant has: exact patterns that the catalog does not know."""
    exact = (each.pattern for each in tenant.overrides if not overrides.is_glob(each.pattern))
    return {pattern.lower(): pattern for pattern in exact if pattern not in entries}


def _overlaid(listed: ModelEntry, mine: tuple[Override, ...]) -> ModelEntry:
    """The catalog's rows with the tenant's prices laid over them, cut at every time when one begins or ends."""
    edges = {start for each in mine for start in (each.effective_from_ms, each.effective_to_ms) if start is not None}
    edges.update(listed.starts_ms)
    starts = sorted(edges if not listed.rows else {*edges, overrides.BEGINNING_MS})
    rows = tuple(_row_then(listed, mine, start) for start in starts)
    return ModelEntry(listed.model_id, listed.tombstoned, tuple(starts), rows)


def _row_then(listed: ModelEntry, mine: tuple[Override, ...], at_ms: int) -> PriceRow | None:
    for each in mine:
        if each.in_force_at(at_ms):
            return PriceRow(each.id, listed.model_id, each.effective_from_ms, each.price)
    return listed.row_at(at_ms) if listed.rows else None


def _unresolved(text: str, found: Ambiguous | _Unknown) -> errors.TallybookError:
    shown = repr(text[:128])
    if isinstance(found, Ambiguous):
        message = f"{shown} means any of {', '.join(found.model_ids)}; write the owner too, or add an alias"
        return errors.Conflict("ambiguous_model", message, param="model", details={"candidates": list(found.model_ids)})
    near = f"; near to it: {', '.join(found.nearest)}" if found.nearest else ""
    details = {"nearest": list(found.nearest)}
    return errors.NotFound("model_not_found", f"no model is known as {shown}{near}", param="model", details=details)
