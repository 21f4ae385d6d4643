"""`tallybook serve`: the HTTP API, in this process or in several that share its port."""

import argparse
import dataclasses
import os
import sys
import tempfile
import time
from pathlib import Path

from tallybook import settings
from tallybook.cli import processes
from tallybook.cli.ports import SharedPort
from tallybook.cli.processes import StopSignals
from tallybook.embedded.crew import Crew
from tallybook.entrypoints import metrics_files
from tallybook.settings import Settings

_TEND_S = 0.1
_API = "api"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments; what is not given comes from the environment."""
    parser.add_argument("--host", help="address to listen on (TALLYBOOK_HOST)")
    parser.add_argument("--port", help="port to listen on; 0 takes a free one (TALLYBOOK_PORT)")
    parser.add_argument("--workers", help="API processes (TALLYBOOK_WORKERS)")


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C, then finish what is in flight."""
    found = from_arguments(arguments)
    settings.require_stores(found)
    if found.workers > 1:
        return _run_several(found)
    from tallybook import app

    app.run_api(found)
    return 0


def from_arguments(arguments: argparse.Namespace) -> Settings:
    """Settings from the environment, with what the command line says on top. Raises SettingsError."""
    given = {
        f"TALLYBOOK_{name.upper()}": str(value)
        for name, value in vars(arguments).items()
        if name in ("host", "port", "workers") and value is not None
    }
    return settings.from_environment({**os.environ, **given})


def add_api(crew: Crew, port: SharedPort, given: Settings, pids: Path) -> None:
    """Start `given.workers` API processes on one port."""
    one = dataclasses.replace(given, host=port.host, port=port.port, workers=1, reuse_port=True)
    for number in range(1, given.workers + 1):
        name = f"{_API}-{number}"
        crew.add(name, processes.starter(name, ["serve"], one, pids))


def log(message: str) -> None:
    """A line on stderr, beside the children's logs."""
    print(f"tallybook: {message}", file=sys.stderr, flush=True)


def _run_several(given: Settings) -> int:
    crew = Crew(log)
    stop = StopSignals(lambda: crew.hurry([_API]))
    port = SharedPort(given.host, given.port)
    with tempfile.TemporaryDirectory(prefix="tallybook-serve-") as folder:
        metrics_files.prepare(Path(folder) / "metrics")
        try:
            add_api(crew, port, given, Path(folder) / "pids")
            log(f"listening on {port.url} with {given.workers} processes")
            while not stop.asked:
                crew.tend()
                time.sleep(_TEND_S)
        finally:
            crew.stop()
            port.close()
    return 0
