"""When there is something to tell. Pure.

The standard topics look at each pool by itself: money and credits are low at a tenth of the last grant, included units at a fifth; what is
depleted is told as that alone, even if it was never seen low.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from tallybook.alerts.model import Alert, AlertSettings, Metric, Reading, Signal, Standing, Unit, Watch
from tallybook.catalog.model import FeatureTerms
from tallybook.core import errors, money
from tallybook.core.pools import PoolKind

LOW_PERCENT: Final[Mapping[PoolKind, int]] = {PoolKind.BALANCE: 10, PoolKind.CREDITS: 10, PoolKind.FEATURE: 20}
"""What is left of a grant when it is low; of included units, four fifths are used then."""
UNITS: Final[Mapping[Metric, tuple[Unit, ...]]] = {
    "balance": ("amount", "credits", "percent"),
    "spend": ("amount", "percent"),
    "usage": ("units", "percent"),
}
NAME_CHARACTERS_MAX: Final = 128
ALERTS_MAX: Final = 1000
_PERCENT_WHOLE: Final = 100 * money.NANO
_PERCENT_MAX: Final = 1000 * money.NANO
_THRESHOLD_MAX: Final = 4 * 10**18


def check(settings: AlertSettings) -> AlertSettings:
    """The settings. Raises ValidationError for those that make no sense together."""
    if settings.unit not in UNITS[settings.metric]:
        raise errors.invalid(
            "unit", f"unit is {settings.unit}; for {settings.metric} it is one of {', '.join(UNITS[settings.metric])}."
        )
    if (settings.metric == "usage") != (settings.feature_id is not None):
        raise errors.invalid("featureCode", "featureCode belongs to alerts on usage, and these need one.")
    most = _PERCENT_MAX if settings.unit == "percent" else _THRESHOLD_MAX
    if not 0 <= settings.threshold_nano <= most or (settings.threshold_nano == 0 and settings.metric != "balance"):
        raise errors.invalid("threshold", "threshold is out of bounds.")
    if not settings.name.strip() or not settings.name.isprintable():
        raise errors.invalid("name", f"name must have 1 to {NAME_CHARACTERS_MAX} printable characters.")
    return settings


def look(standing: Standing, *, purchased: int = 0, may_be_exceeded: bool = True) -> tuple[Watch, Signal | None]:
    """What to remember of a pool, and what to tell. Nothing of one that was never granted anything.

    `purchased` credits count beside a plan's. `may_be_exceeded`: usage goes on beyond what is included, so that only more than that
    is told as depleted; else its end is.
    """
    before = standing.watch or Watch()
    watch = replace(before, adjusted=standing.adjusted, refilled_to=_refilled_to(standing, before))
    granted = granted_to(standing, watch)
    if granted <= 0:
        return watch, None
    left = standing.balance + purchased
    exceeds = standing.name.kind is PoolKind.FEATURE and may_be_exceeded
    is_depleted = left < 0 if exceeds else left <= 0
    is_low = left * 100 <= granted * LOW_PERCENT[standing.name.kind]
    signal = _signal(before, is_low=is_low, is_depleted=is_depleted)
    return _told(standing.name.kind, watch, is_low=is_low, is_depleted=is_depleted), signal


def granted_to(standing: Standing, watch: Watch | None = None) -> int:
    """What percents of what is left are of: what there was after the last refill, else what the pool was opened with."""
    known = watch or standing.watch
    return standing.opening if known is None or known.refilled_to is None else known.refilled_to


def _refilled_to(standing: Standing, before: Watch) -> int | None:
    """A correction upwards is a refill. Usage of the same pass may be gone from the balance already, so it is at least the refill."""
    if standing.name.kind is not PoolKind.BALANCE or standing.adjusted <= before.adjusted:
        return before.refilled_to
    return max(standing.balance, standing.adjusted - before.adjusted)


def _signal(before: Watch, *, is_low: bool, is_depleted: bool) -> Signal | None:
    if is_depleted:
        return None if before.told_depleted else Signal.DEPLETED
    return Signal.LOW if is_low and not before.told_low else None


def _told(kind: PoolKind, watch: Watch, *, is_low: bool, is_depleted: bool) -> Watch:
    """Money is armed again when it rises above; credits are low once a period, included units reached and exceeded once a period."""
    if kind is PoolKind.BALANCE:
        return replace(watch, told_low=is_low, told_depleted=is_depleted)
    if kind is PoolKind.CREDITS:
        return replace(watch, told_low=watch.told_low or is_low, told_depleted=is_depleted)
    return replace(watch, told_low=watch.told_low or is_low, told_depleted=watch.told_depleted or is_depleted)


def is_crossed(settings: AlertSettings, reading: Reading) -> bool:
    """Whether a threshold is reached: by what is left from above, by what was spent or used from below."""
    value, threshold = reading.value, settings.threshold_nano
    if settings.unit == "percent":
        if reading.base <= 0:
            return False
        value, threshold = value * _PERCENT_WHOLE, threshold * reading.base
    return value <= threshold if settings.metric == "balance" else value >= threshold


def shown(settings: AlertSettings, nano: int) -> int | float:
    """A threshold, or a value in its unit, as the wire has it: money in rate scale, the others in their own unit."""
    return money.rate(nano) if settings.unit == "amount" else money.units(nano)


def shown_value(settings: AlertSettings, reading: Reading) -> int | float:
    """What was read, in the alert's unit; a percent rounded to 9 digits."""
    if settings.unit != "percent":
        return shown(settings, reading.value)
    return money.units(money.divide_half_even(reading.value * _PERCENT_WHOLE, reading.base))


