"""The installation's identity: its epoch and the number of partitions, fixed when it is made."""

import secrets
from dataclasses import dataclass

from tallybook.storage.postgres import Connection


class InstallationError(Exception):
    """The settings contradict the installation in the book."""


@dataclass(frozen=True, slots=True)
class Installation:
    """`epoch` is also held by every partition of the till; `till_made` says that the till was given it once."""

    epoch: str
    partitions: int
    till_made: bool


async def ensure(connection: Connection, partitions: int) -> Installation:
    """The installation, made now if the book is new. Raises InstallationError when `partitions` is not what it was made with."""
    await connection.execute(
        "INSERT INTO installation (epoch, partitions) VALUES ($1, $2) ON CONFLICT DO NOTHING", secrets.token_hex(16), partitions
    )
    row = await connection.fetchrow("SELECT epoch, partitions, till_made_at IS NOT NULL AS till_made FROM installation")
    assert row is not None
    if row["partitions"] != partitions:
        raise InstallationError(
            f"this installation was made with {row['partitions']} partitions and cannot be changed to {partitions}; "
            f"set TALLYBOOK_PARTITIONS={row['partitions']}"
        )
    await connection.execute(
        "INSERT INTO log_offsets (partition) SELECT generate_series(0, $1 - 1) ON CONFLICT DO NOTHING", partitions
    )
    return Installation(row["epoch"], row["partitions"], row["till_made"])


async def note_till_made(connection: Connection) -> None:
    """From now on a till without the epoch is a lost one, not a new one."""
    await connection.execute("UPDATE installation SET till_made_at = now() WHERE till_made_at IS NULL")
