"""Embedded servers: durable, private, alone on their folder, and back after any kind of end."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tallybook.embedded import folders, leftovers
from tallybook.embedded.failures import EmbeddedError
from tallybook.embedded.stores import Stores
from tallybook.storage import postgres, redis

SMALL = {"shared_buffers": "16MB"}
HOLDER = """
import sys, time
from pathlib import Path
from tallybook.embedded.stores import Stores
with Stores(Path(sys.argv[1]), postgres_settings={"shared_buffers": "16MB"}):
    print("up", flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that was started and stopped once."""
    data = tmp_path_factory.mktemp("made")
    with open_stores(data):
        pass
    return data


def open_stores(data: Path) -> Stores:
    return Stores(data, postgres_settings=SMALL)


async def write(stores: Stores, value: str) -> None:
    connection = await postgres.connect_one(stores.postgres.url)
    await connection.execute("CREATE TABLE IF NOT EXISTS kept (value text)")
    await connection.execute("INSERT INTO kept VALUES ($1)", value)
    await connection.close()
    client = redis.connect(stores.redis.url)
    await client.execute_command("RPUSH", "kept", value)
    await client.close()


async def read(stores: Stores) -> tuple[list[str], list[str]]:
    connection = await postgres.connect_one(stores.postgres.url)
    rows = await connection.fetch("SELECT value FROM kept ORDER BY value")
    await connection.close()
    client = redis.connect(stores.redis.url)
    values = await client.execute_command("LRANGE", "kept", 0, -1)
    await client.close()
    return [row["value"] for row in rows], sorted(value.decode() for value in values)


async def test_what_was_acknowledged_outlives_every_kind_of_end(tmp_path: Path) -> None:
    with open_stores(tmp_path) as first:
        await write(first, "1 before a clean stop")
    with open_stores(tmp_path) as second:
        await write(second, "2 before both were killed")
        second.redis.child.kill()
        second.postgres.child.kill()
    with open_stores(tmp_path) as third:
        third.postgres.child.kill()
        third.postgres.start()
        third.redis.child.kill()
        third.redis.start()
        await write(third, "3 after each was killed and started again")
        kept = ["1 before a clean stop", "2 before both were killed", "3 after each was killed and started again"]
        assert await read(third) == (kept, kept)


def test_a_stop_leaves_no_process_socket_or_lock_behind(made: Path) -> None:
    with open_stores(made) as stores:
        pids = [stores.postgres.child.pid, stores.redis.child.pid]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert leftovers.names(made / "pids") == []
    assert [found for found in (made / "sockets").rglob("*") if found.is_socket()] == []


@pytest.fixture
def killed_holder(made: Path) -> list[tuple[int, str]]:
    """A process that had started the stores on `made` and was killed: the records of its children."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", HOLDER, made], stdout=subprocess.PIPE, env=environment) as holder:  # noqa: S603 - ours
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"up\n"
        records = [(made / "pids" / name).read_text().split() for name in leftovers.names(made / "pids")]
        holder.kill()
    return [(int(pid), started) for pid, started in records]


def test_children_of_a_killed_parent_end_by_themselves_on_linux(killed_holder: list[tuple[int, str]]) -> None:
    assert len(killed_holder) == 2
    deadline = time.monotonic() + 30
    while sys.platform == "linux" and any(leftovers.is_same(*child) for child in killed_holder) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(leftovers.is_same(*child) for child in killed_holder) or sys.platform != "linux"