def read(alert: Alert, standings: Sequence[Standing], features: Mapping[int, Mapping[int, FeatureTerms]]) -> Iterator[Reading]:
    """What an alert reads of one customer's open pools. `features` are what a subscription's overage costs, by feature id."""
    readers = {"balance": _left, "spend": _spent, "usage": _used}
    yield from readers[alert.settings.metric](alert.settings, standings, features)


def _left(
    settings: AlertSettings, standings: Sequence[Standing], _features: Mapping[int, Mapping[int, FeatureTerms]]
) -> Iterator[Reading]:
    wanted = {"amount": (PoolKind.BALANCE,), "credits": (PoolKind.CREDITS,)}.get(
        settings.unit, (PoolKind.BALANCE, PoolKind.CREDITS)
    )
    spare = purchased(standings)
    for one in standings:
        if one.name.kind in wanted:
            left = one.balance + (spare if one.name.kind is PoolKind.CREDITS else 0)
            yield Reading(one.name.subscription_id, one.pool, one.name.period_start_s, left, granted_to(one))


def _spent(
    settings: AlertSettings, standings: Sequence[Standing], features: Mapping[int, Mapping[int, FeatureTerms]]
) -> Iterator[Reading]:
    beyond: dict[tuple[int, int], int] = {}
    for one in standings:
        name = one.name
        if name.kind is PoolKind.BALANCE:
            yield Reading(name.subscription_id, one.pool, name.period_start_s, one.charged, one.opening + one.adjusted)
        elif name.kind is PoolKind.FEATURE and settings.unit == "amount":
            key = (name.subscription_id, name.period_start_s)
            beyond[key] = beyond.get(key, 0) + _overage_nano(one, features.get(name.subscription_id, {}))
    for (subscription_id, start_s), nano in beyond.items():
        yield Reading(subscription_id, f"{subscription_id}.spend.{start_s}", start_s, nano)


def _used(
    settings: AlertSettings, standings: Sequence[Standing], _features: Mapping[int, Mapping[int, FeatureTerms]]
) -> Iterator[Reading]:
    for one in standings:
        name = one.name
        if name.kind is PoolKind.FEATURE and name.feature_id == settings.feature_id:
            yield Reading(name.subscription_id, one.pool, name.period_start_s, one.opening - one.balance, one.opening)


def purchased(standings: Sequence[Standing]) -> int:
    """Credits that a customer has beside its plan's."""
    return sum(one.balance for one in standings if one.name.kind is PoolKind.PURCHASED)


def _overage_nano(standing: Standing, features: Mapping[int, FeatureTerms]) -> int:
    terms = features.get(standing.name.feature_id)
    if terms is None or terms.unlimited or not terms.overage_enabled or standing.balance >= 0:
        return 0
    return money.divide_half_even(-standing.balance * terms.unit_price_nano, money.NANO)
