"""Installations on a till of their own that can lose its Redis: emptied, swapped for an older copy, or for another one's."""

import dataclasses
import hashlib
from collections.abc import Sequence

import msgspec

from tallybook.charge.fence import Claim
from tallybook.charge.till import Charge, Receipt, Till, TillSettings
from tallybook.core import errors
from tallybook.flows import claim, reconcile
from tallybook.flows.reconcile import Report
from tallybook.flows.services import Services
from tallybook.rollup import actions as rollup
from tallybook.rollup import store as rollup_store
from tallybook.rollup.model import PassResult
from tallybook.storage import postgres, redis
from tallybook.storage.redis import Redis
from tests.support import api, tills
from tests.support import book as books

HOT_WINDOW_S = 3600
_TABLES = (
    "log_offsets, usage_events, usage_hourly, pool_balances, pool_ledger, quarantine, frozen_customers, customer_terms, "
    "billing_periods, subscriptions, installation, tenants, organizations"
)
Copy = dict[bytes, bytes]


async def install(database: postgres.Pool, client: Redis, postgres_url: str) -> Services:
    """A new installation with one tenant (number 1), on emptied stores."""
    await redis.everywhere(client, "FLUSHALL")
    await database.execute(f"TRUNCATE {_TABLES} RESTART IDENTITY CASCADE")
    services = await api.make_services(database, client)
    assert api.PARTITIONS == books.PARTITIONS
    await database.execute("UPDATE installation SET till_made_at = now()")
    await database.execute("INSERT INTO organizations (id, name) VALUES ('org_1', 'One')")
    await database.execute("INSERT INTO tenants (organization_id, livemode, terms_version) VALUES ('org_1', false, 0)")
    return dataclasses.replace(services, settings=dataclasses.replace(services.settings, postgres_url=postgres_url))


async def another_process(services: Services, away: Sequence[bool] = ()) -> Till:
    """The till as a process sees it that starts now; while `away` holds anything, it can't ask the book."""
    ask = claim.asker(services.database, api.PARTITIONS)

    async def ask_unless_away() -> Claim:
        if away:
            raise errors.Unavailable("database_unavailable", "away")
        return await ask()

    async with services.database.acquire() as connection:
        epoch = await connection.fetchval("SELECT epoch FROM installation")
    settings = TillSettings(epoch, api.PARTITIONS, HOT_WINDOW_S)
    return Till(services.redis, settings, ask_book=ask_unless_away)


async def roll_up(services: Services) -> PassResult:
    """Everything that the log holds."""
    return await roll_up_of(services, range(api.PARTITIONS))


async def roll_up_of(services: Services, partitions: Sequence[int]) -> PassResult:
    """Everything that the log of these partitions holds."""
    return await rollup.roll_up(services.database, services.redis, partitions, services.clock(), services.till.epoch)


async def look(services: Services) -> Report:
    """Compare everything."""
    return await reconcile.reconcile(services.database, services.redis, api.PARTITIONS)


async def use(till: Till, customer_id: int, event_id: str, amount: int) -> Receipt:
    """One event on the customer's pool of 1000, with a fingerprint of its own."""
    [receipt] = await till.charge([event(customer_id, event_id, amount)])
    return receipt


def event(customer_id: int, event_id: str, amount: int) -> Charge:
    """The same as it is sent; another amount is another payload."""
    charge = tills.usage(customer_id, event_id, amount, opening=1000, blocks=True, spare="credits")
    fingerprint = hashlib.blake2b(f"{event_id} {amount}".encode(), digest_size=12).digest()
    return msgspec.structs.replace(charge, record=msgspec.structs.replace(charge.record, fingerprint=fingerprint))


async def copy_of(client: Redis) -> Copy:
    """All keys as they are now."""
    keys: list[bytes] = await client.execute_command("KEYS", "*")
    return {key: await client.execute_command("DUMP", key) for key in keys}


async def put_back(client: Redis, copy: Copy) -> None:
    """Only these keys, in the same run of the server."""
    await client.execute_command("FLUSHALL")
    for key, value in copy.items():
        await client.execute_command("RESTORE", key, 0, value)


async def restart(client: Redis, held: Sequence[int] = range(api.PARTITIONS)) -> None:
    """What a start of their server on the same data means to partitions: the run that they were admitted in is over."""
    for partition in held:
        await client.execute_command("HSET", f"{{p{partition:02d}}}:m", "run", "the run before")


async def offsets(services: Services) -> list[int]:
    """How far the book has read."""
    read = await rollup_store.offsets(services.database, range(api.PARTITIONS))
    return [read[partition] for partition in range(api.PARTITIONS)]
