"""What a run was measured on: machine, versions, and the durability that the stores themselves say they have."""

import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from tallybook.flows.services import Services

_PACKAGES = ("aiohttp", "asyncpg", "hiredis", "msgspec", "orjson", "polars", "redis", "uvloop")
_REDIS = ("appendonly", "appendfsync", "no-appendfsync-on-rewrite", "maxmemory-policy")
_POSTGRES = ("fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "server_version")


def describe() -> Mapping[str, object]:
    """The machine, and how busy it is already: figures of a busy machine are too low."""
    cpu = [
        line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    ]
    memory_kb = Path("/proc/meminfo").read_text().split()[1]
    return {
        "cpu": cpu[0] if cpu else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(int(memory_kb) / 2**20, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "load_before": os.getloadavg()[0],
    }


async def durability(services: Services) -> Mapping[str, str]:
    """The settings that acknowledged usage rests on, asked from the running stores."""
    found: dict[str, str] = {}
    for name in _REDIS:
        _, value = await services.redis.execute_command("CONFIG", "GET", name)
        found[f"redis {name}"] = value.decode()
    for name in _POSTGRES:
        found[f"postgres {name}"] = str(await services.database.fetchval(f"SHOW {name}"))
    return found
