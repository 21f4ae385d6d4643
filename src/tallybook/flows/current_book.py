"""The price book at hand, and how a process notices that there is a newer one.

A published list comes into force a few seconds after its publication, so looking once a second is enough for it. What an
organization sets itself (aliases, own prices) holds at once: it raises the terms version of the tenant, the till then calls
events that were priced before `stale`, and their terms name the book that they have to be priced with. A model that is not known
is looked for in a newer book before it is refused.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from tallybook.ai_models import actions as ai_models
from tallybook.pricing.price_book import PriceBook
from tallybook.storage.postgres import Pool


@dataclass(slots=True)
class Lookout:
    """Lets those who ask at the same time share one look. Times are the event loop's."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    looked_at: float = -1.0


class Services(Protocol):
    """What looking needs."""

    book: PriceBook

    @property
    def database(self) -> Pool:
        """The book of the business, which holds the catalog."""
        ...

    @property
    def lookout(self) -> Lookout:
        """Who looked last."""
        ...


async def refresh(services: Services) -> bool:
    """Replace the price book by a newer one, whole. Returns whether it is another one than when this was called."""
    loop = asyncio.get_running_loop()
    asked_at, before = loop.time(), services.book
    async with services.lookout.lock:
        if services.lookout.looked_at <= asked_at:
            looked_at = loop.time()
            await _look(services)
            services.lookout.looked_at = looked_at
    return services.book is not before


async def _look(services: Services) -> None:
    async with services.database.acquire() as connection:
        if await ai_models.current_version(connection) > services.book.version:
            services.book = await ai_models.load_book(connection)
