"""A customer's terms: the immutable snapshot that usage is priced with, and that the till checks the age of.

All that a decision about one event needs of the customer is in here, so that pricing is pure. `tenant_version` and
`customer_version` say how old it is; the till answers `stale` when it has been told of newer ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

import msgspec

from tallybook.catalog.model import FeatureTerms
from tallybook.core.tenant import Tenant


class ConsumptionModel(StrEnum):
    """How a plan's usage is paid."""

    METERED = "metered"
    CREDITS = "credits"
    BALANCE = "balance"


@dataclass(frozen=True, slots=True)
class PeriodTerms:
    """What holds in one usage period. Times are Unix seconds, the end exclusive; openings 1e-9 of the pool's unit.

    `grant_start_s` names the balance and credits pools: a trial longer than a month is granted them once. `overage_allowed` is false on
    free plans and in a trial: there usage stops at what is included.
    """

    start_s: int
    end_s: int
    grant_start_s: int
    is_trial: bool
    overage_allowed: bool
    balance_opening: int
    credits_opening: int
    features: Mapping[str, FeatureTerms]


@dataclass(frozen=True, slots=True)
class SubscriptionTerms:
    """The open subscription of a customer. `periods` begins with the one that is not closed yet and follows without gaps."""

    subscription_id: int
    public_id: str
    status: str
    consumption_model: ConsumptionModel
    blocks_on_exhaustion: bool
    ends_at_s: int | None
    periods: tuple[PeriodTerms, ...]

    def has_ended_at(self, moment_s: int) -> bool:
        """Whether a scheduled cancellation lies before the moment."""
        return self.ends_at_s is not None and moment_s >= self.ends_at_s

    def period_at(self, moment_s: int) -> PeriodTerms | None:
        """The period that pays for a moment: its own, or the open one for anything older. None past the known periods."""
        for period in self.periods:
            if moment_s < period.end_s:
                return period
        return None


class Tariff(msgspec.Struct, frozen=True, gc=False):
    """All that one customer's use of one feature goes by for a while: worked out once, the same for each event. See `tariffs`.

    It holds for moments from `from_ms` up to `until_ms`. `pool` pays, `opening` is what the terms grant it, `blocks` says that it may
    not be left below zero, `spare_pool` pays what it can't, or is "". `by_model`: it is AI usage, `margin_bps` dearer than its models.
    """

    from_ms: int
    until_ms: int
    tenant_id: int
    customer_id: int
    customer_public_id: str
    livemode: bool
    partition: int
    tenant_version: int
    customer_version: int
    simulated_at: datetime | None
    consumption_model: ConsumptionModel
    period_start_s: int
    feature: FeatureTerms
    pool: str
    opening: int
    blocks: bool
    spare_pool: str
    by_model: bool
    margin_bps: int


@dataclass(frozen=True, slots=True)
class Terms:
    """A customer and what it has agreed to. `subscription` is None without an open one; `simulated_at` is the sandbox test clock.

    `ai_margin_bps`: the customer's own margin on AI usage, instead of its plan's; None without one. `catalog_version`: the price book
    that was the newest at that moment; no older one may price with these terms. `tariffs` remembers by feature code what was worked
    out from them last.
    """

    tenant: Tenant
    customer_id: int
    customer_public_id: str
    external_id: str | None
    partition: int
    tenant_version: int
    customer_version: int
    simulated_at: datetime | None
    subscription: SubscriptionTerms | None
    ai_margin_bps: int | None = None
    catalog_version: int = 0
    tariffs: dict[str, Tariff] = field(default_factory=dict[str, Tariff], init=False, repr=False, compare=False)

    def now(self, real_now: datetime) -> datetime:
        """The tenant's clock."""
        return self.simulated_at or real_now
