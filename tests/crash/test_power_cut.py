"""The short form of the power cuts, on every test run; `python -m tests.crash.power_cut` is the long one."""

import asyncio
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tallybook.embedded import folders
from tallybook.storage import redis
from tallybook.storage.redis import Redis
from tests.crash import power_cut, synced
from tests.crash.synced import WatchedRedis
from tests.support import waiting

CUTS = 5
CONTROL_CUTS = 1
_WRITERS = 4
_AOF = "appendonly.aof"

pytestmark = pytest.mark.skipif(synced.missing_compiler() is not None, reason=synced.missing_compiler() or "")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path that the database's user can enter."""
    with tempfile.TemporaryDirectory(prefix="tallybook-power-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


async def test_a_power_cut_loses_nothing_that_was_acknowledged(folder: Path) -> None:
    result = await power_cut.run(folder, cuts=CUTS, seed=20_261_120, progress=print)
    assert result.problems == []
    assert result.is_clean
    assert f"cuts={CUTS} " in result.line
    assert result.acked > CUTS * 100


async def test_the_same_cuts_lose_events_where_redis_syncs_once_a_second(folder: Path) -> None:
    """Proof that the harness can see a loss, and that what lost something is refused until it was made anew."""
    result = await power_cut.run(folder, cuts=CONTROL_CUTS, seed=20_261_120, appendfsync="everysec", progress=print)
    assert result.lost > 0
    assert result.cuts.rebuilt > 0
    assert not result.is_clean


async def test_a_cut_right_after_a_rewritten_file_took_its_place_loses_nothing(folder: Path) -> None:
    """The server dies after the rename and before whatever it syncs next; clients write all the while."""
    server = WatchedRedis(folders.make(folder / "data"), synced.build(folder))
    server.kill_after_rename_to = _AOF
    await asyncio.to_thread(server.start)
    counted = await _count_through_a_rewrite(server)
    server.lose_unsynced(random.Random(1))
    server.kill_after_rename_to = ""
    await asyncio.to_thread(server.start)
    client = redis.connect(server.url)
    found = int(await client.execute_command("GET", "n"))
    await client.close()
    await asyncio.to_thread(server.stop)
    assert counted[-1] > 0
    assert counted[-1] <= found <= counted[-1] + _WRITERS


async def _count_through_a_rewrite(server: WatchedRedis) -> list[int]:
    """Writers count until the server dies of its rewrite. Returns what was acknowledged, in order."""
    client = redis.connect(server.url)
    await client.execute_command("SET", "ballast", "x" * 10_000_000)
    acknowledged: list[int] = [0]

    async def count() -> None:
        own = redis.connect(server.url, connections_max=1)
        try:
            while True:
                acknowledged.append(int(await own.execute_command("INCR", "n")))
        except redis.RedisError:
            await own.close()

    writers = [asyncio.create_task(count()) for _ in range(_WRITERS)]
    await _begin_rewrite(client)
    await asyncio.gather(*writers)
    await client.close()
    return sorted(acknowledged)


async def _begin_rewrite(client: Redis) -> None:
    async def is_counting() -> bool:
        return int(await client.execute_command("GET", "n") or 0) > _WRITERS

    await waiting.until(is_counting)
    await client.execute_command("BGREWRITEAOF")
