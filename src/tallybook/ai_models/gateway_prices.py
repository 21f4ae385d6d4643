"""The `pricing` object of one gateway row as a `Price`. Raises UnreadablePriceError where any token price cannot be trusted."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import cast

from tallybook.ai_models import tiers
from tallybook.ai_models.decimals import UnreadablePriceError, pico_per_search, pico_per_token
from tallybook.pricing.rates import SERVICE_TIERS, Band, Listed, Price

_KINDS = {"input": "input", "output": "output", "input_cache_read": "cache_read", "input_cache_write": "cache_write"}
_TOKEN_PRICES = frozenset({*_KINDS, *(f"{key}_tiers" for key in _KINDS)})
_KNOWN = _TOKEN_PRICES | {"web_search", "service_tiers"}
_KNOWN_OF_TIER = _TOKEN_PRICES | {"long_context"}
_KNOWN_OF_LONG_CONTEXT = frozenset({*_KINDS, "threshold"})
_ANSWERING = frozenset({"language", "realtime"})
"""Types that answer in tokens, and so must list an output price."""
_UNIT_NAME = re.compile(r"[a-z0-9_.-]{1,64}", re.ASCII)
_UNITS_MAX = 16


@dataclass(frozen=True, slots=True)
class Reading:
    """What a row's prices say. `price` is None where there is no token price, which is not the same as free."""

    price: Price | None
    other_units: tuple[str, ...] = ()
    remarks: list[str] = field(default_factory=list[str])


def read(pricing: object, kind: str) -> Reading:
    """Read the prices of a model of this type. A missing or empty `pricing` is an unpriced model."""
    if pricing is None:
        return Reading(None)
    if not isinstance(pricing, dict):
        raise UnreadablePriceError("pricing is no object")
    listed = {key: value for key, value in cast("Mapping[str, object]", pricing).items() if value is not None}
    remarks: list[str] = []
    standard = _merged(_bands("", listed, remarks))
    other_units = _other_units(listed)
    if not standard or _costs_nothing_but(other_units, standard):
        return Reading(None, other_units, remarks)
    if kind in _ANSWERING and standard[0].listed.output is None:
        raise UnreadablePriceError("there is an input price and no output price")
    boundaries = tuple(band.from_tokens for band in standard)
    service_tiers = _service_tiers(listed.get("service_tiers"), boundaries, remarks)
    return Reading(Price(standard, service_tiers, _web_search(listed, remarks)), other_units, remarks)


def _bands(prefix: str, listed: Mapping[str, object], remarks: list[str]) -> list[Band]:
    """All kinds of tokens over the union of their boundaries; none without token prices. `prefix` names the place in remarks."""
    steps = {name: _steps(prefix, listed, key, remarks) for key, name in _KINDS.items()}
    plain = steps["input"]
    if plain is None:
        if any(steps.values()):
            raise UnreadablePriceError(f"there are token prices and no {prefix}input price")
        return []
    starts = sorted({start for found in steps.values() if found for start, _ in found})
    others = {name: found for name, found in steps.items() if found and name != "input"}
    prices = ((start, {name: tiers.at(found, start) for name, found in others.items()}) for start in starts)
    return [Band(start, Listed(tiers.at(plain, start), **rest)) for start, rest in prices]


def _steps(prefix: str, listed: Mapping[str, object], key: str, remarks: list[str]) -> tiers.Steps | None:
    flat: int | None = None
    if key in listed:
        flat, rounded = pico_per_token(f"{prefix}{key}", listed[key])
        if rounded:
            remarks.append(f"{prefix}{key} rounded half-even to 1e-12 USD")
    name = f"{key}_tiers"
    if name in listed:
        return tiers.steps(f"{prefix}{name}", listed[name], flat, remarks)
    return None if flat is None else ((0, flat),)


def _merged(bands: list[Band]) -> tuple[Band, ...]:
    """Without boundaries at which nothing changes."""
    kept = bands[:1]
    kept.extend(band for before, band in pairwise(bands) if band.listed != before.listed)
    return tuple(kept)


