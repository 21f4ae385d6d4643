"""The load generator, a process of its own: `python -m benchmarks.load`, told what to do on stdin, one JSON line at a time.

The first line is a `Job`; it is answered with a line when all connections are open. Then each `{"run_s": seconds}` sends for that
long and is answered with an `Outcome`. `{"hold": true}` makes every connection pause after the answer it waits for, until
`{"hold": false}`. Connections speak bare HTTP/1.1 on sockets: a request goes out as soon as the answer to the one before is
complete. An answer's status and counts are compared with what they must be; bodies are not parsed beyond that.
"""

import asyncio
import re
import resource
import sys
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

import msgspec
import uvloop

from benchmarks import traffic
from benchmarks.traffic import Expected, Template

_ANSWER_BYTES_MAX = 1 << 20
_TAIL_BYTES = 200
_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_COUNT = re.compile(rb'"(accepted|duplicates|conflicts|rejected|invalid|retry)":(\d+)')
_OK, _CONFLICT = b"200", b"409"
_STATUS_BYTES, _SHOWN_BYTES = 15, 300


class Job(msgspec.Struct, frozen=True):
    """What to send and where: `addresses` are (host, port) of the API processes, which the connections are shared among."""

    spec: traffic.Spec
    addresses: Sequence[tuple[str, int]]
    key: str
    connections: int


class Command(msgspec.Struct, frozen=True):
    """A line that follows the job."""

    run_s: float | None = None
    hold: bool | None = None


class Outcome(msgspec.Struct):
    """What one run saw. `unknown` are requests without a definite answer: then nobody knows what was recorded, and the run is void."""

    seconds: float = 0.0
    cpu_s: float = 0.0
    requests: int = 0
    accepted: int = 0
    duplicates: int = 0
    conflicts: int = 0
    checks: int = 0
    unexpected: int = 0
    unknown: int = 0
    held_s: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    p999_ms: float = 0.0
    example: str = ""

    @property
    def events(self) -> int:
        """Events that were sent and answered."""
        return self.accepted + self.duplicates + self.conflicts


@dataclass(slots=True)
class Run:
    """One run in progress."""

    until: float
    outcome: Outcome = field(default_factory=Outcome)
    latencies: "array[float]" = field(default_factory=lambda: array("d"))
    latest: float = 0.0

    def note(self, expected: Expected, answer: bytes, started: float) -> None:
        """Compare an answer with what it must be."""
        now = self.latest = time.perf_counter()
        self.latencies.append(now - started)
        outcome = self.outcome
        outcome.requests += 1
        found = _counts(answer, expected)
        if found != expected:
            outcome.unexpected += 1
            outcome.example = outcome.example or _shown(answer)
        if found is None:
            outcome.unknown += 1
            return
        outcome.accepted += found.accepted
        outcome.duplicates += found.duplicates
        outcome.conflicts += found.conflicts
        outcome.checks += found.checks


def _counts(answer: bytes, expected: Expected) -> Expected | None:
    """What an answer says was done; None when it does not say."""
    status = answer[9:12]
    if expected.checks:
        return Expected(checks=1) if status == _OK and b'"allowed":true' in answer else Expected()
    if expected.accepted == 1 and status in (_OK, _CONFLICT) and b'"results"' not in answer:
        return Expected(accepted=1) if status == _OK else Expected(duplicates=1)
    counts = {match[1]: int(match[2]) for match in _COUNT.finditer(answer[-_TAIL_BYTES:])}
    if status != _OK or len(counts) != len(_COUNT_NAMES):
        return None
    others = counts[b"rejected"] + counts[b"invalid"]
    if counts[b"retry"] or others:
        return None if counts[b"retry"] else Expected(counts[b"accepted"], counts[b"duplicates"], counts[b"conflicts"] + others)
    return Expected(counts[b"accepted"], counts[b"duplicates"], counts[b"conflicts"])


_COUNT_NAMES = ("accepted", "duplicates", "conflicts", "rejected", "invalid", "retry")


def _shown(answer: bytes) -> str:
    head, _, body = answer.partition(_HEAD_END)
    return f"{head[:_STATUS_BYTES].decode(errors='replace')} … {body[:_SHOWN_BYTES].decode(errors='replace')}"


