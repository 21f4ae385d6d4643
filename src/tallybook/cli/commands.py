"""The commands. Each is one module of this folder, listed in COMMANDS and imported only when asked for."""

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from tallybook import settings
from tallybook.core.errors import TallybookError
from tallybook.embedded.failures import EmbeddedError
from tallybook.settings import SettingsError
from tallybook.storage.migrate import MigrationError
from tallybook.storage.postgres import PostgresError
from tallybook.storage.redis import RedisError
from tallybook.storage.safety import UnreadableSettingsError, UnsafeStoreError

_TOLD_ERRORS = (
    EmbeddedError,
    MigrationError,
    OSError,
    PostgresError,
    RedisError,
    SettingsError,
    TallybookError,
    UnreadableSettingsError,
    UnsafeStoreError,
)
"""Errors whose message says what to do; anything else is a bug and shows its traceback."""


class CommandModule(Protocol):
    """What a module of this folder offers."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's arguments, or its own sub-commands."""
        ...

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it. Returns the exit code."""
        ...


@dataclass(frozen=True, slots=True)
class Command:
    """One command: the word on the command line, what it does, and the module that does it."""

    name: str
    summary: str
    module: str


COMMANDS: tuple[Command, ...] = (
    Command(
        "demo", "run a month of business on embedded stores, bill it, reconcile it, and report", "tallybook.cli.demo.command"
    ),
    Command("dev", "run everything on an embedded Postgres and Redis, data in a folder", "tallybook.cli.dev"),
    Command("serve", "run the HTTP API", "tallybook.cli.serve"),
    Command("work", "run a worker: rollups, period close, deliveries, catalog sync", "tallybook.cli.work"),
    Command("keys", "make, list and revoke API keys", "tallybook.cli.keys"),
    Command("models", "look after the AI model catalog", "tallybook.cli.models"),
    Command("report", "usage, AI costs, revenue and margin as tables and files; a month's close", "tallybook.cli.report"),
    Command("migrate", "bring the database to this version's schema", "tallybook.cli.migrate"),
    Command("rebuild", "make the till anew from the book, after Redis was lost", "tallybook.cli.rebuild"),
    Command("webhooks", "list webhook endpoints, test one, see its deliveries", "tallybook.cli.webhooks"),
    Command("pools", "see and thaw customers that are frozen because their pools did not reconcile", "tallybook.cli.pools"),
    Command("quarantine", "see, retry or drop what could not be applied to the book", "tallybook.cli.quarantine"),
    Command("reconcile", "compare events, totals, pools, till and invoices, to the unit", "tallybook.cli.reconcile"),
)


def main(words: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 misused, 130 interrupted."""
    given = sys.argv[1:] if words is None else list(words)
    arguments = _parser(given).parse_args(given)
    logging.basicConfig(level=logging.WARNING, format="tallybook: %(message)s")
    for warning in settings.misspelled(os.environ):
        print(f"tallybook: warning: {warning}", file=sys.stderr)
    try:
        return _module(arguments.command).run(arguments)
    except KeyboardInterrupt:
        return 130
    except _TOLD_ERRORS as error:
        print(f"tallybook: {error}", file=sys.stderr)
        return 1


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tallybook", description="Self-hosted usage metering and AI token pricing.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    asked = next((word for word in words if not word.startswith("-")), None)
    for command in COMMANDS:
        sub_parser = commands.add_parser(command.name, help=command.summary, description=f"Tallybook: {command.summary}.")
        if command.name == asked:
            _module(command.name).configure(sub_parser)
    return parser


def _module(name: str) -> CommandModule:
    [command] = [command for command in COMMANDS if command.name == name]
    return cast("CommandModule", importlib.import_module(command.module))