def test_a_start_stops_what_a_killed_parent_left_behind(made: Path, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as orphan:
        leftovers.record(made / "pids", "worker", orphan.pid)
        with open_stores(made) as stores:
            assert stores.left_behind == ["worker"]
        assert orphan.wait() == -signal.SIGTERM
    leftovers.record(tmp_path, "stranger", os.getpid())
    (tmp_path / "stranger").write_text(f"{os.getpid()} 1\n")
    assert leftovers.stop(tmp_path, "stranger", signal.SIGKILL) is False


def test_a_folder_has_one_user_at_a_time(made: Path) -> None:
    with open_stores(made), pytest.raises(EmbeddedError, match=f"in use by process {os.getpid()}: stop that one"):
        open_stores(made)


@pytest.mark.parametrize("name", ["with space, comma and 'quotes\" äé", "deep/" + "a" * 100 + "/" + "b" * 100])
async def test_any_folder_name_and_depth_works(tmp_path: Path, name: str) -> None:
    with open_stores(tmp_path / name) as stores:
        await write(stores, "here")
        assert await read(stores) == (["here"], ["here"])
        found = redis.pairs(await _redis_config(stores, "unixsocket"))
    assert len(found[b"unixsocket"]) <= folders.SOCKET_PATH_BYTES_MAX


async def test_a_folder_below_closed_ones_works_and_they_stay_closed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    with open_stores(home / "data") as stores:
        await write(stores, "here")
        assert await read(stores) == (["here"], ["here"])
    assert home.stat().st_mode & 0o777 == 0o700


async def test_the_servers_listen_on_no_network_port(made: Path) -> None:
    with open_stores(made) as stores:
        assert redis.pairs(await _redis_config(stores, "port")) == {b"port": b"0"}
        connection = await postgres.connect_one(stores.postgres.url)
        assert await connection.fetchval("SHOW listen_addresses") == ""
        await connection.close()


def test_a_pid_file_whose_number_another_process_has_now_does_not_stop_postgres(made: Path) -> None:
    cluster = made / "postgres"
    pid_file = cluster / "postmaster.pid"
    pid_file.write_text(f"{os.getpid()}\n{cluster}\n1\n5432\n{made}\n\n 1 1\nready   \n")
    os.chown(pid_file, cluster.stat().st_uid, cluster.stat().st_gid)
    with open_stores(made):
        pass


async def test_a_cluster_that_was_not_finished_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "postgres.unfinished" / "base").mkdir(parents=True)
    with open_stores(tmp_path) as stores:
        await write(stores, "here")
    assert not (tmp_path / "postgres.unfinished").exists()


def test_a_cluster_of_another_version_is_refused_by_name(made: Path) -> None:
    version = made / "postgres" / "PG_VERSION"
    before = version.read_text()
    version.write_text("16\n")
    try:
        with pytest.raises(EmbeddedError, match="was made by Postgres 16, not 18"), open_stores(made):
            pass
    finally:
        version.write_text(before)


async def test_a_torn_end_of_the_redis_log_is_cut_and_the_rest_is_kept(tmp_path: Path) -> None:
    with open_stores(tmp_path) as stores:
        await write(stores, "whole")
        stores.redis.child.kill()
        with (tmp_path / "redis" / "appendonly.aof").open("ab") as log:
            log.write(b"*3\r\n$5\r\nRPUSH\r\n$4\r\nkept\r\n$4\r\nto")
        stores.redis.start()
        assert (await read(stores))[1] == ["whole"]


def test_a_server_that_does_not_start_shows_the_end_of_its_log(made: Path) -> None:
    log = made / "redis" / "appendonly.aof"
    before = log.read_bytes()
    log.write_bytes(b"nonsense\n" * 100)
    try:
        said = re.compile(r"Redis did not start.*Bad file format", re.DOTALL)
        with pytest.raises(EmbeddedError, match=said), open_stores(made):
            pass
    finally:
        log.write_bytes(before)
    with open_stores(made):
        pass


def test_a_socket_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sockets").mkdir()
    (tmp_path / "sockets").chmod(0o777)
    with pytest.raises(EmbeddedError, match="not a folder that only this user can write to"):
        open_stores(tmp_path)
    (tmp_path / "sockets").chmod(0o700)
    with open_stores(tmp_path):
        pass


async def _redis_config(stores: Stores, name: str) -> list[bytes]:
    client = redis.connect(stores.redis.url)
    try:
        return await client.execute_command("CONFIG", "GET", name)
    finally:
        await client.close()
