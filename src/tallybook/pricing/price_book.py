"""The price book: an immutable snapshot of every model, price and override, swapped whole when a new version is published.

    resolved = book.resolve(tenant_id, "claude-sonnet-4-6", occurred_at_ms)   which model, and how it was matched
    row = resolved.entry.row_at(occurred_at_ms)                                the price in force when the event happened
    priced = cost.price(row, usage, margin_bps)                                what it costs

Prices are dated and never edited, so a late event is priced by the row of its own time. The first row of a model reaches back
to the beginning: the catalog learned of the model then, the provider had it before. So does the first price of a model that only a
tenant has, unless the tenant said when it begins: then there is none before.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from tallybook.core import clock, errors
from tallybook.pricing import overrides, spellings
from tallybook.pricing.model_ids import Ambiguous, Match, MatchedBy, ModelIds
from tallybook.pricing.overrides import Override
from tallybook.pricing.rates import STANDARD_TIERS, Price, Schedule, schedule, sells_one_hour, service_schedule

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")
_MEMO_MAX = 50_000
_WHOLE_ID = frozenset({MatchedBy.EXACT, MatchedBy.CASE, MatchedBy.BARE})
_SAME_MODEL = _WHOLE_ID | {MatchedBy.PUNCTUATION}
"""Rungs that only differ in how an id is written; the others take something off that may stand for another price."""


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
        self.service_tiers = {
            name: service_schedule(bands, self.standard, one_hour=one_hour) for name, bands in listed.service_tiers.items()
        }
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
    """A model and its price rows in order of time. A row of None is a time without a price (an own model's, outside its dates)."""

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

    def is_priced_at(self, at_ms: int | None) -> bool:
        """Whether there is a price at that time; None: by the newest row."""
        place = len(self.rows) if at_ms is None else max(bisect_right(self.starts_ms, at_ms), 1)
        return bool(self.rows) and self.rows[place - 1] is not None

    def rows_between(self, start_ms: int, end_ms: int) -> list[tuple[int, PriceRow]]:
        """The prices in force in a span of time (end exclusive), each with when it begins there."""
        place = max(bisect_right(self.starts_ms, start_ms) - 1, 0)
        later = [start for start in self.starts_ms[place + 1 :] if start < end_ms]
        # The first of them holds already, also where it is the model's very first and reaches back.
        begun = zip((start_ms, *later), self.rows[place:], strict=False)
        return [(start, row) for start, row in begun if row is not None]

    def _unpriced(self, at_ms: int | None = None) -> errors.NotFound:
        when = "" if at_ms is None else f" at {clock.iso(clock.from_ms(at_ms))}"
        message = f"{self.model_id} is known but has no token price{when}; set one with a price override"
        return errors.NotFound("model_unpriced", message, param="model", details={"model": self.model_id})


@dataclass(frozen=True, slots=True)
class PricedOtherwise:
    """The text names a model as somebody serves it whose price for it the catalog does not list."""

    model_id: str


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a caller's text means. `otherwise` is what it means at times when a tenant's own model of that name has no price."""

    model_id: str
    matched_by: MatchedBy
    entry: ModelEntry
    otherwise: "Resolved | Ambiguous | PricedOtherwise | None" = None

    @property
    def is_settled(self) -> bool:
        """Whether it means this at all times."""
        return self.otherwise is None


@dataclass(frozen=True, slots=True)
class TenantModels:
    """What one tenant has set: aliases (its text → a model id) and prices for models by pattern."""

    aliases: Mapping[str, str]
    overrides: tuple[Override, ...] = ()


@dataclass(frozen=True, slots=True)
class _Unknown:
    nearest: tuple[str, ...]


_Found = Resolved | Ambiguous | PricedOtherwise | _Unknown


@dataclass(frozen=True, slots=True)
class _Own:
    """A tenant's own models and prices, seen beside the catalog: `overrides` name catalog models by their ids there.

    `exact` are the models that the catalog does not have, `lowered` the same by lower case, `renamed` patterns that mean a model of the
    catalog (its pattern → that model's id).
    """

    exact: frozenset[str]
    lowered: Mapping[str, str]
    renamed: Mapping[str, str]
    overrides: tuple[Override, ...]


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
        tombstoned = [each.model_id for each in self._entries.values() if each.tombstoned]
        self._ids = ModelIds(self._entries.keys() - set(tombstoned), tombstoned)
        self._own = {tenant_id: self._own_of(tenant) for tenant_id, tenant in self._tenants.items()}
        self._memo: dict[tuple[int, str], _Found] = {}
        self._overlaid: dict[tuple[int, str], ModelEntry] = {}

    def __len__(self) -> int:
        """How many models the catalog part holds, tombstoned ones included."""
        return len(self._entries)

    def entries(self) -> list[ModelEntry]:
        """The catalog's models by id, tombstoned ones included."""
        return [self._entries[model_id] for model_id in sorted(self._entries)]

    def resolve(self, tenant_id: int, model: str, at_ms: int | None = None) -> Resolved:
        """The model that `model` means for this tenant at a time (None: by the newest prices); a dict hit after the first time.

        Raises NotFound `model_not_found` with the nearest known ids in its details, NotFound `price_not_listed` for a way of serving a
        model that costs something else, or Conflict `ambiguous_model`.
        """
        key = (tenant_id if tenant_id in self._tenants else 0, model)
        found = self._memo.get(key)
        if found is None:
            found = _kept(self._memo, key, self._resolve(*key))
        if isinstance(found, Resolved):
            if found.otherwise is None or found.entry.is_priced_at(at_ms):
                return found
            found = found.otherwise
            if isinstance(found, Resolved):
                return found
        raise _unresolved(model, found)

    def entry_of(self, tenant_id: int, model_id: str) -> ModelEntry | None:
        """The model with exactly this id, as an event stores it: no alias and no other spelling is tried. None: there is none."""
        own = self._own.get(tenant_id)
        meant = model_id if own is None else own.renamed.get(model_id, model_id)
        if meant not in self._entries and (own is None or meant not in own.exact):
            return None
        return self._priced_for(tenant_id, meant)

    def catalog_id(self, text: str) -> str | None:
        """The catalog's id of the model that a text names in another way of writing; None: it names none, or several."""
        found = self._ids.find(text)
        if not isinstance(found, Match) or found.matched_by not in _SAME_MODEL or _is_priced_otherwise(text, found):
            return None
        return found.model_id

    def _own_of(self, tenant: TenantModels) -> _Own:
        exact = {each.pattern for each in tenant.overrides if not overrides.is_glob(each.pattern)} - self._entries.keys()
        renamed = {pattern: model_id for pattern in sorted(exact) if (model_id := self.catalog_id(pattern))}
        apart = exact - renamed.keys()
        named = tuple(
            replace(each, pattern=renamed[each.pattern]) if each.pattern in renamed else each for each in tenant.overrides
        )
        return _Own(frozenset(apart), {each.lower(): each for each in sorted(apart)}, renamed, named)

    def _resolve(self, tenant_id: int, text: str) -> _Found:
        own = self._own.get(tenant_id)
        match = None if own is None else self._own_match(self._tenants[tenant_id], own, text)
        if match is None:
            return self._by_ladder(tenant_id, text)
        resolved = Resolved(match.model_id, match.matched_by, self._priced_for(tenant_id, match.model_id))
        if match.matched_by is MatchedBy.ALIAS:
            return resolved
        otherwise = self._by_ladder(tenant_id, text)
        if isinstance(otherwise, Resolved) and otherwise.matched_by is MatchedBy.EXACT:
            return otherwise
        return resolved if isinstance(otherwise, _Unknown) else replace(resolved, otherwise=otherwise)

    def _own_match(self, tenant: TenantModels, own: _Own, text: str) -> Match | None:
        """The tenant's aliases, and its own models as they are written or in another case."""
        target = tenant.aliases.get(text)
        if target is not None:
            target = own.renamed.get(target, target)
            if target in self._entries or target in own.exact:
                return Match(target, MatchedBy.ALIAS)
        if text in own.exact:
            return Match(text, MatchedBy.EXACT)
        lowered = own.lowered.get(text.lower()) if text.isascii() else None
        return None if lowered is None else Match(lowered, MatchedBy.CASE)

    def _by_ladder(self, tenant_id: int, text: str) -> _Found:
        found = self._ids.find(text)
        if found is None:
            return _Unknown(self._ids.nearest(text))
        if isinstance(found, Ambiguous):
            return found
        if _is_priced_otherwise(text, found):
            return PricedOtherwise(found.model_id)
        return Resolved(found.model_id, found.matched_by, self._priced_for(tenant_id, found.model_id))

    def _priced_for(self, tenant_id: int, model_id: str) -> ModelEntry:
        listed = self._entries.get(model_id) or ModelEntry(model_id)
        own = self._own.get(tenant_id)
        if own is None or not own.overrides:
            return listed
        found = self._overlaid.get((tenant_id, model_id))
        if found is None:
            mine = overrides.matching(own.overrides, model_id)
            found = _kept(self._overlaid, (tenant_id, model_id), _overlaid(listed, mine) if mine else listed)
        return found


def _is_priced_otherwise(text: str, found: Match) -> bool:
    return found.matched_by not in _WHOLE_ID and spellings.is_priced_otherwise(text.lower(), found.model_id)


def _kept(memo: dict[_Key, _Value], key: _Key, value: _Value) -> _Value:
    """Remember a value; a memo that is full starts anew."""
    if len(memo) >= _MEMO_MAX:
        memo.clear()
    memo[key] = value
    return value


def _overlaid(listed: ModelEntry, mine: tuple[Override, ...]) -> ModelEntry:
    """The catalog's rows with the tenant's prices laid over them, cut at every time when one begins or ends."""
    edges = {start for each in mine for start in (each.effective_from_ms, each.effective_to_ms) if start is not None}
    starts = sorted({*edges, *listed.starts_ms, overrides.BEGINNING_MS})
    rows = [_row_then(listed, mine, start) for start in starts]
    if not listed.rows:
        rows[0] = _row_before_all(listed, mine)
    return ModelEntry(listed.model_id, listed.tombstoned, tuple(starts), tuple(rows))


def _row_then(listed: ModelEntry, mine: tuple[Override, ...], at_ms: int) -> PriceRow | None:
    for each in mine:
        if each.in_force_at(at_ms):
            return _own_row(listed, each)
    return listed.row_at(at_ms) if listed.rows else None


def _row_before_all(listed: ModelEntry, mine: tuple[Override, ...]) -> PriceRow | None:
    """What prices late events of a model before the first of its own prices: that one, if it was set without a date."""
    first = min(mine, key=lambda each: each.effective_from_ms)
    return _own_row(listed, first) if first.reaches_back else None


def _own_row(listed: ModelEntry, own: Override) -> PriceRow:
    return PriceRow(own.id, listed.model_id, own.effective_from_ms, own.price)


def _unresolved(text: str, found: Ambiguous | PricedOtherwise | _Unknown) -> errors.TallybookError:
    shown = repr(text[:128])
    if isinstance(found, PricedOtherwise):
        message = (
            f"{shown} is {found.model_id} at a price of its own, which the catalog does not list; set a price override for this id, "
            f"or an alias if the list price of {found.model_id} is right for you"
        )
        return errors.NotFound("price_not_listed", message, param="model", details={"model": found.model_id})
    if isinstance(found, Ambiguous):
        message = f"{shown} means any of {', '.join(found.model_ids)}; write the owner too, or add an alias"
        return errors.Conflict("ambiguous_model", message, param="model", details={"candidates": list(found.model_ids)})
    near = f"; near to it: {', '.join(found.nearest)}" if found.nearest else ""
    details = {"nearest": list(found.nearest)}
    return errors.NotFound("model_not_found", f"no model is known as {shown}{near}", param="model", details=details)
