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
_KNOWN = frozenset({*_KINDS, *(f"{key}_tiers" for key in _KINDS), "web_search", "service_tiers"})
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
    standard = _bands(listed, remarks)
    other_units = _other_units(listed)
    if standard is None or _costs_nothing_but(other_units, standard):
        return Reading(None, other_units, remarks)
    if kind in _ANSWERING and standard[0].listed.output is None:
        raise UnreadablePriceError("there is an input price and no output price")
    boundaries = tuple(band.from_tokens for band in standard)
    service_tiers = _service_tiers(listed.get("service_tiers"), boundaries, remarks)
    return Reading(Price(standard, service_tiers, _web_search(listed, remarks)), other_units, remarks)


def _bands(listed: Mapping[str, object], remarks: list[str]) -> tuple[Band, ...] | None:
    """All kinds of tokens over the union of their boundaries."""
    steps = {name: _steps(listed, key, remarks) for key, name in _KINDS.items()}
    plain = steps["input"]
    if plain is None:
        if any(steps.values()):
            raise UnreadablePriceError("there are token prices and no input price")
        return None
    starts = sorted({start for found in steps.values() if found for start, _ in found})
    others = {name: found for name, found in steps.items() if found and name != "input"}
    prices = ((start, {name: tiers.at(found, start) for name, found in others.items()}) for start in starts)
    return _merged([Band(start, Listed(tiers.at(plain, start), **rest)) for start, rest in prices])


def _steps(listed: Mapping[str, object], key: str, remarks: list[str]) -> tiers.Steps | None:
    flat: int | None = None
    if key in listed:
        flat, rounded = pico_per_token(key, listed[key])
        if rounded:
            remarks.append(f"{key} rounded half-even to 1e-12 USD")
    name = f"{key}_tiers"
    if name in listed:
        return tiers.steps(name, listed[name], flat, remarks)
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
    names = set(listed) - _KNOWN
    by_tier = listed.get("service_tiers")
    if isinstance(by_tier, dict):
        names.update(f"service_tiers.{name}" for name in cast("Mapping[str, object]", by_tier) if name not in SERVICE_TIERS)
    return tuple(sorted(name for name in names if _UNIT_NAME.fullmatch(name)))[:_UNITS_MAX]


def _web_search(listed: Mapping[str, object], remarks: list[str]) -> int | None:
    if "web_search" not in listed:
        return None
    pico, rounded = pico_per_search("web_search", listed["web_search"])
    if rounded:
        remarks.append("web_search rounded half-even to 1e-12 USD a call")
    return pico


def _service_tiers(value: object, boundaries: tuple[int, ...], remarks: list[str]) -> dict[str, tuple[Band, ...]]:
    """Batch, flex and priority as listed. One that lacks input or output is left out: using it is an error, not a guess."""
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
                remarks.append(f"service_tiers.{name} left out: it needs an input and an output price")
            else:
                found[name] = bands
    return found


def _service_tier(name: str, value: object, boundaries: tuple[int, ...], remarks: list[str]) -> tuple[Band, ...] | None:
    base = _tier_prices(name, value, remarks)
    if base is None:
        return None
    long_context = cast("Mapping[str, object]", value).get("long_context")
    if long_context is None:
        return (Band(0, base),)
    above = _tier_prices(f"{name}.long_context", long_context, remarks)
    threshold = tiers.token_count(f"{name}.long_context", cast("Mapping[str, object]", long_context).get("threshold"))
    if above is None or not threshold:
        return None
    return _merged([Band(0, base), Band(_long_from(threshold, boundaries), above)])


def _tier_prices(name: str, value: object, remarks: list[str]) -> Listed | None:
    if not isinstance(value, dict):
        raise UnreadablePriceError(f"{name} is no object")
    prices: dict[str, int] = {}
    for key, field_name in _KINDS.items():
        amount = cast("Mapping[str, object]", value).get(key)
        if amount is not None:
            prices[field_name], rounded = pico_per_token(f"{name}.{key}", amount)
            if rounded:
                remarks.append(f"{name}.{key} rounded half-even to 1e-12 USD")
    return Listed(**prices) if {"input", "output"} <= set(prices) else None


def _long_from(threshold: int, boundaries: tuple[int, ...]) -> int:
    """Where a `threshold` begins: at the model's own boundary if that is the same or the next token, else above the threshold."""
    return next((start for start in boundaries if start and start in (threshold, threshold + 1)), threshold + 1)
