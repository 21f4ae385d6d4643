"""What the flows work with, built once by `app` and passed down."""

from collections.abc import Callable
from dataclasses import dataclass, field

from tallybook.charge.till import Till
from tallybook.core.clock import Clock
from tallybook.flows.current_book import Lookout
from tallybook.flows.pressure import Pressure
from tallybook.flows.terms_cache import TermsCache
from tallybook.pricing.price_book import PriceBook
from tallybook.settings import Settings
from tallybook.storage.postgres import Pool
from tallybook.storage.redis import Redis


@dataclass(slots=True)
class Services:
    """The stores, the till and what this process remembers. `book` is replaced as a whole when a new price book is published."""

    settings: Settings
    clock: Clock
    database: Pool
    redis: Redis
    till: Till
    terms: TermsCache
    book: PriceBook
    lookout: Lookout = field(default_factory=Lookout)
    observe_repeats: Callable[[int], None] = lambda _count: None
    """Told how many events were taken back because they had been counted before."""
    clock_skew_s: float = 0.0
    """How far this process' clock is from the stores', the furthest of them; watched at the side."""
    pressure: Pressure = field(default_factory=Pressure)
