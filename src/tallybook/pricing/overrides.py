"""An organization's own prices: which of them holds for a model at a time."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tallybook.pricing.rates import Price

BEGINNING_MS = -(1 << 62)
PATTERN = re.compile(r"[A-Za-z0-9*][A-Za-z0-9*._:/@+-]{0,127}", re.ASCII)
"""Model ids, and globs in which `*` stands for anything. The other wildcards of shells mean nothing here."""


@dataclass(frozen=True, slots=True)
class Override:
    """A price that a tenant set for the models of a pattern, from a time on and, once it was ended, up to a time (exclusive).

    `reaches_back`: it was set without a date. Where a model has no other price, such a first one also prices what happened before.
    """

    id: int
    pattern: str
    effective_from_ms: int
    effective_to_ms: int | None
    price: Price
    reaches_back: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether it was ended before it began, and so never held."""
        return self.effective_from_ms == self.effective_to_ms

    def in_force_at(self, at_ms: int) -> bool:
        """Whether it holds at that time."""
        return self.effective_from_ms <= at_ms and (self.effective_to_ms is None or at_ms < self.effective_to_ms)


def is_glob(pattern: str) -> bool:
    """Whether the pattern can stand for several models."""
    return "*" in pattern


def matches(pattern: str, model_id: str) -> bool:
    """Whether a glob stands for an id: `*` for any text, everything else for itself. Takes time linear in the id for each `*`."""
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == model_id
    if not model_id.startswith(first):
        return False
    *middle, last = rest
    at = len(first)
    for piece in middle:
        found = model_id.find(piece, at)
        if found < 0:
            return False
        at = found + len(piece)
    return len(model_id) - len(last) >= at and model_id.endswith(last)


def matching(candidates: Iterable[Override], model_id: str) -> tuple[Override, ...]:
    """The overrides that name this model and ever held, strongest first: the exact id, then the most literal glob, then the newest."""
    found = [each for each in candidates if not each.is_empty and matches(each.pattern, model_id)]
    return tuple(sorted(found, key=_strength, reverse=True))


def _strength(each: Override) -> tuple[bool, int, int]:
    # The newest is the one set last, whatever time it is for: a correction that reaches back overrules what it corrects.
    return not is_glob(each.pattern), len(each.pattern.replace("*", "")), each.id
