"""Usage that was priced by AI model, as the book keeps it: enough to compute each charge again from its row alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from tallybook.core import money
from tallybook.core.tenant import Tenant
from tallybook.storage import queries
from tallybook.storage.postgres import Connection

_SQL = queries.load("tallybook.rollup")
RERATED_HOUR = "reratedHour"
"""The property that marks an adjustment as a re-rating; its value is the hour, which is also when it says it occurred."""


@dataclass(frozen=True, slots=True)
class ModelUsage:
    """One event, or (`is_void`) one that was taken back. Amounts in nano-USD, unit prices in pico-USD per token and per search.

    `hour` is that of `occurred_at`.
    """

    hour: datetime
    occurred_at: datetime
    is_void: bool
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


async def rerated(connection: Connection, customer_id: int, starts_at: datetime, ends_at: datetime) -> Mapping[datetime, int]:
    """By hour, what earlier re-ratings took from the customer for it, in nano-USD; negative where they gave back."""
    rows = await connection.fetch(_SQL["rerated_hours_of_customer"], customer_id, starts_at, ends_at)
    return {row["hour"]: int(row["amount"]) for row in rows}
