"""The workloads that go through HTTP: acknowledged with the rollup at rest, end to end with it running, and the bare ceiling."""

import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import msgspec
import orjson

from benchmarks import book, processes, traffic
from benchmarks.book import Acknowledged
from benchmarks.generator import Generator
from benchmarks.installation import Installation
from benchmarks.load import Job, Outcome
from benchmarks.processes import Usage
from tallybook.cli.ports import SharedPort
from tallybook.embedded.child import Child, Program

CONNECTIONS: Mapping[str, int] = {"W1": 64, "W2": 32, "W3": 64, "W4": 32, "single": 64}
_ROOT = Path(__file__).parent.parent
_HOLD_S, _GO_S, _LOOK_S = 1.5, 1.0, 0.1
"""The load pauses when the book is this far behind and goes on when it has caught up to that; looked at this often."""
_WARM_S = 1.0


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """What one stretch of load showed. CPU is seconds per million events, the same number as microseconds an event."""

    eps: float
    """Events accepted per second of load; requests per second where requests are not all events."""
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    events: int
    seconds: float
    cpu_s_per_million: Mapping[str, float]
    load_cpu_share: float
    """Of one core. The generator is no bottleneck while this is far below 1."""
    others_cores: float
    """Cores that processes of somebody else used meanwhile: not 0 means that the figures are too low."""
    lag_max_s: float = 0.0
    level_s: float = 0.0
    """Until the book had everything, after the load ended."""
    held_s: float = 0.0


@dataclass(slots=True)
class Loaded:
    """A workload with its generator connected and its account of what was acknowledged."""

    installation: Installation
    generator: Generator
    acknowledged: Acknowledged

    async def run(self, seconds: float) -> Outcome:
        """Send for some seconds and count the answers."""
        return self.acknowledged.add(await self.generator.run(seconds))


@contextlib.asynccontextmanager
async def loaded(installation: Installation, workload: str, run: str, acknowledged: Acknowledged) -> AsyncGenerator[Loaded]:
    """A workload whose customers' terms, connections and tables are warm and whose book is level."""
    spec = traffic.Spec(workload, run, installation.account.customers)
    job = Job(spec, installation.addresses, installation.account.key, CONNECTIONS[workload])
    async with Generator.started(job) as generator:
        made = Loaded(installation, generator, acknowledged)
        await made.run(_WARM_S)
        await book.until_level(installation.services)
        yield made


async def acknowledge(load: Loaded, seconds: float) -> Phase:
    """Load with the workers stopped in their tracks; they catch up afterwards."""
    installation = load.installation
    installation.running.rest_workers(on=True)
    try:
        before = installation.usage()
        outcome = await load.run(seconds)
        used = installation.usage().since(before)
    finally:
        installation.running.rest_workers(on=False)
    return _phase(outcome, used, outcome.seconds, level_s=await book.until_level(installation.services))


async def end_to_end(load: Loaded, seconds: float) -> Phase:
    """Load with the rollup running, held back while the book is a second and a half behind; the clock runs until it is level."""
    installation = load.installation
    before, started = installation.usage(), time.time()
    running = asyncio.create_task(load.run(seconds))
    lag_max_s = await _hold_back(load, running, started)
    outcome = await running
    level_s = await book.until_level(installation.services)
    used = installation.usage().since(before)
    return _phase(outcome, used, outcome.seconds + level_s, level_s=level_s, lag_max_s=lag_max_s)


async def _hold_back(load: Loaded, running: asyncio.Task[Outcome], started: float) -> float:
    """Hold and release the load by the book's lag until the run is over. Returns the largest lag seen."""
    lag_max_s, held = 0.0, False
    while not running.done():
        await asyncio.wait([running], timeout=_LOOK_S)
        lag_s = await book.lag_s(load.installation.services, started)
        lag_max_s = max(lag_max_s, lag_s)
        if held != (lag_s > (_GO_S if held else _HOLD_S)):
            held = not held
            load.generator.hold(on=held)
    if held:
        load.generator.hold(on=False)
    return lag_max_s


def _phase(outcome: Outcome, used: Usage, seconds: float, *, level_s: float = 0.0, lag_max_s: float = 0.0) -> Phase:
    done = outcome.events + outcome.checks
    cpu = {**used.by_role, "load": outcome.cpu_s, "others": max(used.machine - used.ours - outcome.cpu_s, 0.0)}
    return Phase(
        eps=done / seconds,
        requests_per_s=outcome.requests / seconds,
        p50_ms=outcome.p50_ms,
        p99_ms=outcome.p99_ms,
        p999_ms=outcome.p999_ms,
        events=done,
        seconds=seconds,
        cpu_s_per_million={role: spent / max(done, 1) * 1e6 for role, spent in cpu.items() if role != "others"},
        load_cpu_share=outcome.cpu_s / max(outcome.seconds, 1e-9),
        others_cores=cpu["others"] / max(seconds, 1e-9),
        lag_max_s=lag_max_s,
        level_s=level_s,
        held_s=outcome.held_s,
    )


async def bare(installation: Installation, workload: str, acknowledged: Acknowledged, seconds: float) -> Phase:
    """The same load on as many bare servers as there are API processes, while the installation idles."""
    with tempfile.TemporaryDirectory(prefix="tallybook-bare-") as name:
        sample = Path(name) / "answer.json"
        sample.write_bytes(await _sample(installation, workload, acknowledged))
        ports = [SharedPort("127.0.0.1", 0) for _ in installation.running.apis]
        servers = [Child(_bare_server(Path(name), number, port.port, sample)) for number, port in enumerate(ports)]
        try:
            await asyncio.gather(*(_until_open(port) for port in ports))
            return await _bare_load(installation, workload, [child.pid for child in servers], ports, seconds)
        finally:
            for child in servers:
                child.stop()
            for port in ports:
                port.close()


async def _bare_load(
    installation: Installation, workload: str, pids: Sequence[int], ports: Sequence[SharedPort], seconds: float
) -> Phase:
    spec = traffic.Spec(workload, "bare", installation.account.customers)
    addresses = [(port.host, port.port) for port in ports]
    async with Generator.started(Job(spec, addresses, "", CONNECTIONS[workload])) as generator:
        await generator.run(_WARM_S / 2)
        before = processes.read({"bare": pids})
        outcome = await generator.run(seconds)
        return _phase(outcome, processes.read({"bare": pids}).since(before), outcome.seconds)


async def _sample(installation: Installation, workload: str, acknowledged: Acknowledged) -> bytes:
    """What Tallybook answers to a first request of a workload."""
    spec = traffic.Spec(workload, f"sample-{workload}", installation.account.customers)
    template = traffic.templates(spec)[0]
    url = f"{installation.running.ports[0].url}/api/v1{template.path}"
    headers = {"x-api-key": installation.account.key, "commet-version": "2026-08-27", "content-type": "application/json"}
    async with (
        aiohttp.ClientSession(raise_for_status=True) as http,
        http.post(url, data=template.next_body(time.time_ns() % 10**8), headers=headers) as answer,
    ):
        acknowledged.events += template.expected.accepted
        return orjson.dumps(orjson.loads(await answer.read()))


def _bare_server(folder: Path, number: int, port: int, sample: Path) -> Program:
    command = [sys.executable, "-m", "benchmarks.bare_server", str(port), sample]
    return Program(f"bare-{number}", command, folder / "pids", folder=_ROOT)


async def _until_open(port: SharedPort) -> None:
    async with asyncio.timeout(60.0):
        while True:
            try:
                _, writer = await asyncio.open_connection(port.host, port.port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return
