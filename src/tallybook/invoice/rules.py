"""What an invoice says and what it amounts to. Pure.

Each line is rounded to cents once, half to even, from the exact product; nothing is rounded before. A base price is paid in
advance for the cycle that begins, overage afterwards for the usage period that ended.
"""

from collections.abc import Iterable, Mapping

from tallybook.catalog.model import FeatureTerms
from tallybook.core import clock, money, pools
from tallybook.core.pools import PoolKind
from tallybook.invoice.model import BasePrice, Decision, InvoiceType, LateUsage, Line, PoolTotals, Verdict, Waiver

_CYCLE_WORDS = {
    "weekly": "week",
    "monthly": "month",
    "quarterly": "quarter",
    "semiannual": "half-year",
    "yearly": "year",
    "one_time": "once",
}


def invoice_type(lines: Iterable[Line]) -> InvoiceType:
    """A recurring invoice carries a base price; without one it is about overage alone."""
    return "recurring" if any(line.line_type == "plan_base" for line in lines) else "overage"


def total_cents(lines: Iterable[Line]) -> int:
    """The sum of the lines as they are printed."""
    return sum(line.amount_cents for line in lines)


def metadata(late: Iterable[LateUsage]) -> Mapping[str, object]:
    """What an invoice says beside its lines: which of its usage belongs to periods that were closed before."""
    named = [
        {
            "featureCode": one.feature_code,
            "periodStart": None if one.period is None else clock.iso(one.period.starts_at),
            "periodEnd": None if one.period is None else clock.iso(one.period.ends_at),
            "events": one.events,
            "quantity": money.units(one.quantity_nano),
        }
        for one in late
    ]
    return {"lateUsage": named} if named else {}


def base_line(base: BasePrice) -> Line:
    """The base price of the cycle that begins, paid in advance."""
    nano = base.price_cents * money.NANO_PER_CENT
    return Line(
        line_type="plan_base",
        description=f"{base.plan_name} ({_CYCLE_WORDS[base.billing_interval]})",
        quantity_nano=money.NANO,
        unit_price_nano=nano,
        amount_cents=base.price_cents,
        exact_nano=nano,
        charge_type="advance",
    )


def overage_lines(
    period_pools: Iterable[PoolTotals], features: Mapping[int, FeatureTerms], *, balance_may_be_overdrawn: bool
) -> list[Line]:
    """What was used past the pools of the ended period: metered features by code, then the balance.

    Features that are unlimited or whose overage is off are not billed, nor is a balance on a plan that blocks when it is empty.
    """
    lines: list[tuple[str, Line]] = []
    for totals in period_pools:
        name = pools.parse(totals.pool)
        if name.kind is PoolKind.FEATURE:
            feature = features.get(name.feature_id)
            if feature is not None and totals.balance < 0 and _verdict(feature) == "billed":
                lines.append((feature.code, _feature_line(totals, feature)))
        elif name.kind is PoolKind.BALANCE and balance_may_be_overdrawn and balance_overage_nano(totals) > 0:
            lines.append(("~", _balance_line(totals)))
    return [line for _, line in sorted(lines, key=lambda entry: entry[0])]


def decisions(period_pools: Iterable[PoolTotals], features: Mapping[int, FeatureTerms], waiver: Waiver | None) -> list[Decision]:
    """What becomes of each metered feature's overage. `waiver`: why the whole period has none to pay, if it has not.

    A pool whose feature has no terms in its period is decided by nobody; reconciliation finds it.
    """
    found: list[Decision] = []
    for totals in period_pools:
        name = pools.parse(totals.pool)
        feature = features.get(name.feature_id)
        if name.kind is PoolKind.FEATURE and totals.balance < 0 and feature is not None:
            found.append(Decision(totals.pool, waiver or _verdict(feature), -totals.balance))
    return found


def _verdict(feature: FeatureTerms) -> Verdict:
    if feature.unlimited:
        return "unlimited"
    return "billed" if feature.overage_enabled else "overage_off"


def balance_overage_nano(totals: PoolTotals) -> int:
    """What a balance was overdrawn by usage, nano-USD. A correction that takes balance away bills nothing that was not used."""
    return max(0, min(-totals.balance, totals.charged))


def _feature_line(totals: PoolTotals, feature: FeatureTerms) -> Line:
    overage_nano = -totals.balance
    product = overage_nano * feature.unit_price_nano
    return Line(
        line_type="feature_overage",
        description=(
            f"{feature.name} since {_day_of(totals.pool)}: {money.units(overage_nano):,} beyond {money.units(totals.opening):,} "
            f"included, at {money.usd(feature.unit_price_nano)}"
        ),
        quantity_nano=overage_nano,
        unit_price_nano=feature.unit_price_nano,
        amount_cents=money.divide_half_even(product, money.NANO * money.NANO_PER_CENT),
        exact_nano=money.divide_half_even(product, money.NANO),
        charge_type="true_up",
        feature_id=feature.feature_id,
        feature_name=feature.name,
        pool=totals.pool,
        included_nano=totals.opening,
        used_nano=totals.opening - totals.balance,
        overage_nano=overage_nano,
    )


def _balance_line(totals: PoolTotals) -> Line:
    overage_nano = balance_overage_nano(totals)
    granted_nano = totals.opening + totals.adjusted
    return Line(
        line_type="balance_overage",
        description=(
            f"Usage since {_day_of(totals.pool)}: {money.usd(totals.charged)}, beyond the balance of {money.usd(granted_nano)}"
        ),
        quantity_nano=money.NANO,
        unit_price_nano=overage_nano,
        amount_cents=money.cents(overage_nano),
        exact_nano=overage_nano,
        charge_type="true_up",
        pool=totals.pool,
        included_nano=granted_nano,
        used_nano=totals.charged,
        overage_nano=overage_nano,
    )


def _day_of(pool: str) -> str:
    """The day on which the usage period of a pool began, as people write it: the invoice's own period is the next one."""
    began = clock.from_ms(pools.parse(pool).period_start_s * 1000)
    return f"{began.day} {began:%b %Y}"
