"""Usage that was priced by AI model, as the book keeps it: enough to compute each charge again from its row alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from tallybook.core import clock, money
from tallybook.core.tenant import Tenant
from tallybook.storage import queries
from tallybook.storage.postgres import Connection

_SQL = queries.load("tallybook.rollup")
RERATED_HOUR = "reratedHour"
"""The property that marks an adjustment as a re-rating; its value is the hour, which is also when it says it occurred."""
RERATED_PRICES = "reratedPrices"
"""The property with the price rows that a re-rating used: JSON, by model the rows in force in the hour with when each begins."""
RERATED_THROUGH = "reratedThrough"
"""The property that says up to which sequence of the customer's log a re-rating saw usage."""

Prices = Mapping[str, Sequence[tuple[int, int]]]
"""By model: (from Unix milliseconds, price row), ascending."""


@dataclass(frozen=True, slots=True)
class ModelUsage:
    """One event. Amounts in nano-USD, unit prices in pico-USD per token and per search.

    `hour` is that of `occurred_at`, `pool` and `period_start` name the subscription and the period that paid.
    """

    hour: datetime
    occurred_at: datetime
    feature_id: int
    pool: str
    period_start: datetime
    model: str
    service_tier: str | None
    margin_bps: int
    amount: int
    cost_nano: int
    price_id: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cache_write_1h_tokens: int
    web_searches: int
    input_pico: int
    output_pico: int
    cache_read_pico: int
    cache_write_pico: int
    cache_write_1h_pico: int
    web_search_pico: int
    catalog_version: int

    @property
    def cost_pico(self) -> int:
        """The exact cost, from the unit prices and counts of the row."""
        plain = self.input_tokens - self.cache_read_tokens - self.cache_write_tokens
        return (
            plain * self.input_pico
            + self.output_tokens * self.output_pico
            + self.cache_read_tokens * self.cache_read_pico
            + (self.cache_write_tokens - self.cache_write_1h_tokens) * self.cache_write_pico
            + self.cache_write_1h_tokens * self.cache_write_1h_pico
            + self.web_searches * self.web_search_pico
        )

    @property
    def charge_nano(self) -> int:
        """The charge with the margin of the row; what was taken is this, or 0 where the plan includes it without limit."""
        return money.divide_half_even(self.cost_pico * (money.BPS + self.margin_bps), money.BPS * money.PICO_PER_NANO)


@dataclass(frozen=True, slots=True)
class Rerated:
    """What re-ratings took for an hour, in nano-USD (negative: gave back), in so many adjustments."""

    nano: int
    adjustments: int


@dataclass(frozen=True, slots=True)
class LastRerate:
    """The last re-rating of an hour: the price rows it used, and the log sequence up to which it saw usage."""

    prices: Prices
    through: int


@dataclass(frozen=True, slots=True)
class PeriodEdition:
    """What a period's terms are read by: its plan, and once it has begun its end and the revision it began with."""

    plan_id: int
    ends_at: datetime | None
    feature_revision: int | None


@dataclass(frozen=True, slots=True)
class ModelCustomer:
    """A customer with such usage."""

    tenant: Tenant
    customer_id: int
    public_id: str


async def customers(
    connection: Connection, starts_at: datetime, ends_at: datetime, tenant_id: int | None, customer_id: int | None
) -> list[ModelCustomer]:
    """Customers with usage priced by AI model in [starts_at, ends_at), which are whole hours."""
    rows = await connection.fetch(_SQL["customers_with_model_usage"], starts_at, ends_at, tenant_id, customer_id)
    return [
        ModelCustomer(Tenant(row["tenant_id"], row["organization_id"], row["livemode"]), row["customer_id"], row["public_id"])
        for row in rows
    ]


async def of_customer(connection: Connection, customer_id: int, starts_at: datetime, ends_at: datetime) -> list[ModelUsage]:
    """One customer's events in [starts_at, ends_at), in no order."""
    rows = await connection.fetch(_SQL["model_usage_of_customer"], customer_id, starts_at, ends_at)
    return [ModelUsage(*row) for row in rows]


async def rerated(connection: Connection, customer_id: int, starts_at: datetime, ends_at: datetime) -> Mapping[datetime, Rerated]:
    """By hour, what earlier re-ratings took from the customer for it."""
    rows = await connection.fetch(_SQL["rerated_hours_of_customer"], customer_id, starts_at, ends_at)
    return {row["hour"]: Rerated(int(row["amount"]), row["adjustments"]) for row in rows}


async def last_rerate(connection: Connection, customer_id: int, hour: datetime) -> LastRerate | None:
    """The last re-rating that adjusted an hour; None when none did."""
    row = await connection.fetchrow(_SQL["last_rerate_of_hour"], customer_id, hour)
    return None if row is None else LastRerate(_decode_prices(row["prices"]), int(row["through"]))


async def edition(connection: Connection, subscription_id: int, period_start: datetime) -> PeriodEdition | None:
    """What the terms of a subscription's period are read by; None when there is no such subscription."""
    row = await connection.fetchrow(_SQL["edition_of_period"], subscription_id, period_start)
    return None if row is None else PeriodEdition(**dict(row))


def rerate_properties(hour: datetime, prices: Prices, through: int) -> dict[str, str]:
    """The properties of a re-rating's adjustment, which `last_rerate` reads."""
    return {
        RERATED_HOUR: clock.iso(hour),
        RERATED_PRICES: msgspec.json.encode(prices).decode(),
        RERATED_THROUGH: str(through),
    }


_decode_prices = msgspec.json.Decoder(dict[str, list[tuple[int, int]]]).decode
