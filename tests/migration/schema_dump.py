"""The schema of a database as SQL, without what differs from run to run."""

import subprocess
from pathlib import Path

from tallybook.embedded import programs

RECORDED = Path(__file__).with_name("schema.sql")
_HEAD = "-- What the migrations make of an empty database. Written by `make schema`; do not edit.\n"
_NOISE = ("--", "\\", "SET ", "SELECT pg_catalog.set_config")


def dump(url: str) -> str:
    """Every table, column, constraint and index of the database at `url`."""
    command = [programs.postgres("pg_dump"), "--schema-only", "--no-owner", "--no-privileges", f"--dbname={url}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - the command is ours
    statements = "\n".join(line for line in done.stdout.splitlines() if not line.startswith(_NOISE)).split("\n\n")
    return _HEAD + "".join(f"\n{statement.strip()}\n" for statement in statements if statement.strip())
