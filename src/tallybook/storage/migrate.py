"""Brings a database to this version's schema: each file of `migrations/` once, in order, with its digest on record."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from tallybook.storage import postgres
from tallybook.storage.postgres import Connection

_FILE = re.compile(r"(?P<name>\d{4}_[a-z0-9_]+)\.sql")
_LOCK = 0x7A11_B00C
"""Key of the advisory lock that lets one process migrate at a time."""
_MAKE_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    name        text PRIMARY KEY,
    sha256      bytea NOT NULL CHECK (length(sha256) = 32),
    applied_at  timestamptz NOT NULL DEFAULT now()
)
"""


class MigrationError(Exception):
    """The database and the migrations of this version contradict each other; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: `0001_book` and its SQL."""

    name: str
    sql: str

    @property
    def sha256(self) -> bytes:
        """What is recorded when it is applied, so that a later edit is noticed."""
        return hashlib.sha256(self.sql.encode()).digest()


def packaged() -> list[Migration]:
    """The migrations of this version in order. Raises MigrationError for a file name that is not `0001_words.sql`."""
    folder = resources.files("tallybook.storage").joinpath("migrations")
    found = [(entry.name, entry) for entry in folder.iterdir() if entry.name.endswith(".sql")]
    migrations: list[Migration] = []
    for file_name, entry in sorted(found, key=lambda pair: pair[0]):
        match = _FILE.fullmatch(file_name)
        if match is None:
            raise MigrationError(f"migrations/{file_name} is not named like 0001_words.sql")
        migrations.append(Migration(match["name"], entry.read_text(encoding="utf-8")))
    return migrations


async def migrate(url: str, migrations: Sequence[Migration] | None = None) -> list[str]:
    """Apply what is missing and return the names applied. Any number of processes may call this at once.

    Raises MigrationError, before changing anything, when an applied file was edited since, or when the database has migrations
    that this version does not know; and PostgresError when the SQL of a migration fails, which leaves that one unapplied.
    """
    wanted = packaged() if migrations is None else migrations
    connection = await postgres.connect_one(url, application_name="tallybook migrate")
    try:
        return await _apply_missing(connection, wanted)
    finally:
        await connection.close()


async def pending(connection: Connection) -> list[str]:
    """Names of the migrations that this database still lacks. Raises MigrationError as `migrate` does."""
    if await connection.fetchval("SELECT to_regclass('schema_migrations')") is None:
        return [migration.name for migration in packaged()]
    return [migration.name for migration in _missing(packaged(), await _applied(connection))]


async def _apply_missing(connection: Connection, wanted: Sequence[Migration]) -> list[str]:
    done: list[str] = []
    while (name := await _apply_next(connection, wanted)) is not None:
        done.append(name)
    return done


async def _apply_next(connection: Connection, wanted: Sequence[Migration]) -> str | None:
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        await connection.execute(_MAKE_TABLE)
        missing = _missing(wanted, await _applied(connection))
        if not missing:
            return None
        await connection.execute(missing[0].sql)
        await connection.execute(
            "INSERT INTO schema_migrations (name, sha256) VALUES ($1, $2)", missing[0].name, missing[0].sha256
        )
        return missing[0].name


async def _applied(connection: Connection) -> dict[str, bytes]:
    rows = await connection.fetch("SELECT name, sha256 FROM schema_migrations ORDER BY name")
    return {row["name"]: row["sha256"] for row in rows}


def _missing(wanted: Sequence[Migration], applied: Mapping[str, bytes]) -> Sequence[Migration]:
    """What stands in `wanted` after the applied ones, which must be its beginning, unchanged."""
    for migration, (name, sha256) in zip(wanted, applied.items(), strict=False):
        if migration.name != name:
            raise MigrationError(f"migration {name} was applied to this database where this version has {migration.name}")
        if migration.sha256 != sha256:
            raise MigrationError(f"migration {name} was edited after it was applied (sha256 {sha256.hex()[:12]}… is on record)")
    unknown = list(applied)[len(wanted) :]
    if unknown:
        raise MigrationError(f"the database is newer than this version of Tallybook: it has {', '.join(unknown)}")
    return wanted[len(applied) :]
