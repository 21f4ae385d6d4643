"""What a report is asked, and what it answers. Frozen values; amounts are integers in the unit their column names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, StrEnum
from typing import Literal

from tallybook.core.tenant import Tenant

ReportName = Literal["usage", "ai-costs", "revenue", "margin", "top-customers"]
Value = str | int | datetime | None
RawRow = Mapping[str, Value]
"""One row by column name, exact integers and times as they come from the book."""


class Grain(StrEnum):
    """Stretches of time that rows can be grouped by, as the clocks of a time zone count them."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class Unit(Enum):
    """What a column holds; it says how the integer is written."""

    TEXT = "text"
    COUNT = "a number of things"
    NANO = "1e-9 of a unit, or 1e-9 USD"
    PICO = "1e-12 USD for a call"
    PICO_PER_TOKEN = "1e-12 USD for a token; shown for a million tokens"  # noqa: S105 - a unit
    BPS = "basis points; shown in percent"
    INSTANT = "a time; shown in UTC"
    BUCKET = "the start of a stretch of time; shown in the time zone of the report"


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `name` is the wire's. `grain` is set for a BUCKET; `alias` where a name of the caller's own must not be put into SQL."""

    name: str
    unit: Unit
    grain: Grain | None = None
    alias: str = ""

    @property
    def key(self) -> str:
        """Its name in rows of the book."""
        return self.alias or self.name


@dataclass(frozen=True, slots=True)
class Property:
    """A property that an event must have, and its value."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Filters:
    """Which usage counts; None: all. `feature_ids` are all features that ever had the code that was asked for.

    `pool` is one of the customer's pools for one period: what an invoice line bills; it wants a `customer_id`.
    """

    customer_id: int | None = None
    feature_ids: tuple[int, ...] | None = None
    model: str | None = None
    provider: str | None = None
    plan_code: str | None = None
    property: Property | None = None
    period_start: datetime | None = None
    pool: str | None = None


@dataclass(frozen=True, slots=True)
class EventFilters:
    """Which records of the log are listed. Times are of `occurred_at`, None: no bound; `kinds` are those of core.usage_log."""

    tenant: Tenant
    kinds: tuple[int, ...]
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    filters: Filters = Filters()


@dataclass(frozen=True, slots=True)
class BilledLine:
    """A line of an invoice and the pool that it bills, as the book has it now. Amounts in 1e-9 of the pool's unit, or 1e-9 USD."""

    invoice_id: str
    position: int
    line_type: str
    description: str
    amount_cents: int
    exact_nano: int
    included_nano: int | None
    used_nano: int | None
    overage_nano: int | None
    customer_id: int
    customer_public_id: str
    pool: str | None
    opening: int | None
    charged: int | None
    adjusted: int | None


@dataclass(frozen=True, slots=True)
class Question:
    """What a report is about: usage that occurred (invoices that were billed) in [starts_at, ends_at).

    `group_by` holds the words of the wire: `customerId`, `featureCode`, `model`, `provider`, `planCode`, `property:<name>`, `hour`,
    `day`, `week`, `month`; for AI costs `unitPrice`, for revenue `lineType`. `ranked_by` orders by a measure, largest first, instead.
    """

    tenant: Tenant
    report: ReportName
    starts_at: datetime
    ends_at: datetime
    zone: str = "UTC"
    group_by: tuple[str, ...] = ()
    filters: Filters = Filters()
    ranked_by: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """One page of a report: keys and measures of each row, the totals of all rows of all pages, and where the next page begins."""

    keys: Sequence[Column]
    measures: Sequence[Column]
    rows: Sequence[RawRow]
    totals: RawRow
    next_cursor: str | None
