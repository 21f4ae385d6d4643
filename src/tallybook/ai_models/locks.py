"""Rights that one process has at a time: to change the catalog, to sync it, to re-rate usage. Postgres holds them."""

from tallybook.storage import queries
from tallybook.storage.postgres import Connection

_SQL = queries.load(__package__)
_CATALOG_LOCK = 0x7A11_CA7A
_SYNC_LOCK = 0x7A11_5B1C
_RERATE_LOCK = 0x7A11_3E7A


async def lock_catalog(connection: Connection) -> None:
    """Wait for the right to change the catalog; it ends with the transaction."""
    await connection.execute(_SQL["lock_catalog"], _CATALOG_LOCK)


async def try_sync_lock(connection: Connection) -> bool:
    """Take the right to sync for this connection; False while another process syncs."""
    return await connection.fetchval(_SQL["try_sync_lock"], _SYNC_LOCK)


async def release_sync_lock(connection: Connection) -> None:
    """Give the right to sync back."""
    await connection.execute(_SQL["release_sync_lock"], _SYNC_LOCK)


async def try_rerate_lock(connection: Connection) -> bool:
    """Take the right to re-rate usage for this connection; False while another process has it."""
    return await connection.fetchval(_SQL["try_sync_lock"], _RERATE_LOCK)


async def try_share_rerate_lock(connection: Connection) -> bool:
    """Keep others from re-rating usage until the transaction ends; False while one does."""
    return await connection.fetchval(_SQL["try_share_lock"], _RERATE_LOCK)


async def release_rerate_lock(connection: Connection) -> None:
    """Give the right to re-rate back."""
    await connection.execute(_SQL["release_sync_lock"], _RERATE_LOCK)
