"""A year of made-up usage in the book, for tests of reports: late events, voids, corrections, price changes, a change of plan.

Records go through the rollup's own code, so that raw events and hourly totals come about as they do in life.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from tallybook.core import clock, ids, money
from tallybook.core.tenant import Tenant
from tallybook.core.usage_log import Kind, Record, place
from tallybook.rollup import aggregate, store
from tallybook.storage import postgres
from tests.support import log_builder

FROM, TO = datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)
NOW = datetime(2026, 12, 1, tzinfo=UTC)
MODELS = {"anthropic/claude-x": 3_000_000, "openai/gpt-y": 1_250_000, "own-model": 500_000}
REGIONS = ("eu", "us", "=cmd|' /C calc'!A0", None)
_ENTRY_RECORDS = 50


@dataclass(frozen=True, slots=True)
class Client:
    """A customer and, by when they began, its subscriptions: (start, subscription, kind of pool)."""

    row: int
    public_id: str
    subscriptions: tuple[tuple[datetime, int, str], ...]

    def paying(self, moment: datetime) -> tuple[datetime, int, str]:
        """Whose period pays at a moment: its start, the subscription and the kind of pool."""
        started_at, subscription, kind = [one for one in self.subscriptions if one[0] <= moment][-1]
        return max(moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0), started_at), subscription, kind


@dataclass(frozen=True, slots=True)
class Catalog:
    """Row ids of one tenant."""

    tenant: Tenant
    clients: tuple[Client, ...]
    features: dict[str, int]
    prices: dict[str, list[int]]


async def catalog(connection: postgres.Connection, tenant: Tenant) -> Catalog:
    """Customers, plans, features, models and subscriptions of a tenant."""
    features = {code: await _insert_feature(connection, tenant, code) for code in ("ai_chat", "api_calls", "exports")}
    plans = {model: await _insert_plan(connection, tenant, model) for model in ("balance", "credits", "metered")}
    clients = [
        await _client(connection, tenant, number, [(FROM, plans[model], model)]) for number, model in enumerate((*plans, *plans))
    ]
    moved_at = datetime(2026, 6, 10, 14, 30, 15, 250_000, tzinfo=UTC)
    both = [(FROM, plans["balance"], "balance"), (moved_at, plans["credits"], "credits")]
    clients.append(await _client(connection, tenant, len(clients), both))
    return Catalog(tenant, tuple(clients), features, {model: await _prices(connection, tenant, model) for model in MODELS})


async def _insert_feature(connection: postgres.Connection, tenant: Tenant, code: str) -> int:
    return await connection.fetchval(
        "INSERT INTO features (tenant_id, public_id, code, name, type, created_at, updated_at) "
        "VALUES ($1, $2, $3, $3, 'usage', $4, $4) RETURNING id",
        *(tenant.id, ids.new("feat"), code, FROM),
    )


async def _insert_plan(connection: postgres.Connection, tenant: Tenant, model: str) -> int:
    return await connection.fetchval(
        "INSERT INTO plans (tenant_id, public_id, code, name, consumption_model, created_at, updated_at) "
        "VALUES ($1, $2, $3, $3, $4, $5, $5) RETURNING id",
        *(tenant.id, ids.new("plan"), f"plan_{model}", None if model == "metered" else model, FROM),
    )


async def _client(
    connection: postgres.Connection, tenant: Tenant, number: int, agreed: Sequence[tuple[datetime, int, str]]
) -> Client:
    public_id = ids.new("cus")
    row = await connection.fetchval(
        "INSERT INTO customers (tenant_id, public_id, external_id, email, created_at, updated_at) "
        "VALUES ($1, $2, $3, 'a@example.com', $4, $4) RETURNING id",
        *(tenant.id, public_id, f"user_{number}", FROM),
    )
    subscriptions: list[tuple[datetime, int, str]] = []
    for (started_at, plan, model), following in zip(agreed, [*agreed[1:], None], strict=True):
        ended_at = None if following is None else following[0]
        subscription = await connection.fetchval(
            "INSERT INTO subscriptions (tenant_id, public_id, customer_id, plan_id, name, status, started_at, anchor_at, ended_at, "
            "created_at, updated_at) VALUES ($1, $2, $3, $4, 'one', $5, $6, $6, $7, $6, $6) RETURNING id",
            *(tenant.id, ids.new("sub"), row, plan, "active" if ended_at is None else "canceled", started_at, ended_at),
        )
        subscriptions.append(
            (started_at.replace(microsecond=0), subscription, {"balance": "b", "credits": "c", "metered": "f"}[model])
        )
    return Client(row, public_id, tuple(subscriptions))


async def _prices(connection: postgres.Connection, tenant: Tenant, model: str) -> list[int]:
    if "/" not in model:
        return [
            await connection.fetchval(
                "INSERT INTO ai_price_overrides (tenant_id, pattern, price, effective_from, reaches_back, created_at) "
                "VALUES ($1, $2, '{}', $3, false, $3) RETURNING id",
                *(tenant.id, model, FROM),
            )
        ]
    await connection.execute(
        "INSERT INTO ai_models (id, provider, name, type, added_at) VALUES ($1, split_part($1, '/', 1), $1, 'language', $2) "
        "ON CONFLICT DO NOTHING",
        *(model, FROM),
    )
    for moment in (FROM, datetime(2026, 7, 1, tzinfo=UTC)):
        await connection.execute(
            "INSERT INTO ai_model_prices (model_id, effective_from, price) VALUES ($1, $2, '{}') ON CONFLICT DO NOTHING",
            model,
            moment,
        )
    rows = await connection.fetch("SELECT id FROM ai_model_prices WHERE model_id = $1 ORDER BY effective_from", model)
    return [row["id"] for row in rows]


def records(made: Catalog, number: int, rng: random.Random, spread: Callable[[random.Random], datetime]) -> list[Record]:
    """Usage, corrections, and what takes some of it back; `spread` says when an event occurs."""
    found: list[Record] = []
    for index in range(number):
        record = _usage(made, index, rng, spread(rng))
        if rng.random() < 0.05:
            record = msgspec.structs.replace(
                record, kind=rng.choice((Kind.ADJUSTMENT, Kind.SET)), price_id=0, model=None, cost_nano=0
            )
        found.append(record)
    return found


def _usage(made: Catalog, index: int, rng: random.Random, occurred_at: datetime) -> Record:
    client = rng.choice(made.clients)
    recorded_at = min(occurred_at + timedelta(days=rng.choice((0, 0, 0, 20, 34))), TO - timedelta(seconds=1))
    start, subscription, kind = client.paying(recorded_at)
    feature = rng.choice(sorted(made.features))
    quantity = rng.randrange(1, 5 * money.NANO)
    region = rng.choice(REGIONS)
    record = Record(
        kind=Kind.USAGE,
        tenant_id=made.tenant.id,
        customer_id=client.row,
        digest=ids.event_digest(made.tenant.id, client.row, str(index)),
        pool=f"{subscription}.{kind}{made.features[feature] if kind == 'f' else ''}.{int(start.timestamp())}",
        amount=quantity if kind == "f" else rng.randrange(10**10),
        event_id=str(index),
        feature_id=made.features[feature],
        period_start_s=int(start.timestamp()),
        belongs_to_s=int(occurred_at.timestamp()) if occurred_at < start else 0,
        occurred_at_ms=clock.to_ms(occurred_at),
        quantity_nano=quantity,
        properties=None if region is None else {"region": region, "other": "x"},
    )
    return _priced(record, made, rng) if kind == "b" and rng.random() < 0.7 else record


def _priced(record: Record, made: Catalog, rng: random.Random) -> Record:
    model = rng.choice(sorted(MODELS))
    prices = made.prices[model]
    changed = record.occurred_at_ms >= clock.to_ms(datetime(2026, 7, 1, tzinfo=UTC)) and len(prices) > 1
    return msgspec.structs.replace(
        record,
        model=model,
        matched_by="exact",
        price_id=prices[1] if changed else prices[0],
        margin_bps=rng.choice((0, 2000)),
        cost_nano=rng.randrange(10**9),
        input_tokens=rng.randrange(10**6),
        output_tokens=rng.randrange(10**5),
        cache_read_tokens=rng.randrange(1000),
        cache_write_tokens=rng.randrange(1000),
        cache_write_1h_tokens=rng.randrange(100),
        web_searches=rng.randrange(3),
        input_pico=MODELS[model] * (2 if changed else 1),
        output_pico=15_000_000,
        web_search_pico=10**10,
        catalog_version=3,
    )


async def write(database: postgres.Pool, made: Iterable[Record], rng: random.Random) -> None:
    """Put records into the book, and voids of some of the usage after them."""
    every = list(made)
    first = await database.fetchval("SELECT coalesce(max(seq), 0) + 1 FROM usage_events")
    at = {index: (first + index // _ENTRY_RECORDS, index % _ENTRY_RECORDS) for index in range(len(every))}
    chosen = [(one, at[index]) for index, one in enumerate(every) if one.kind == Kind.USAGE and rng.random() < 0.05]
    entries = [
        log_builder.raw(at[start][0], every[start : start + _ENTRY_RECORDS]) for start in range(0, len(every), _ENTRY_RECORDS)
    ]
    taken_back = [(_void(one, *where), "0") for one, where in chosen]
    entries.append(log_builder.raw(first + len(entries), taken_back))
    effects = aggregate.effects(entries, NOW)
    assert not effects.quarantined
    async with postgres.transaction(database) as connection:
        await store.make_months(connection, effects.months)
        await store.write(connection, effects)


def _void(record: Record, seq: int, position: int) -> Record:
    names = ("amount", "quantity_nano", "cost_nano", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
    negated: dict[str, Any] = {name: -getattr(record, name) for name in (*names, "cache_write_1h_tokens", "web_searches")}
    where = place(seq, position)
    digest = ids.event_digest(record.tenant_id, record.customer_id, f"void {where}")
    return msgspec.structs.replace(record, kind=Kind.VOID, digest=digest, properties=None, reason="twice", voids=where, **negated)


def anywhen(rng: random.Random) -> datetime:
    """Any time of the year, and often the nights in which clocks are set."""
    nights = (datetime(2026, 3, 28, 20, tzinfo=UTC), datetime(2026, 10, 24, 20, tzinfo=UTC), datetime(2026, 11, 1, 1, tzinfo=UTC))
    if rng.random() < 0.3:
        return rng.choice(nights) + timedelta(minutes=rng.randrange(30 * 60))
    return FROM + timedelta(seconds=rng.randrange(int((TO - FROM).total_seconds())))