def _costs_nothing_but(other_units: tuple[str, ...], bands: tuple[Band, ...]) -> bool:
    """Zero for every token beside a price by the second, image or character: that zero is a placeholder, not a free model."""
    amounts = (amount for band in bands for amount in (band.listed.input, band.listed.output))
    return bool(other_units) and not any(amounts)


def _other_units(listed: Mapping[str, object]) -> tuple[str, ...]:
    """The names of whatever is listed and not taken over, inside service tiers too."""
    names = set(listed) - _KNOWN
    for tier, prices in _present(listed.get("service_tiers")).items():
        if tier not in SERVICE_TIERS:
            names.add(f"service_tiers.{tier}")
            continue
        found = _present(prices)
        names.update(f"service_tiers.{tier}.{name}" for name in found.keys() - _KNOWN_OF_TIER)
        above = _present(found.get("long_context")).keys() - _KNOWN_OF_LONG_CONTEXT
        names.update(f"service_tiers.{tier}.long_context.{name}" for name in above)
    return tuple(sorted(name for name in names if _UNIT_NAME.fullmatch(name)))[:_UNITS_MAX]


def _present(value: object) -> Mapping[str, object]:
    """The fields of an object that are not null; of anything else none."""
    if not isinstance(value, dict):
        return {}
    return {key: each for key, each in cast("Mapping[str, object]", value).items() if each is not None}


def _web_search(listed: Mapping[str, object], remarks: list[str]) -> int | None:
    if "web_search" not in listed:
        return None
    pico, rounded = pico_per_search("web_search", listed["web_search"])
    if rounded:
        remarks.append("web_search rounded half-even to 1e-12 USD a call")
    return pico


def _service_tiers(value: object, boundaries: tuple[int, ...], remarks: list[str]) -> dict[str, tuple[Band, ...]]:
    """Batch, flex and priority as listed. One that is not clear is left out: using it is an error, not a guess."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UnreadablePriceError("service_tiers is no object")
    listed = cast("Mapping[str, object]", value)
    found: dict[str, tuple[Band, ...]] = {}
    for name in SERVICE_TIERS:
        if name in listed:
            bands = _service_tier(f"service_tiers.{name}", listed[name], boundaries, remarks)
            if bands is None:
                remarks.append(
                    f"service_tiers.{name} left out: it needs an input and an output price, and one way to say what long context costs"
                )
            else:
                found[name] = bands
    return found


def _service_tier(name: str, value: object, boundaries: tuple[int, ...], remarks: list[str]) -> tuple[Band, ...] | None:
    """The bands of a tier as listed; bands at one price stay apart, because a tier without any has no long-context price."""
    if not isinstance(value, dict):
        raise UnreadablePriceError(f"{name} is no object")
    listed = _present(cast("object", value))
    if not {"input", "output"} <= {key.removesuffix("_tiers") for key in listed}:
        return None
    bands = _bands(f"{name}.", listed, remarks)
    if "long_context" not in listed:
        return tuple(bands)
    long_context = listed["long_context"]
    if not isinstance(long_context, dict):
        raise UnreadablePriceError(f"{name}.long_context is no object")
    above = _present(cast("object", long_context))
    threshold = tiers.token_count(f"{name}.long_context", above.get("threshold"))
    if len(bands) > 1 or not threshold or not {"input", "output"} <= above.keys():
        return None
    [top] = _bands(f"{name}.long_context.", {key: above[key] for key in _KINDS if key in above}, remarks)
    return (bands[0], Band(_long_from(threshold, boundaries), top.listed))


def _long_from(threshold: int, boundaries: tuple[int, ...]) -> int:
    """Where a `threshold` begins: at the model's own boundary if that is the same or the next token, else above the threshold."""
    return next((start for start in boundaries if start and start in (threshold, threshold + 1)), threshold + 1)
