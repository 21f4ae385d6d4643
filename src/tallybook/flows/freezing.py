"""A customer whose pools do not reconcile is charged nothing until somebody has looked. The till refuses; the book remembers why.

Both are changed under the lock of the book's row, so a freeze and a thaw that meet leave both sides saying the same.
"""

from collections.abc import Sequence

from tallybook.charge.commands import Receipt
from tallybook.core import errors
from tallybook.flows.services import Services
from tallybook.rollup import freezes
from tallybook.rollup.freezes import Frozen
from tallybook.storage import postgres

_COME_BACK_S = 30


def reason(pool: str, why: str) -> str:
    """What the owner of the pool is told."""
    return f"pool {pool} {why}"


def refusal(receipt: Receipt) -> errors.Unavailable:
    """What the customer's owner is told: nothing was recorded, and which pool is the reason."""
    why = receipt.reason or "a pool would leave the range in which it is exact"
    message = f"The customer's pools are frozen and take no change: {why}. Nothing was recorded; an operator has to look."
    return errors.Unavailable("pool_frozen", message, retry_after_s=_COME_BACK_S, details={"reason": why})


async def freeze(services: Services, tenant_id: int, customer_id: int, why: str) -> None:
    """Charge this customer nothing from now on. Raises Unavailable and what the stores raise; then nothing is known to be done."""
    async with postgres.transaction(services.database) as connection:
        await freezes.note(connection, tenant_id, customer_id, why)
        await services.till.freeze(tenant_id, customer_id, why)


async def thaw(services: Services, tenant_id: int, customer_id: int) -> None:
    """Charge this customer again. Raises as `freeze` does."""
    async with postgres.transaction(services.database) as connection:
        await freezes.forget(connection, customer_id)
        await services.till.thaw(tenant_id, customer_id)


async def keep(services: Services) -> Sequence[Frozen]:
    """See to it that the till refuses all whom the book says it must. Returns them."""
    async with services.database.acquire() as connection:
        frozen = await freezes.every(connection)
    for one in frozen:
        async with postgres.transaction(services.database) as connection:
            if await freezes.hold(connection, one.customer_id):
                await services.till.freeze(one.tenant_id, one.customer_id, one.reason)
    return frozen
