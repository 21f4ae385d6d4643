"""The service on a Redis Cluster: each master is killed in turn under load, stays away for a while, and comes back."""

import asyncio
import json
import threading
from collections.abc import Set as AbstractSet
from decimal import Decimal
from pathlib import Path

from tallybook.core import partitions
from tallybook.storage import redis
from tests.crash import ground as grounds
from tests.crash.ground import Ground
from tests.support.redis_cluster import MASTERS

EVENTS_BETWEEN = 800
_PROBES = 60
_LOOK_S = 0.01


async def test_a_killed_master_costs_only_its_own_partitions_and_nothing_is_lost_or_doubled(folder: Path) -> None:
    async with grounds.prepared(folder, seed=20_261_120, apis=2, customers_each=6, clustered=True) as ground:
        async with grounds.loaded(ground):
            ground.loading(rate=1000)
            for number in range(1, MASTERS + 1):
                await accept_more(ground)
                back = threading.Event()
                dead = await partitions_of(ground, number)
                ground.field.target(f"redis-{number}").kill(ground.field.starters, back.wait)
                try:
                    await check_who_is_served(ground, dead)
                finally:
                    back.set()
                await grounds.until_ready(ground.field)
        before = await grounds.judge(ground)
        assert await masters_with_a_log(ground) == set(range(1, MASTERS + 1))
        await grounds.end_period(ground)
        result = grounds.result(ground, await grounds.judge(ground), before.problems(), kills=MASTERS)
    assert result.problems == []
    assert "lost=0 double=0 drift=0 unknown=0" in result.line


async def accept_more(ground: Ground) -> None:
    """Wait until some more events are accepted: a kill that hits an idle system proves nothing."""
    goal = ground.load.accepted + EVENTS_BETWEEN
    while ground.load.accepted < goal:
        ground.field.check()
        await asyncio.sleep(_LOOK_S)


async def partitions_of(ground: Ground, number: int) -> set[int]:
    """The partitions that a master holds."""
    assert ground.field.cluster is not None
    port = ground.field.cluster.ports[number - 1]
    client = redis.connect(ground.field.settings.redis_url)
    groups = await client.by_server([partitions.prefix(one) for one in range(ground.field.settings.partitions)])
    await client.close()
    return {place for server, places in groups for place in places if server.name.endswith(f":{port}")}


async def check_who_is_served(ground: Ground, dead: AbstractSet[int]) -> None:
    """Events of customers in dead partitions are to be sent again; all others get a definite answer, in the same request."""
    events = [ground.load.event() for _ in range(_PROBES)]
    body = json.dumps({"events": [event for _, event in events]}).encode()
    answer = await asyncio.to_thread(ground.account.call, "POST", "/usage/events/batch", raw=body)
    assert answer.status == 200, answer
    served = set[bool]()
    for (customer, event), result in zip(events, answer.body["results"], strict=True):
        is_dead = partitions.of(ground.load.tenant_id, customer.id, ground.field.settings.partitions) in dead
        assert (result["status"] == "retry") == is_dead, (result, is_dead)
        ground.load.note(customer, event, json.loads(json.dumps(result), parse_float=Decimal))
        served.add(is_dead)
    assert served == {True, False}


async def masters_with_a_log(ground: Ground) -> set[int]:
    """Those that have written to the log of a partition of theirs."""
    client = redis.connect(ground.field.settings.redis_url)
    sequences = await client.pipeline(
        *[("HGET", f"{partitions.prefix(one)}:m", "seq") for one in range(ground.field.settings.partitions)], atomic=False
    )
    await client.close()
    held = {number: await partitions_of(ground, number) for number in range(1, MASTERS + 1)}
    return {number for number, those in held.items() if any(int(sequences[one] or 0) > 0 for one in those)}
