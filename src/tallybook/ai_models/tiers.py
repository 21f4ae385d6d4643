"""Long-context tiers as lists write them, made contiguous by one rule.

The rule: a tier holds from its `min` (inclusive) up to the next tier's `min`. A `max` (exclusive) that disagrees with the next
`min` by one token is that boundary counted the other way and is overruled; a wider gap or overlap has no price that anyone
stated, so the row goes to quarantine. A first tier without `min` starts at 0; a list that starts higher takes the flat price
below; a tier list that starts at 0 must repeat the flat price.
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import cast

from tallybook.ai_models.decimals import JsonNumber, UnreadablePriceError, pico_per_token

TIERS_MAX = 16
_COUNT_DIGITS_MAX = 12

Steps = tuple[tuple[int, int], ...]
"""Pairs of (from total input, pico-USD per token), ascending from 0."""


def steps(name: str, value: object, flat: int | None, remarks: list[str]) -> Steps:
    """The steps of one kind of token; adds a remark for each repair. Raises UnreadablePriceError."""
    if not isinstance(value, list) or not 0 < len(cast("list[object]", value)) <= TIERS_MAX:
        raise UnreadablePriceError(f"{name} is not a list of 1 to {TIERS_MAX} tiers")
    tiers = list(_tiers(name, cast("list[object]", value), remarks))
    if _off_by_one(name, tiers):
        remarks.append(f"{name} joined at each tier's min")
    found = tuple((start, pico) for start, _, pico in tiers)
    start, first = found[0]
    if start == 0:
        if flat is not None and flat != first:
            raise UnreadablePriceError(f"{name} starts at another price than the flat one")
        return found
    if flat is None:
        raise UnreadablePriceError(f"{name} starts at {start} tokens and there is no flat price below")
    return ((0, flat), *found)


def _tiers(name: str, rows: list[object], remarks: list[str]) -> Iterator[tuple[int, int | None, int]]:
    """(min, max, price) of each tier; a missing `min` is the previous tier's `max`, or 0."""
    previous: int | None = 0
    for row in rows:
        if not isinstance(row, dict):
            raise UnreadablePriceError(f"{name} has a tier that is no object")
        tier = cast("Mapping[str, object]", row)
        start, end = token_count(name, tier.get("min")), token_count(name, tier.get("max"))
        start = previous if start is None else start
        if start is None:
            raise UnreadablePriceError(f"{name} has a tier without a start")
        pico, rounded = pico_per_token(name, tier.get("cost"))
        if rounded:
            remarks.append(f"{name} rounded half-even to 1e-12 USD")
        yield start, end, pico
        previous = end


def _off_by_one(name: str, tiers: list[tuple[int, int | None, int]]) -> bool:
    """Whether tiers that join do so one token apart. Raises UnreadablePriceError for tiers that do not join."""
    off = False
    for (start, end, _), (following, _, _) in pairwise(tiers):
        if following <= start:
            raise UnreadablePriceError(f"{name} does not ascend at {following} tokens")
        if end is not None and abs(end - following) > 1:
            raise UnreadablePriceError(
                f"{name} has no price, or two, between {min(end, following)} and {max(end, following)} tokens"
            )
        off = off or (end is not None and end != following)
    last_end = tiers[-1][1]
    if last_end is not None and last_end <= tiers[-1][0]:
        raise UnreadablePriceError(f"{name} ends before it starts")
    return off


def token_count(name: str, value: object) -> int | None:
    """A whole, non-negative number of tokens, or None where there is none. Raises UnreadablePriceError."""
    if value is None:
        return None
    digits = isinstance(value, JsonNumber) and value.isascii() and value.isdigit()
    if not digits or len(cast("str", value)) > _COUNT_DIGITS_MAX:
        raise UnreadablePriceError(f"{name} has a boundary that is no whole number of tokens")
    return int(cast("str", value))


def at(found: Steps, start: int) -> int:
    """The price in force from `start` on."""
    return next(pico for begin, pico in reversed(found) if begin <= start)
