"""The API key of a `tallybook dev` folder. Postgres holds only its hash; the key is in a file that only its owner can read."""

import json
import os
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from tallybook.core.tenant import Tenant
from tallybook.storage import postgres
from tallybook.storage.postgres import Connection
from tallybook.tenancy import actions, store

_FILE = "dev-key.json"
_NAME = "tallybook dev"


@dataclass(frozen=True, slots=True)
class DevKey:
    """A key, and the organization and mode that it speaks for, in the wire's spelling."""

    apiKey: str  # noqa: N815 - the wire's spelling
    organizationId: str  # noqa: N815 - the wire's spelling
    livemode: bool


async def ensure(postgres_url: str, data: Path, now: datetime) -> DevKey:
    """The folder's key. Without one, or when it was revoked, a new one: for the organization in the file, else for a new one."""
    connection = await postgres.connect_one(postgres_url)
    try:
        found = _read(data / _FILE)
        if found is not None and await actions.authenticate(connection, found.apiKey, now) is not None:
            return found
        async with connection.transaction():
            return await _make(connection, data / _FILE, found, now)
    finally:
        await connection.close()


async def _make(connection: Connection, file: Path, lost: DevKey | None, now: datetime) -> DevKey:
    """The file is written before the commit: a crash in between leaves a key that opens nothing, and the next start replaces it."""
    tenant = await _tenant(connection, lost)
    made = await actions.create_api_key(connection, tenant, now, _NAME, expires_in_days=None)
    key = DevKey(made.text, tenant.organization_id, tenant.livemode)
    _write(file, key)
    return key


async def _tenant(connection: Connection, lost: DevKey | None) -> Tenant:
    known = None if lost is None else await store.find_tenant(connection, lost.organizationId, livemode=False)
    if known is not None:
        return known
    _live, sandbox = await actions.create_organization(connection, _NAME)
    return sandbox


def _read(file: Path) -> DevKey | None:
    try:
        return DevKey(**json.loads(file.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _write(file: Path, key: DevKey) -> None:
    unfinished = file.with_suffix(".unfinished")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
        json.dump(asdict(key), out)
        out.flush()
        os.fsync(out.fileno())
    unfinished.rename(file)