class Connection(asyncio.BufferedProtocol):
    """One connection: sends a request, waits for the whole answer, sends the next."""

    def __init__(self, client: "Client", mine: Sequence[Template]) -> None:
        self._client = client
        self._templates = _in_turn([(one, client.head(one)) for one in mine])
        self._buffer = bytearray(_ANSWER_BYTES_MAX)
        self._view = memoryview(self._buffer)
        self._filled = 0
        self._length = 0
        self._started = 0.0
        self._sent: Template | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._transport = None
        if self._sent is not None:
            self._sent = None
            self._client.lost(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        del sizehint
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        if not self._length:
            end = self._buffer.find(_HEAD_END, 0, self._filled)
            if end < 0:
                return
            length = _LENGTH.search(self._buffer, 0, end)
            assert length is not None, bytes(self._buffer[:end])
            self._length = end + len(_HEAD_END) + int(length[1])
        if self._filled >= self._length:
            self._answered()

    def _answered(self) -> None:
        assert self._sent is not None
        answer, expected = bytes(self._view[: self._length]), self._sent.expected
        self._filled = self._length = 0
        self._sent = None
        self._client.answered(self, expected, answer, self._started)

    def send(self) -> bool:
        """Send the next request. Returns whether the connection still stands."""
        if self._transport is None:
            return False
        self._sent, head = next(self._templates)
        body = self._sent.next_body(self._client.next_number())
        self._started = time.perf_counter()
        self._transport.write(head + body)
        return True


def _in_turn(items: Sequence[tuple[Template, bytes]]) -> Iterator[tuple[Template, bytes]]:
    while True:
        yield from items


class Client:
    """All connections of a job."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._number = 0
        self._run: Run | None = None
        self._busy = 0
        self._done = asyncio.Event()
        self._held: list[Connection] | None = None
        self._held_since = 0.0
        self._connections: list[Connection] = []

    async def open(self) -> None:
        """Connect all. Raises OSError."""
        every = traffic.templates(self._job.spec)
        count = self._job.connections
        loop = asyncio.get_running_loop()
        for number in range(count):
            host, port = self._job.addresses[number % len(self._job.addresses)]
            _, connection = await loop.create_connection(lambda mine=every[number::count]: Connection(self, mine), host, port)
            self._connections.append(connection)

    async def run(self, seconds: float) -> Outcome:
        """Send on all connections for some seconds, and wait for the last answers."""
        started, cpu_before = time.perf_counter(), _cpu_s()
        run = self._run = Run(started + seconds)
        self._done.clear()
        self._busy = len(self._connections)
        for connection in self._connections:
            self._go_on(connection)
        await self._done.wait()
        outcome = run.outcome
        outcome.seconds, outcome.cpu_s = max(run.latest, started) - started, _cpu_s() - cpu_before
        outcome.p50_ms, outcome.p99_ms, outcome.p999_ms = percentiles_ms(run.latencies, (0.5, 0.99, 0.999))
        return outcome

    def hold(self, *, on: bool) -> None:
        """Pause after the answers that are awaited, or go on."""
        if on and self._held is None:
            self._held, self._held_since = [], time.perf_counter()
        elif not on and self._held is not None:
            waiting, self._held = self._held, None
            if self._run is not None:
                self._run.outcome.held_s += time.perf_counter() - self._held_since
            for connection in waiting:
                self._go_on(connection)

    def answered(self, connection: Connection, expected: Expected, answer: bytes, started: float) -> None:
        """A connection has its answer."""
        assert self._run is not None
        self._run.note(expected, answer, started)
        self._go_on(connection)

    def lost(self, connection: Connection) -> None:
        """A connection broke before its answer."""
        assert self._run is not None
        self._run.outcome.unknown += 1
        self._go_on(connection)

    def head(self, template: Template) -> bytes:
        """The request line and headers of a template."""
        return (
            f"POST /api/v1{template.path} HTTP/1.1\r\nHost: benchmark\r\nContent-Type: application/json\r\n"
            f"x-api-key: {self._job.key}\r\ncommet-version: 2026-08-27\r\nContent-Length: {len(template.body)}\r\n\r\n"
        ).encode()

    def next_number(self) -> int:
        """A number no request had before."""
        self._number += 1
        return self._number

    def _go_on(self, connection: Connection) -> None:
        assert self._run is not None
        if time.perf_counter() < self._run.until:
            if self._held is not None:
                self._held.append(connection)
                return
            if connection.send():
                return
        self._busy -= 1
        if not self._busy:
            self._done.set()


def percentiles_ms(latencies: "array[float]", shares: Sequence[float]) -> list[float]:
    """Nearest-rank percentiles in milliseconds; 0 without any latency."""
    ordered = sorted(latencies)
    if not ordered:
        return [0.0] * len(shares)
    return [ordered[min(int(share * len(ordered)), len(ordered) - 1)] * 1000 for share in shares]


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def _lines() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=1 << 24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def _main() -> None:
    """Follow the lines on stdin to their end."""
    lines = await _lines()
    client = Client(msgspec.json.decode(await lines.readline(), type=Job))
    await client.open()
    _tell(b"{}")
    runs: set[asyncio.Task[None]] = set()
    while line := await lines.readline():
        command = msgspec.json.decode(line, type=Command)
        if command.hold is not None:
            client.hold(on=command.hold)
        if command.run_s is not None:
            runs.add(asyncio.create_task(_run(client, command.run_s, _tell)))


async def _run(client: Client, seconds: float, tell: Callable[[bytes], None]) -> None:
    tell(msgspec.json.encode(await client.run(seconds)))


def _tell(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    uvloop.run(_main())
