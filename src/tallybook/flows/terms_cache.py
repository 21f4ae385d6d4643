"""Terms at hand: what each process remembers of the customers it serves. The till decides whether it is still true."""

import asyncio

from tallybook.core.clock import Clock
from tallybook.core.tenant import Tenant
from tallybook.storage import postgres
from tallybook.subscriptions import terms_loader
from tallybook.subscriptions.terms import Terms

_Key = tuple[int, str]


class TermsCache:
    """Terms by customer reference, the oldest forgotten first. Belongs to one event loop."""

    def __init__(self, database: postgres.Pool, clock: Clock, partition_count: int, size_max: int = 200_000) -> None:
        self._database = database
        self._clock = clock
        self._partition_count = partition_count
        self._size_max = size_max
        self._known: dict[_Key, Terms] = {}
        self._loading: dict[_Key, asyncio.Task[Terms | None]] = {}

    def at_hand(self, tenant: Tenant, reference: str) -> Terms | None:
        """The remembered terms, however old; no I/O."""
        return self._known.get((tenant.id, reference))

    async def load(self, tenant: Tenant, reference: str) -> Terms | None:
        """The terms as the book has them now, or None for an unknown customer. Loads of one customer at a time are shared."""
        key = (tenant.id, reference)
        loading = self._loading.get(key)
        if loading is None:
            loading = asyncio.create_task(self._load(tenant, reference))
            self._loading[key] = loading
            loading.add_done_callback(lambda _task: self._loading.pop(key, None))
        return await asyncio.shield(loading)

    async def get(self, tenant: Tenant, reference: str) -> Terms | None:
        """The remembered terms, else the book's."""
        return self.at_hand(tenant, reference) or await self.load(tenant, reference)

    async def _load(self, tenant: Tenant, reference: str) -> Terms | None:
        async with postgres.snapshot(self._database) as connection:
            terms = await terms_loader.load(connection, tenant, reference, self._clock(), self._partition_count)
        if terms is None:
            self._known.pop((tenant.id, reference), None)
            return None
        while len(self._known) >= self._size_max:
            del self._known[next(iter(self._known))]
        self._known[tenant.id, reference] = terms
        return terms
