"""`tallybook demo`: a month of business on embedded stores, over HTTP, billed and reconciled; then it is gone.

The report and its verdict go to stdout, progress to stderr, the servers' logs to a file that is kept when something is wrong.
"""

import argparse
import contextlib
import dataclasses
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import NoReturn

from tallybook import settings
from tallybook.cli import dev, serve
from tallybook.cli.demo import report, story
from tallybook.cli.demo.http import DemoError, RefusedError
from tallybook.cli.demo.report import Story
from tallybook.cli.demo.story import Say
from tallybook.cli.dev import Running
from tallybook.embedded.crew import Crew

_READY_S_MAX = 120.0
_POLL_S = 0.05
_SHOWN_DIFFERENCES = 20


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("--seed", type=int, default=1, help="another number makes another month of usage (default: 1)")
    parser.add_argument("--verbose", action="store_true", help="show the servers' logs on stderr")
    parser.add_argument("--postgres-user", help="when started as root: the user that Postgres runs as")


def run(arguments: argparse.Namespace) -> int:
    """Run the demo. Returns 0 when every number agrees."""
    signal.signal(signal.SIGTERM, _interrupted)
    folder = Path(tempfile.mkdtemp(prefix="tallybook-demo-"))
    folder.chmod(0o711)
    log = None if arguments.verbose else folder / "servers.log"
    try:
        with _logs_in(log) as say:
            story, problems = _in(folder, arguments, say)
    except (DemoError, RefusedError) as error:
        return _failed([str(error)], folder, log)
    except KeyboardInterrupt:
        shutil.rmtree(folder)
        raise
    except BaseException:
        _failed([], folder, log)
        raise
    print(report.report(story), flush=True)
    if problems:
        return _failed(problems, folder, log)
    print(f"\n{report.last_line(story)}")
    shutil.rmtree(folder)
    return 0


def _failed(problems: Sequence[str], folder: Path, log: Path | None) -> int:
    for problem in problems[:_SHOWN_DIFFERENCES]:
        print(f"tallybook demo: {problem}", file=sys.stderr)
    if len(problems) > _SHOWN_DIFFERENCES:
        print(f"tallybook demo: … and {len(problems) - _SHOWN_DIFFERENCES} more", file=sys.stderr)
    print(
        f"tallybook demo: FAILED. Its data is kept in {folder}, the servers' logs in {log or 'the lines above'}.", file=sys.stderr
    )
    return 1


def _interrupted(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


@contextlib.contextmanager
def _logs_in(file: Path | None) -> Generator[Say]:
    """Send what this process and its children write to stderr into a file, and give a way to say something past it."""
    stderr = os.dup(2)
    with os.fdopen(stderr, "w") as terminal:
        if file is not None:
            log = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(log, 2)
            os.close(log)
        try:
            yield lambda text: print(f"tallybook demo: {text}", file=terminal, flush=True)
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)


def _in(folder: Path, arguments: argparse.Namespace, say: Say) -> tuple[Story, list[str]]:
    given = dataclasses.replace(settings.from_environment({}), port=0, catalog_url="")
    crew = Crew(serve.log)
    say("starting Postgres, Redis, a worker and the API")
    with dev.started(folder / "data", given, crew, postgres_user=arguments.postgres_user) as running:
        _wait_until_ready(running)
        return story.play(running, arguments.seed, say)


def _wait_until_ready(running: Running) -> None:
    give_up_at = time.monotonic() + _READY_S_MAX
    while not running.port.is_ready():
        running.crew.tend()
        if running.crew.deaths_most() or time.monotonic() > give_up_at:
            raise DemoError("the servers do not become ready")
        time.sleep(_POLL_S)
