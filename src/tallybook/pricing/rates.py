"""What a model costs: prices as a list states them, and the rates an event is charged by.

Every number is integer pico-USD (1e-12) per token, except a web search, which is pico-USD per call. `None` means "not listed".
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import msgspec

SERVICE_TIERS = ("batch", "flex", "priority")
STANDARD_TIERS = ("standard", "default")
"""What providers call the ordinary tier when they name it."""

_NEVER = 1 << 62


@dataclass(frozen=True, slots=True)
class Listed:
    """The prices of one context band as listed. `output` is None for models that have no output tokens (embeddings)."""

    input: int
    output: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    cache_write_1h: int | None = None


@dataclass(frozen=True, slots=True)
class Band:
    """Prices that hold from this total input count (inclusive) up to the next band's (exclusive)."""

    from_tokens: int
    listed: Listed


@dataclass(frozen=True, slots=True)
class Price:
    """Everything listed for one model at one time. Bands ascend and start at 0."""

    standard: tuple[Band, ...]
    service_tiers: Mapping[str, tuple[Band, ...]] = field(default_factory=dict[str, tuple[Band, ...]])
    web_search: int | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for bands that do not start at 0 or do not ascend: such a price was never validated."""
        for bands in (self.standard, *self.service_tiers.values()):
            starts = [band.from_tokens for band in bands]
            if not starts or starts[0] != 0 or any(low >= high for low, high in pairwise(starts)):
                raise ValueError(f"bands must ascend from 0, got {starts}")


class Rates(msgspec.Struct, frozen=True, gc=False):
    """What each kind of token is charged at, with the rules for missing prices applied. `output` may still be None."""

    input: int
    output: int | None
    cache_read: int
    cache_write: int
    cache_write_1h: int


class Schedule(msgspec.Struct, frozen=True, gc=False):
    """The rates by total input: `first` below `second_from`, then the rest by their starts; None where nothing is listed."""

    first: Rates
    second_from: int
    starts: tuple[int, ...]
    rates: tuple[Rates | None, ...]


ONE_HOUR_OWNERS = frozenset({"anthropic"})
"""Who sells cache writes of an hour, at twice the input for every model that caches at all.

Anthropic's prompt caching pricing says so of all its models, Haiku 3 with its 1.2-fold 5-minute write included. MiniMax lists the
same 1.25-fold write and keeps it for five minutes only, so the ratio of two prices does not tell.
"""


def sells_one_hour(model_id: str) -> bool:
    """Whether the model's owner documents 1-hour cache writes at twice the input."""
    return model_id.partition("/")[0].lower() in ONE_HOUR_OWNERS


def resolve(listed: Listed, *, one_hour: bool = False) -> Rates:
    """Apply the rules for missing prices.

    A cache read or 5-minute write without a price is charged as input. A 1-hour write without a price is charged at twice the
    input with `one_hour`, if 5-minute writes are listed at all, and like a 5-minute write everywhere else.
    """
    read = listed.input if listed.cache_read is None else listed.cache_read
    write = listed.input if listed.cache_write is None else listed.cache_write
    return Rates(listed.input, listed.output, read, write, _one_hour_write(listed, write, one_hour=one_hour))


def _one_hour_write(listed: Listed, write: int, *, one_hour: bool) -> int:
    if listed.cache_write_1h is not None:
        return listed.cache_write_1h
    return listed.input * 2 if one_hour and listed.cache_write is not None else write


def schedule(bands: Iterable[Band], *, one_hour: bool = False) -> Schedule:
    """The bands of one tier, ready to be charged by; `one_hour` as for `resolve`."""
    ordered = tuple(bands)
    first, *others = (resolve(band.listed, one_hour=one_hour) for band in ordered)
    return _schedule(tuple(band.from_tokens for band in ordered), first, *others)


def service_schedule(bands: Iterable[Band], standard: Schedule, *, one_hour: bool = False) -> Schedule:
    """The same for a service tier beside the standard one.

    Where the standard has long-context bands and the tier states none, its price is that of short requests: from the standard's first
    boundary on nothing is listed.
    """
    own = schedule(bands, one_hour=one_hour)
    if len(own.starts) > 1 or len(standard.starts) == 1:
        return own
    return _schedule(standard.starts[:2], own.first, None)


def _schedule(starts: tuple[int, ...], first: Rates, *others: Rates | None) -> Schedule:
    return Schedule(first, starts[1] if len(starts) > 1 else _NEVER, starts, (first, *others))
