"""After a change of terms is committed, the till is told; only then is the change answered.

The change left a row in `terms_bumps` in its own transaction, so a crash in between loses nothing: the worker tells what is left.
The till never lowers a version, so telling it twice, or in any order, is harmless. On a cluster a server that is away leaves untold
what is of its own partitions; all else is told.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from tallybook.charge.till import Till
from tallybook.core import errors
from tallybook.core.clock import Clock
from tallybook.core.tenant import Tenant
from tallybook.storage import postgres, redis
from tallybook.tenancy import actions as tenancy


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


@dataclass(frozen=True, slots=True)
class Told:
    """How many changes the till knows now, and why it could not be told of these customers (None: of all of the tenant's)."""

    count: int
    untold: Mapping[int | None, errors.Unavailable]


async def tell(services: Services, tenant: Tenant) -> Told:
    """Tell the till every committed change of a tenant's terms that it may not know; what it can't be told stays queued.

    Raises Unavailable when the till is one server and can't be told.
    """
    count, after, untold = 0, 0, dict[int | None, errors.Unavailable]()
    async with services.database.acquire() as connection:
        while bumps := await tenancy.undelivered_bumps(connection, tenant, after=after):
            newest: dict[int | None, int] = {}
            for bump in bumps:
                newest[bump.customer_id] = max(bump.version, newest.get(bump.customer_id, 0))
            untold |= await _tell(services.till, tenant, newest)
            told = [bump.id for bump in bumps if bump.customer_id not in untold]
            await tenancy.mark_delivered(connection, told, services.clock())
            count, after = count + len(told), bumps[-1].id
    return Told(count, untold)


async def publish(services: Services, tenant: Tenant) -> int:
    """Tell the till every committed change of a tenant's terms that it may not know. Returns how many there were.

    Raises Unavailable when one of them can't be told; that one stays queued, and until then usage is priced with the terms before.
    """
    told = await tell(services, tenant)
    for problem in told.untold.values():
        raise problem
    return told.count


async def publish_stragglers(services: Services) -> int:
    """Publish for every tenant that a crash or a lost till has left changes of. Returns how many changes there were.

    Raises Unavailable when some could not be told, after all others were.
    """
    count, after, problem = 0, 0, None
    while tenants := await _tenants_to_tell(services, after):
        for tenant in tenants:
            told = await tell(services, tenant)
            count, problem = count + told.count, next(iter(told.untold.values()), problem)
        after = tenants[-1].id
    if problem is not None:
        raise problem
    return count


async def _tenants_to_tell(services: Services, after: int) -> list[Tenant]:
    async with services.database.acquire() as connection:
        return await tenancy.tenants_with_undelivered_bumps(connection, after=after)


async def _tell(till: Till, tenant: Tenant, newest: Mapping[int | None, int]) -> dict[int | None, errors.Unavailable]:
    """Tell versions by customer. Returns those that could not be told: where one can't be, nobody else of its partition is tried."""
    untold: dict[int | None, errors.Unavailable] = {}
    away: dict[int | None, errors.Unavailable] = {}
    for customer_id, version in newest.items():
        partition = None if customer_id is None else till.partition_of(tenant.id, customer_id)
        try:
            if partition not in away:
                await till.bump_terms(tenant.id, customer_id, version)
        except (redis.RedisError, errors.Unavailable) as error:
            away[partition] = _untold(error)
            if not till.fails_apart:
                raise away[partition] from error
        if partition in away:
            untold[customer_id] = away[partition]
    return untold


def _untold(error: redis.RedisError | errors.Unavailable) -> errors.Unavailable:
    if isinstance(error, errors.Unavailable):
        return error
    message = (
        "The change is saved, and the till could not be told yet of all changes of this organization; "
        "send the request again with the same Idempotency-Key."
    )
    return errors.Unavailable("till_unavailable", message)
