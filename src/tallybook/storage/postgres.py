"""Postgres: connections, transactions and the settings the book relies on. Knows no table.

The only module that imports asyncpg. asyncpg carries no types, so everything else is typed against the protocols below.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

import asyncpg
import orjson

from tallybook.storage.safety import Unsafe, UnsafeStoreError

UniqueViolationError = asyncpg.UniqueViolationError
ForeignKeyViolationError = asyncpg.ForeignKeyViolationError
LockNotAvailableError = asyncpg.LockNotAvailableError
PostgresError = asyncpg.PostgresError
TRANSIENT_ERRORS: tuple[type[Exception], ...] = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
"""The whole transaction may be tried again: it was rolled back, or the server went away (then nobody knows if it committed)."""

SERVER_ERRORS: tuple[type[Exception], ...] = (*TRANSIENT_ERRORS, PostgresError)
"""What a loop that works for ever waits through: a server without room, a lock or a statement that took too long are no end of it."""

_OF_THE_DATA = frozenset(("21", "22", "23", "54"))
VERSION_MIN = 140000
_ASK_S = 5.0
_JSONB_VERSION = b"\x01"


class Row(Protocol):
    """One row; columns by name or position."""

    def __getitem__(self, column: str | int, /) -> Any: ...  # noqa: ANN401 - a column holds any type
    def __iter__(self) -> Iterator[Any]: ...
    def __len__(self) -> int: ...
    def get(self, column: str, default: object = None, /) -> Any: ...  # noqa: ANN401 - a column holds any type
    def keys(self) -> Iterator[str]: ...
    def values(self) -> Iterator[Any]: ...
    def items(self) -> Iterator[tuple[str, Any]]: ...


class Querying(Protocol):
    """What connections and pools share: on a pool each call takes its own connection and its own transaction."""

    async def execute(self, query: str, *args: object, timeout: float | None = None) -> str: ...
    async def executemany(self, command: str, args: Iterable[Sequence[object]], *, timeout: float | None = None) -> None: ...
    async def fetch(self, query: str, *args: object, timeout: float | None = None) -> list[Row]: ...
    async def fetchrow(self, query: str, *args: object, timeout: float | None = None) -> Row | None: ...
    async def fetchval(self, query: str, *args: object, column: int = 0, timeout: float | None = None) -> Any: ...  # noqa: ANN401 - a column holds any type
    async def copy_records_to_table(
        self,
        table_name: str,
        *,
        records: Iterable[Sequence[object]],
        columns: Sequence[str] | None = None,
        timeout: float | None = None,
    ) -> str: ...


class Transaction(Protocol):
    """A transaction, or a savepoint inside one, as a context or by hand."""

    async def __aenter__(self) -> None: ...
    async def __aexit__(self, kind: object, error: object, trace: object, /) -> None: ...
    async def start(self) -> None: ...
    async def commit(self) -> None: ...


class Connection(Querying, Protocol):
    """One connection to the book."""

    def transaction(self, *, isolation: str | None = None, readonly: bool = False, deferrable: bool = False) -> Transaction: ...
    def cursor(self, query: str, *args: object, prefetch: int | None = None) -> AsyncIterable[Row]: ...
    def is_closed(self) -> bool: ...
    async def close(self, *, timeout: float | None = None) -> None: ...
    def terminate(self) -> None: ...


class Pool(Querying, Protocol):
    """Connections to the book, shared by the tasks of one process."""

    def acquire(self, *, timeout: float | None = None) -> AbstractAsyncContextManager[Connection]: ...
    async def close(self) -> None: ...
    def terminate(self) -> None: ...


async def connect(
    url: str,
    *,
    connections_min: int = 1,
    connections_max: int = 10,
    command_timeout_s: float | None = 60.0,
    application_name: str = "tallybook",
) -> Pool:
    """Open a pool. jsonb and json columns read and write Python values; times are UTC. Raises OSError or PostgresError."""
    with _told_where(url):
        pool: object = await asyncpg.create_pool(
            url,
            min_size=connections_min,
            max_size=connections_max,
            command_timeout=command_timeout_s,
            init=_prepare,
            server_settings=_session_settings(application_name),
        )
    return cast("Pool", pool)


async def connect_one(url: str, *, application_name: str = "tallybook", timeout_s: int = 10) -> Connection:
    """Open a single connection outside any pool, for locks that are held and for administration."""
    settings = _session_settings(application_name)
    with _told_where(url):
        connection = cast("Connection", await asyncpg.connect(url, timeout=timeout_s, server_settings=settings))
    await _prepare(connection)
    return connection


def blames_data(error: PostgresError) -> bool:
    """Whether the server refuses what it was given (cardinality, data, integrity, a limit of the program) and always will.

    Everything else is the server's own: no room, a lock or a statement that took too long, a missing right or table. The same data may
    be taken once that is over.
    """
    sqlstate: str | None = getattr(error, "sqlstate", None)
    return sqlstate is not None and sqlstate[:2] in _OF_THE_DATA


@contextlib.asynccontextmanager
async def transaction(pool: Pool) -> AsyncGenerator[Connection]:
    """One READ COMMITTED transaction: committed when the block ends, rolled back when it raises."""
    async with pool.acquire() as connection, connection.transaction():
        yield connection


@contextlib.asynccontextmanager
async def snapshot(pool: Pool) -> AsyncGenerator[Connection]:
    """One REPEATABLE READ READ ONLY transaction: every query in the block sees the same moment."""
    async with pool.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        yield connection


async def server_time(pool: Pool) -> datetime:
    """What time it is on the server, UTC; the time it takes to get a connection is not part of the answer."""
    async with pool.acquire(timeout=_ASK_S) as connection:
        return await connection.fetchval("SELECT clock_timestamp()", timeout=_ASK_S)


async def assert_settings(connection: Connection) -> None:
    """Raise UnsafeStoreError unless the server keeps what it commits and stores UTF-8."""
    version = int(await connection.fetchval("SHOW server_version_num"))
    found = {name: str(await connection.fetchval(f"SHOW {name}")) for name in ("fsync", "synchronous_commit", "server_encoding")}
    problems = list(_unsafe(version, found))
    if problems:
        raise UnsafeStoreError("Postgres", problems)


def _unsafe(version: int, found: dict[str, str]) -> Iterator[Unsafe]:
    if version < VERSION_MIN:
        yield Unsafe("server_version_num", str(version), f"{VERSION_MIN} or newer", "run Postgres 14 or a later version")
    if found["fsync"] != "on":
        yield Unsafe("fsync", found["fsync"], "'on'", "ALTER SYSTEM SET fsync = on; then reload the server")
    if found["synchronous_commit"] == "off":
        remedy = "ALTER SYSTEM SET synchronous_commit = on; then reload, and look for ALTER ROLE or ALTER DATABASE settings too"
        yield Unsafe("synchronous_commit", "off", "anything but 'off'", remedy)
    if found["server_encoding"] != "UTF8":
        remedy = "create the database with ENCODING 'UTF8' TEMPLATE template0"
        yield Unsafe("server_encoding", found["server_encoding"], "'UTF8'", remedy)


@contextlib.contextmanager
def _told_where(url: str) -> Generator[None]:
    """Connection errors of the operating system name neither server nor address; the password in the URL stays out of them."""
    try:
        yield
    except OSError as error:
        parts = urlsplit(url)
        place = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        raise ConnectionError(f"Postgres can't be reached at {place}: {error}") from error


def _session_settings(application_name: str) -> dict[str, str]:
    return {"application_name": application_name, "timezone": "UTC"}


async def _prepare(connection: Any) -> None:  # noqa: ANN401 - asyncpg has no types
    await connection.set_type_codec("jsonb", schema="pg_catalog", format="binary", encoder=_write_jsonb, decoder=_read_jsonb)
    await connection.set_type_codec("json", schema="pg_catalog", format="binary", encoder=orjson.dumps, decoder=orjson.loads)


def _write_jsonb(value: object) -> bytes:
    return _JSONB_VERSION + orjson.dumps(value)


def _read_jsonb(data: bytes) -> object:
    return orjson.loads(memoryview(data)[1:])
