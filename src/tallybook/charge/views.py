"""What the till holds of customers, read without changing anything.

What is asked for at the same time goes in one call, where one server has it all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import NamedTuple

from tallybook.charge import states
from tallybook.charge.lane import Lane, LaneLimits
from tallybook.core import partitions
from tallybook.storage import redis
from tallybook.storage.redis import Redis

_SCRIPT = resources.files("tallybook.charge").joinpath("read.lua").read_bytes()


@dataclass(frozen=True, slots=True)
class PoolState:
    """One pool as the till holds it: what the terms granted, and what is left. 1e-9 of the pool's unit."""

    opening: int
    left: int


@dataclass(frozen=True, slots=True)
class CustomerView:
    """All that the till holds of one customer, read in one atomic step together with the partition's last log sequence."""

    tenant_version: int
    customer_version: int
    frozen: bool
    pools: Mapping[str, PoolState]
    sequence: int


class Wanted(NamedTuple):
    """Whose state is wanted, and where it is."""

    partition: int
    tenant_id: int
    customer_id: int


class Found(NamedTuple):
    """The partition's epoch, whether it is closed, and the customer in it."""

    epoch: str | None
    is_closed: bool
    view: CustomerView


class Views:
    """The reader of one process. Belongs to the event loop it is used from."""

    def __init__(self, client: Redis, limits: LaneLimits) -> None:
        self._redis = client
        self._lane = None if client.is_cluster else Lane(self._read, limits)

    async def read(self, wanted: Wanted) -> Found:
        """What is there now, or was when the call that took this one along ran. Raises RedisError, and RateLimited when too many wait."""
        [found] = await (self._read([wanted]) if self._lane is None else self._lane.ask([wanted]))
        return found

    async def _read(self, every: Sequence[Wanted]) -> list[Found]:
        prefixes = [partitions.prefix(wanted.partition) for wanted in every]
        fields = [
            field
            for wanted in every
            for field in (states.tenant_field(wanted.tenant_id), states.customer_field(wanted.customer_id))
        ]
        return [_found(*reply) for reply in await self._redis.execute_command("EVAL", _SCRIPT, len(every), *prefixes, *fields)]


def _found(
    epoch: bytes | None, sequence: bytes | None, closed: bytes | None, tenant_version: bytes | None, known: bytes | None
) -> Found:
    state = states.read(known)
    view = CustomerView(
        tenant_version=int(redis.text(tenant_version) or 0),
        customer_version=state.version,
        frozen=state.frozen is not None,
        pools={name: PoolState(pool.opening or 0, pool.left) for name, pool in state.pools.items()},
        sequence=int(redis.text(sequence) or 0),
    )
    return Found(redis.text(epoch), closed is not None, view)
