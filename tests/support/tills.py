"""Charges for the real till, without terms or HTTP around them."""

from collections.abc import Callable

from tallybook.charge import states
from tallybook.charge.states import Pool, State
from tallybook.charge.till import Charge, Till, TillSettings
from tallybook.core import ids, partitions
from tallybook.core.usage_log import Kind, Record
from tallybook.storage.redis import Redis
from tests.support import book as books
from tests.support import log_builder


async def open_till(client: Redis) -> Till:
    """A till of books.PARTITIONS partitions."""
    till = Till(client, TillSettings("epoch-of-tests", books.PARTITIONS, 3600))
    await till.initialize()
    return till


def partition_of(customer_id: int) -> int:
    """Where the customer's pools are."""
    return partitions.of(1, customer_id, books.PARTITIONS)


def usage(customer_id: int, event_id: str, amount: int, *, opening: int, blocks: bool = False, spare: str = "") -> Charge:
    """A usage event that takes `amount` from the customer's pool."""
    record = log_builder.usage(event_id, amount, customer_id=customer_id, matched_by="exact")
    return Charge(partition_of(customer_id), record, -amount, opening, blocks, spare)


def change(
    kind: Kind, customer_id: int, name: str, amount: int, *, pool: str = log_builder.POOL, opening: int = 0, spare: str = ""
) -> Charge:
    """An adjustment, set or expiry; `name` is its identity."""
    digest = ids.event_digest(1, customer_id, name)
    record = Record(kind, 1, customer_id, digest, pool, amount, occurred_at_ms=log_builder.ACCEPTED_MS)
    return Charge(partition_of(customer_id), record, amount, opening, blocks=bool(spare), spare_pool=spare)


async def change_state(client: Redis, partition: int, customer_id: int, change: Callable[[State], State]) -> None:
    """Change what the till knows of a customer, behind its back."""
    key, name = states.key(partition), states.customer_field(customer_id)
    state = states.read(await client.execute_command("HGET", key, name))
    await client.execute_command("HSET", key, name, states.write(change(state)))


async def shift_pool(client: Redis, partition: int, customer_id: int, pool: str, by: int) -> None:
    """Change what the till says is left in a pool."""

    def shifted(state: State) -> State:
        held = state.pools[pool]
        return State(state.version, {**state.pools, pool: Pool(held.opening, held.left + by)}, state.frozen)

    await change_state(client, partition, customer_id, shifted)
