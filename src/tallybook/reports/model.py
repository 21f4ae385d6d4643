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
    """One column. `name` is the wire's. `grain` is set for a BUCKET."""

    name: str
    unit: Unit
    grain: Grain | None = None


@dataclass(frozen=True, slots=True)
class Property:
    """A property that an event must have, and its value."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Filters:
    """Which usage counts; None: all. `feature_ids` are all features that ever had the code that was asked for."""

    customer_id: int | None = None
    feature_ids: tuple[int, ...] | None = None
    model: str | None = None
    provider: str | None = None
    plan_code: str | None = None
    property: Property | None = None
    period_start: datetime | None = None


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
