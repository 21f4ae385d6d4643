"""Which model a caller's text means: a ladder of ever looser spellings, the first rung that hits wins.

A rung never guesses: it hits on the whole id, or not at all. Of several owners of a bare id the maker of the model wins over
those who serve it; where that does not decide, the answer is `Ambiguous`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from tallybook.pricing import spellings

TEXT_MAX = 256
"""Longer texts are no model id."""
NEAREST_MAX = 5
_SIMILARITY_MIN = 0.35
_FOLD = str.maketrans("._", "--")
OWNER_PRIORITY = ("openai", "anthropic", "google", "meta", "mistral", "amazon", "xai", "deepseek", "alibaba", "cohere", "nvidia")
"""Who wins a bare id that several owners list, first to last."""


class MatchedBy(StrEnum):
    """The rung of the ladder that found the model; stored with the event."""

    ALIAS = "alias"
    EXACT = "exact"
    CASE = "case"
    BARE = "bare"
    PUNCTUATION = "punctuation"
    WRAPPER = "wrapper"
    DATE = "date"
    LATEST = "latest"


@dataclass(frozen=True, slots=True)
class Match:
    """The one model that the text means."""

    model_id: str
    matched_by: MatchedBy


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """The text means each of these equally well."""

    model_ids: tuple[str, ...]


def bare(model_id: str) -> str:
    """The id without its owner."""
    return model_id.partition("/")[2] or model_id


def folded(text: str) -> str:
    """Lower case, with dots and underscores as dashes."""
    return text.lower().translate(_FOLD)


@dataclass(frozen=True, slots=True)
class _Ids:
    """Ids under each of the keys that a rung looks for."""

    exact: frozenset[str]
    lowered: Mapping[str, tuple[str, ...]]
    bare: Mapping[str, tuple[str, ...]]
    folded: Mapping[str, tuple[str, ...]]
    bare_folded: Mapping[str, tuple[str, ...]]


def _index(ids: Iterable[str]) -> _Ids:
    exact = frozenset(ids)
    return _Ids(
        exact,
        _grouped(exact, str.lower),
        _grouped(exact, lambda each: bare(each).lower()),
        _grouped(exact, folded),
        _grouped(exact, lambda each: folded(bare(each))),
    )


def _grouped(ids: Iterable[str], key: Callable[[str], str]) -> dict[str, tuple[str, ...]]:
    groups: dict[str, tuple[str, ...]] = {}
    for each in sorted(ids):
        groups[key(each)] = (*groups.get(key(each), ()), each)
    return groups


class ModelIds:
    """An immutable index over active and tombstoned ids. Active ones win on each rung."""

    def __init__(self, active: Iterable[str], tombstoned: Iterable[str] = ()) -> None:
        self._layers = (_index(active), _index(tombstoned))
        self._trigrams = {each: _trigrams(bare(each)) for layer in self._layers for each in sorted(layer.exact)}

    def find(self, text: str) -> Match | Ambiguous | None:
        """The model that `text` means, or None. Text that is not ASCII means none: look-alike letters must not match."""
        if len(text) > TEXT_MAX or not text.isascii():
            return None
        for spelling, rung in _spellings(text):
            found = self._find_spelled(spelling)
            if isinstance(found, Match):
                return Match(found.model_id, rung or found.matched_by)
            if found is not None:
                return found
        return None

    def _find_spelled(self, text: str) -> Match | Ambiguous | None:
        for matched_by, ids in self._rungs(text):
            if len(ids) == 1:
                return Match(ids[0], matched_by)
            if ids:
                maker = _maker(ids)
                return Match(maker, matched_by) if maker else Ambiguous(ids)
        return None

    def _rungs(self, text: str) -> Iterator[tuple[MatchedBy, tuple[str, ...]]]:
        lowered, fold = text.lower(), folded(text)
        for layer in self._layers:
            yield MatchedBy.EXACT, (text,) if text in layer.exact else ()
        for layer in self._layers:
            yield MatchedBy.CASE, layer.lowered.get(lowered, ())
        owned = "/" in text
        for layer in self._layers:
            yield MatchedBy.BARE, () if owned else layer.bare.get(lowered, ())
        for layer in self._layers:
            yield MatchedBy.PUNCTUATION, layer.folded.get(fold, ()) or (() if owned else layer.bare_folded.get(fold, ()))

    def nearest(self, text: str) -> tuple[str, ...]:
        """Known ids that look most like `text`, for an error message; never used to price."""
        wanted = _trigrams(bare(text[:TEXT_MAX]))
        scored = ((_similarity(wanted, each), model_id) for model_id, each in self._trigrams.items())
        near = sorted((pair for pair in scored if pair[0] >= _SIMILARITY_MIN), key=lambda pair: (-pair[0], pair[1]))
        return tuple(model_id for _, model_id in near[:NEAREST_MAX])


def _spellings(text: str) -> Iterator[tuple[str, MatchedBy | None]]:
    """Text as sent, unwrapped, without a date, without `-latest`; with the rung that each loosening is."""
    yield text, None
    lowered = text.lower()
    inner = spellings.unwrapped(lowered)
    for each in inner:
        yield each, MatchedBy.WRAPPER
    for loosen, rung in ((spellings.without_date, MatchedBy.DATE), (spellings.without_latest, MatchedBy.LATEST)):
        for each in (lowered, *inner):
            if shorter := loosen(each):
                yield shorter, rung


def _maker(ids: tuple[str, ...]) -> str | None:
    """The id of the owner that comes first in the priority list, if it lists exactly one of these ids."""
    for owner in OWNER_PRIORITY:
        owned = [each for each in ids if each.partition("/")[0].lower() == owner]
        if owned:
            return owned[0] if len(owned) == 1 else None
    return None


def _trigrams(text: str) -> frozenset[str]:
    padded = f"  {folded(text).replace('-', ' ')} "
    return frozenset(padded[start : start + 3] for start in range(len(padded) - 2))


def _similarity(wanted: frozenset[str], known: frozenset[str]) -> float:
    """How alike two ids are, and how much of the wanted one is in the known one, in equal parts; 0 to 1."""
    shared = len(wanted & known)
    return shared / (len(wanted) + len(known)) + shared / (2 * len(wanted))
