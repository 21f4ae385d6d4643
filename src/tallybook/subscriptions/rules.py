"""When periods begin and end. Pure calendar arithmetic in UTC, counted from where a subscription is anchored.

A *usage period* is what allowances are granted for and what an overage is counted over: a month, or 7 days on a weekly price.
A *billing cycle* is what one base price pays: 1, 3, 6 or 12 usage periods. Boundaries are counted from the original anchor, never
from the boundary before, so an anchor on the 31st gives 28 February and then 31 March again.
"""

from calendar import monthrange
from datetime import UTC, datetime, timedelta

from tallybook.subscriptions.model import Period

WEEK = timedelta(days=7)
PERIODS_PER_CYCLE = {"weekly": 1, "monthly": 1, "quarterly": 3, "semiannual": 6, "yearly": 12}
"""Usage periods that one base price pays. `one_time` has no cycle: its base price is paid once."""


def add_months(anchor: datetime, months: int) -> datetime:
    """The anchor moved by whole months, its day clamped to the length of the month it lands in."""
    year, month0 = divmod(anchor.year * 12 + anchor.month - 1 + months, 12)
    return anchor.replace(year=year, month=month0 + 1, day=min(anchor.day, monthrange(year, month0 + 1)[1]))


def boundary(anchor_at: datetime, billing_interval: str | None, index: int) -> datetime:
    """The start of usage period `index` counted from the anchor (0 is the anchor itself)."""
    anchor = anchor_at.astimezone(UTC)
    return anchor + WEEK * index if billing_interval == "weekly" else add_months(anchor, index)


def usage_period_index(anchor_at: datetime, billing_interval: str | None, moment: datetime) -> int:
    """Which usage period a moment falls in, counted from the anchor; negative before it."""
    anchor, at = anchor_at.astimezone(UTC), moment.astimezone(UTC)
    if billing_interval == "weekly":
        return (at - anchor) // WEEK
    months = (at.year - anchor.year) * 12 + at.month - anchor.month
    return months if add_months(anchor, months) <= at else months - 1


def in_trial(trial_ends_at: datetime | None, moment: datetime) -> bool:
    """Whether a moment is before the end of the trial, if there is one."""
    return trial_ends_at is not None and moment < trial_ends_at


def usage_period_at(
    started_at: datetime,
    anchor_at: datetime,
    trial_ends_at: datetime | None,
    billing_interval: str | None,
    moment: datetime,
) -> Period:
    """The usage period a moment falls in. In a trial it is a month from the start, cut at the trial's end.

    `billing_interval` is None for a free plan without a price. Raises ValueError for a moment before the start.
    """
    if moment < started_at:
        message = f"{moment.isoformat()} is before the subscription's start {started_at.isoformat()}"
        raise ValueError(message)
    if trial_ends_at is not None and in_trial(trial_ends_at, moment):
        period = _period(started_at, None, moment)
        return Period(period.starts_at, min(period.ends_at, trial_ends_at.astimezone(UTC)))
    return _period(anchor_at, billing_interval, moment)


def next_period(
    started_at: datetime,
    anchor_at: datetime,
    trial_ends_at: datetime | None,
    billing_interval: str | None,
    ended: Period,
) -> Period:
    """The usage period that begins where `ended` ends."""
    return usage_period_at(started_at, anchor_at, trial_ends_at, billing_interval, ended.ends_at)


def is_renewal(anchor_at: datetime, billing_interval: str | None, moment: datetime) -> bool:
    """Whether a base price falls due at this boundary: a billing cycle begins here, the first one included.

    A `one_time` price falls due at the anchor only; without an interval (a free plan) nothing ever does.
    """
    if billing_interval is None or moment < anchor_at:
        return False
    index = usage_period_index(anchor_at, billing_interval, moment)
    if boundary(anchor_at, billing_interval, index) != moment:
        return False
    return index == 0 if billing_interval == "one_time" else index % PERIODS_PER_CYCLE[billing_interval] == 0


def cycle_at(
    started_at: datetime,
    anchor_at: datetime,
    trial_ends_at: datetime | None,
    billing_interval: str | None,
    moment: datetime,
) -> Period:
    """The billing cycle a moment falls in: the whole trial, then what one base price pays.

    Without a recurring price (`one_time`, free) it is the usage period. Raises ValueError for a moment before the start.
    """
    if trial_ends_at is not None and started_at <= moment < trial_ends_at:
        return Period(started_at.astimezone(UTC), trial_ends_at.astimezone(UTC))
    if billing_interval not in PERIODS_PER_CYCLE:
        return usage_period_at(started_at, anchor_at, trial_ends_at, billing_interval, moment)
    if moment < started_at:
        message = f"{moment.isoformat()} is before the subscription's start {started_at.isoformat()}"
        raise ValueError(message)
    length = PERIODS_PER_CYCLE[billing_interval]
    first = usage_period_index(anchor_at, billing_interval, moment) // length * length
    return Period(boundary(anchor_at, billing_interval, first), boundary(anchor_at, billing_interval, first + length))


def _period(anchor_at: datetime, billing_interval: str | None, moment: datetime) -> Period:
    index = usage_period_index(anchor_at, billing_interval, moment)
    return Period(boundary(anchor_at, billing_interval, index), boundary(anchor_at, billing_interval, index + 1))
