"""Small model lists, published into a real book: for tests of the catalog."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tallybook.ai_models import actions, sync
from tallybook.ai_models.model import SyncReport
from tallybook.core.clock import Clock
from tallybook.pricing.price_book import PriceBook
from tallybook.storage.postgres import Pool

NOW = datetime(2026, 11, 20, 9, tzinfo=UTC)
LATER = NOW + timedelta(days=1)
IN_FORCE = LATER + actions.LEAD
"""When a price that was published at LATER comes into force."""
TABLES = "ai_model_changes, ai_model_syncs, ai_model_prices, ai_models, ai_model_aliases, ai_price_overrides"
PRICES = {"lab/a": "0.000001", "lab/b": "0.000002", "lab/c": "0.000003"}


def write_list(folder: Path, prices: dict[str, str]) -> str:
    """A list of language models at one price for input and output, as a file. Returns its path."""
    rows = [{"id": each, "type": "language", "pricing": {"input": usd, "output": usd}} for each, usd in prices.items()]
    path = folder / "list.json"
    path.write_text(json.dumps({"data": rows}))
    return str(path)


def standing(moment: datetime) -> Clock:
    """A clock that always shows this."""
    return lambda: moment


async def run_sync(
    database: Pool, folder: Path, prices: dict[str, str], now: datetime = NOW, accepted: frozenset[str] = frozenset()
) -> SyncReport:
    """Publish such a list at a moment."""
    return await sync.sync_once(database, write_list(folder, prices), standing(now), accepted=accepted)


async def load_book(database: Pool) -> PriceBook:
    """The price book as a process would load it."""
    async with database.acquire() as connection:
        return await actions.load_book(connection)


async def version(database: Pool) -> int:
    """The catalog's version."""
    async with database.acquire() as connection:
        return await actions.current_version(connection)


async def forget(database: Pool) -> None:
    """Empty the catalog, for the test that comes next."""
    await database.execute(f"TRUNCATE {TABLES}")
