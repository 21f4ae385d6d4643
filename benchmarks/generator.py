"""The load generator seen from the process that gives the orders."""

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from pathlib import Path

import msgspec

from benchmarks.load import Command, Job, Outcome

_ROOT = Path(__file__).parent.parent
_LINE_BYTES_MAX = 1 << 20


class Generator:
    """One load process with open connections. Made by `started`."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def run(self, seconds: float) -> Outcome:
        """Send for some seconds. Raises RuntimeError when the generator ends, or when no request is answered."""
        self._send(Command(run_s=seconds))
        outcome = msgspec.json.decode(await self._line(), type=Outcome)
        if not outcome.requests:
            raise RuntimeError("no request was answered")
        return outcome

    def hold(self, *, on: bool) -> None:
        """Let every connection pause after its answer, or go on."""
        self._send(Command(hold=on))

    async def _line(self) -> bytes:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("the load generator ended; its last words are above")
        return line

    def _send(self, message: msgspec.Struct) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(message) + b"\n")

    @classmethod
    @contextlib.asynccontextmanager
    async def started(cls, job: Job) -> AsyncGenerator["Generator"]:
        """A generator whose connections are open; it ends with the block."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.load", stdin=PIPE, stdout=PIPE, cwd=_ROOT, limit=_LINE_BYTES_MAX
        )
        generator = cls(process)
        try:
            generator._send(job)
            await generator._line()
            yield generator
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
