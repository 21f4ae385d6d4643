"""What publishing a list would change, and whether it is safe to. Pure.

A list is refused whole when it is suspicious as a whole; a row goes to quarantine when it alone is. Quarantined models keep the
price they have: a sync can be late, never wrong.
"""

from collections.abc import Collection, Iterator, Mapping

from tallybook.ai_models import decimals
from tallybook.ai_models.model import Change, ChangeKind, Known, Model, ModelList, Plan, Remark
from tallybook.pricing import rates
from tallybook.pricing.rates import Band, Listed, Price

JUMP_MAX = 10
"""A price that moves by more than this factor, or to or from zero, is a slip of the unit until a person accepts it."""


def plan(known: Mapping[str, Known], listed: ModelList, accepted: Collection[str] = ()) -> Plan:
    """Compare a list with the catalog. `accepted` names models whose price jump a person has looked at."""
    refused = _refusal(known, listed)
    if refused is not None:
        return Plan(quarantined=listed.quarantined, repaired=listed.repaired, refused=refused)
    suspicious = tuple(_suspicious(known, listed, accepted))
    held = {remark.model_id for remark in (*listed.quarantined, *suspicious)}
    present = {model.id: model for model in listed.models if model.id not in held}
    changes = [*_listed_changes(known, present), *_removals(known, present, held)]
    return Plan(tuple(changes), (*listed.quarantined, *suspicious), listed.repaired)


def _refusal(known: Mapping[str, Known], listed: ModelList) -> str | None:
    active = [each for each in known.values() if not each.removed]
    priced_before = sum(each.model.price is not None for each in active)
    rows = len(listed.models) + len(listed.quarantined)
    priced = sum(model.price is not None for model in listed.models)
    if priced == 0:
        return f"none of the {rows} rows has a price"
    if _shrinks(len(active), rows):
        return f"the list shrinks by more than a third: {rows} rows for {len(active)} models"
    if _shrinks(priced_before, priced):
        return f"the priced models shrink by more than a third: {priced} for {priced_before}"
    return None


def _shrinks(before: int, now: int) -> bool:
    return now * 3 < before * 2


def _suspicious(known: Mapping[str, Known], listed: ModelList, accepted: Collection[str]) -> Iterator[Remark]:
    for model in listed.models:
        before = known[model.id].model.price if model.id in known else None
        if before is None:
            continue
        if model.price is None:
            yield Remark(model.id, "has lost its prices; the last ones stay in force")
        elif model.id not in accepted and (moved := next(_jumps(before, model.price), None)):
            yield Remark(model.id, f"{moved}; the last price stays in force until this one is accepted")


def _jumps(before: Price, now: Price) -> Iterator[str]:
    """What moves too far, as text: any rate of any band and service tier, or the web search fee.

    Bands are compared at every length at which one of the two prices changes. A rate, tier or fee that appears is not compared; a cache
    price that goes is compared with what is charged in its place.
    """
    for name, bands in _schedules(before).items():
        other = _schedules(now).get(name, ())
        for start in sorted({band.from_tokens for band in (*bands, *other)}) if other else ():
            for kind, old, new in _rates(_listed_at(bands, start), _listed_at(other, start)):
                if _is_jump(old, new):
                    texts = (decimals.usd_per_million(old), decimals.usd_per_million(new))
                    yield f"{name} {kind} from {start} tokens on moves from {texts[0]} to {texts[1]} USD per million"
    if before.web_search is not None and now.web_search is not None and _is_jump(before.web_search, now.web_search):
        texts = (decimals.usd_per_thousand(before.web_search), decimals.usd_per_thousand(now.web_search))
        yield f"web search moves from {texts[0]} to {texts[1]} USD per thousand"


def _schedules(price: Price) -> Mapping[str, tuple[Band, ...]]:
    return {"standard": price.standard, **{name: price.service_tiers[name] for name in sorted(price.service_tiers)}}


def _listed_at(bands: tuple[Band, ...], tokens: int) -> Listed:
    return next(band.listed for band in reversed(bands) if band.from_tokens <= tokens)


def _rates(old: Listed, new: Listed) -> Iterator[tuple[str, int, int]]:
    charged = rates.resolve(new)
    yield "input", old.input, new.input
    if old.output is not None and new.output is not None:
        yield "output", old.output, new.output
    if old.cache_read is not None:
        yield "cache read", old.cache_read, charged.cache_read
    if old.cache_write is not None:
        yield "cache write", old.cache_write, charged.cache_write
    if old.cache_write_1h is not None:
        yield "1-hour cache write", old.cache_write_1h, charged.cache_write_1h


def _is_jump(old: int, new: int) -> bool:
    return max(old, new) > JUMP_MAX * min(old, new)


def _listed_changes(known: Mapping[str, Known], present: Mapping[str, Model]) -> Iterator[Change]:
    for model_id in sorted(present):
        model, before = present[model_id], known.get(model_id)
        kind = ChangeKind.ADDED if before is None else _kind(before, model)
        if kind is not None:
            yield Change(kind, model, before.model.price if before else None)


def _kind(before: Known, now: Model) -> ChangeKind | None:
    if before.removed:
        return ChangeKind.RETURNED
    if before.model.price != now.price:
        return ChangeKind.PRICED if before.model.price is None else ChangeKind.REPRICED
    return None if before.model == now else ChangeKind.DESCRIBED


def _removals(known: Mapping[str, Known], present: Mapping[str, Model], held: Collection[str]) -> Iterator[Change]:
    for model_id in sorted(known):
        each = known[model_id]
        if not each.removed and model_id not in present and model_id not in held:
            yield Change(ChangeKind.REMOVED, each.model, each.model.price)
