"""After a change of terms is committed, the till is told; only then is the change answered.

The change left a row in `terms_bumps` in its own transaction, so a crash in between loses nothing: the worker tells what is left.
The till never lowers a version, so telling it twice, or in any order, is harmless.
"""

from collections.abc import Iterable
from typing import Protocol

from tallybook.charge.till import Till
from tallybook.core import errors
from tallybook.core.clock import Clock
from tallybook.core.tenant import Tenant
from tallybook.storage import postgres, redis
from tallybook.tenancy import actions as tenancy
from tallybook.tenancy.model import TermsBump


class Services(Protocol):
    """What publishing needs."""

    @property
    def database(self) -> postgres.Pool:
        """The book."""
        ...

    @property
    def till(self) -> Till:
        """The till to be told."""
        ...

    @property
    def clock(self) -> Clock:
        """The real time."""
        ...


async def publish(services: Services, tenant: Tenant) -> int:
    """Tell the till every committed change of a tenant's terms that it may not know. Returns how many there were.

    Raises Unavailable when the till can't be told; the changes stay queued, and until then usage is priced with the terms before.
    """
    delivered = 0
    async with services.database.acquire() as connection:
        while bumps := await tenancy.undelivered_bumps(connection, tenant):
            await _tell(services.till, tenant, bumps)
            await tenancy.mark_delivered(connection, [bump.id for bump in bumps], services.clock())
            delivered += len(bumps)
    return delivered


async def publish_stragglers(services: Services) -> int:
    """Publish for every tenant that a crash or a lost till has left changes of. Returns how many changes there were."""
    async with services.database.acquire() as connection:
        tenants = await tenancy.tenants_with_undelivered_bumps(connection)
    return sum([await publish(services, tenant) for tenant in tenants])


async def _tell(till: Till, tenant: Tenant, bumps: Iterable[TermsBump]) -> None:
    newest: dict[int | None, int] = {}
    for bump in bumps:
        newest[bump.customer_id] = max(bump.version, newest.get(bump.customer_id, 0))
    try:
        for customer_id, version in newest.items():
            await till.bump_terms(tenant.id, customer_id, version)
    except redis.RedisError as error:
        message = "The change is saved, and the till could not be told yet; send the request again with the same Idempotency-Key."
        raise errors.Unavailable("till_unavailable", message) from error
