"""Announces what a change of pools crossed, in the transaction of the change: once a crossing, whatever dies when.

A crossing is a row (a flag of `pool_watches`, a row of `alert_crossings`) that commits together with the announcement and with the
change of the pool itself. Looked at is what a pass of the rollup leaves: what dips and is refilled within one pass is not told.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from tallybook.alerts import rules, store
from tallybook.alerts.model import Alert, Crossing, Reading, Signal, Standing, Watch
from tallybook.catalog import store as catalog
from tallybook.catalog.model import FeatureTerms
from tallybook.core import clock, money
from tallybook.core.pools import PoolKind
from tallybook.core.tenant import Tenant
from tallybook.storage.postgres import Connection
from tallybook.subscriptions import rules as subscription_rules
from tallybook.subscriptions import store as subscriptions
from tallybook.subscriptions.model import Subscription
from tallybook.tenancy import actions as tenancy

TOPIC = "alert.triggered"
_CURRENCY = "usd"
_NOTHING_NOTED = Watch()


@dataclass(slots=True)
class _Look:
    """One look: what it read on the way, so that it is read once."""

    connection: Connection
    now: datetime
    announced: int = 0
    known: dict[int, Subscription] = field(default_factory=dict[int, Subscription])
    terms: dict[tuple[int, int], Mapping[int, FeatureTerms]] = field(
        default_factory=dict[tuple[int, int], Mapping[int, FeatureTerms]]
    )

    async def subscription(self, subscription_id: int) -> Subscription:
        if subscription_id not in self.known:
            self.known[subscription_id] = await subscriptions.by_id(self.connection, subscription_id)
        return self.known[subscription_id]

    async def overage_terms(self, tenant: Tenant, subscription_id: int, start_s: int) -> Mapping[int, FeatureTerms]:
        """What holds for the features of a period whose overage may be billed; features without overage are there too."""
        key = (subscription_id, start_s)
        if key not in self.terms:
            subscription = await self.subscription(subscription_id)
            now = await tenancy.clock_now(self.connection, tenant, self.now)
            starts_at = clock.from_ms(start_s * 1000)
            found = await catalog.feature_terms(self.connection, subscription.plan_id, starts_at, now)
            self.terms[key] = {terms.feature_id: terms for terms in found}
        return self.terms[key]

    async def has_overage(self, subscription_id: int, start_s: int) -> bool:
        """Whether usage beyond what is included can be billed at all: not on free plans and not in a trial."""
        subscription = await self.subscription(subscription_id)
        return not subscription.is_free and not subscription_rules.in_trial(
            subscription.trial_ends_at, clock.from_ms(start_s * 1000)
        )

    async def announce(self, tenant: Tenant, topic: str, subscription_id: int, about: Mapping[str, object]) -> None:
        subscription = await self.subscription(subscription_id)
        named = {
            "subscriptionId": subscription.public_id,
            "customerId": subscription.customer_external_id or subscription.customer_public_id,
        }
        await tenancy.announce(self.connection, tenant, topic, {**named, **about})
        self.announced += 1


async def judge(connection: Connection, customer_ids: Sequence[int], now: datetime) -> int:
    """Announce what customers' pools have crossed since the last look. Returns how many announcements that were. `now` is real."""
    found = await store.standings(connection, customer_ids)
    if not found.standings:
        return 0
    look = _Look(connection, now)
    by_customer: dict[int, list[Standing]] = defaultdict(list)
    for standing in found.standings:
        by_customer[standing.customer_id].append(standing)
    noted = [noting for standings in by_customer.values() for noting in await _watch(look, standings)]
    await store.watch(connection, noted)
    if found.tenants_with_alerts:
        await _alerts(look, found.tenants_with_alerts, by_customer)
    return look.announced


async def _watch(look: _Look, standings: Sequence[Standing]) -> list[tuple[Standing, Watch]]:
    """The standard topics, for one customer. Returns what is to be remembered."""
    noted: list[tuple[Standing, Watch]] = []
    spare = rules.purchased(standings)
    for standing in standings:
        if standing.name.kind is PoolKind.PURCHASED:
            continue
        watch, signal = await _looked_at(look, standing, spare)
        if signal is not None:
            await _tell(look, standing, watch, spare, signal)
        if watch != (standing.watch or _NOTHING_NOTED):
            noted.append((standing, watch))
    return noted


async def _looked_at(look: _Look, standing: Standing, spare: int) -> tuple[Watch, Signal | None]:
    if standing.name.kind is not PoolKind.FEATURE:
        return rules.look(standing, purchased=spare if standing.name.kind is PoolKind.CREDITS else 0)
    watch, signal = rules.look(standing, may_be_exceeded=False)
    if signal is None:
        return watch, None
    terms = await _terms_of(look, standing)
    if terms is None or terms.unlimited:
        return Watch(watch.adjusted, None, told_low=True, told_depleted=True), None
    return rules.look(standing, may_be_exceeded=await _overage_enabled(look, standing, terms))


async def _terms_of(look: _Look, standing: Standing) -> FeatureTerms | None:
    name = standing.name
    return (await look.overage_terms(standing.tenant, name.subscription_id, name.period_start_s)).get(name.feature_id)


async def _overage_enabled(look: _Look, standing: Standing, terms: FeatureTerms) -> bool:
    name = standing.name
    return terms.overage_enabled and await look.has_overage(name.subscription_id, name.period_start_s)


async def _tell(look: _Look, standing: Standing, watch: Watch, spare: int, signal: Signal) -> None:
    tell = {PoolKind.BALANCE: _tell_balance, PoolKind.CREDITS: _tell_credits, PoolKind.FEATURE: _tell_feature}
    await tell[standing.name.kind](look, standing, watch, spare, signal)


async def _tell_balance(look: _Look, standing: Standing, watch: Watch, _spare: int, signal: Signal) -> None:
    about: dict[str, object] = {"currentBalance": money.rate(standing.balance), "currency": _CURRENCY}
    if signal is Signal.LOW:
        granted = rules.granted_to(standing, watch) * rules.LOW_PERCENT[PoolKind.BALANCE]
        about["thresholdBalance"] = money.rate(money.divide_half_even(granted, 100))
    await look.announce(standing.tenant, f"balance.{signal.value}", standing.name.subscription_id, about)


async def _tell_credits(look: _Look, standing: Standing, _watch: Watch, spare: int, signal: Signal) -> None:
    about: dict[str, object] = {"remainingCredits": money.units(standing.balance + spare)}
    if signal is Signal.LOW:
        granted = standing.opening * rules.LOW_PERCENT[PoolKind.CREDITS]
        about["thresholdCredits"] = money.units(money.divide_half_even(granted, 100))
        about["periodCredits"] = money.units(standing.opening)
    await look.announce(standing.tenant, f"credits.{signal.value}", standing.name.subscription_id, about)


async def _tell_feature(look: _Look, standing: Standing, _watch: Watch, _spare: int, signal: Signal) -> None:
    terms = await _terms_of(look, standing)
    assert terms is not None
    about: dict[str, object] = {
        "featureCode": terms.code,
        "currentUsage": money.units(standing.opening - standing.balance),
        "includedAmount": money.units(standing.opening),
        "periodStart": clock.iso(clock.from_ms(standing.name.period_start_s * 1000)),
    }
    topic = "quota.threshold_reached"
    if signal is Signal.DEPLETED:
        topic = "quota.exceeded"
        about["overageEnabled"] = await _overage_enabled(look, standing, terms)
    await look.announce(standing.tenant, topic, standing.name.subscription_id, about)


async def _alerts(look: _Look, tenant_ids: Sequence[int], by_customer: Mapping[int, Sequence[Standing]]) -> None:
    """The tenants' own thresholds."""
    alerts = await store.of_tenants(look.connection, tenant_ids)
    customers = {customer_id: standings for customer_id, standings in by_customer.items() if standings[0].tenant.id in tenant_ids}
    features = sorted({one.settings.feature_id for one in alerts if one.settings.feature_id is not None})
    used = await store.used(look.connection, list(customers), features) if features else {}
    crossed = await store.crossings(look.connection, [one.id for one in alerts], list(customers))
    for customer_id, standings in customers.items():
        tenant = standings[0].tenant
        for alert in alerts:
            if alert.tenant_id == tenant.id and alert.settings.customer_id in (None, customer_id):
                readings = await _readings(look, alert, standings)
                other = used.get((customer_id, alert.settings.feature_id or 0))
                for reading in [*readings, *([other] if other is not None else [])]:
                    await _settle(look, tenant, alert, customer_id, reading, crossed)


async def _readings(look: _Look, alert: Alert, standings: Sequence[Standing]) -> list[Reading]:
    features: dict[int, Mapping[int, FeatureTerms]] = {}
    if alert.settings.metric == "spend":
        for one in standings:
            name = one.name
            if (
                name.kind is PoolKind.FEATURE
                and one.balance < 0
                and await look.has_overage(name.subscription_id, name.period_start_s)
            ):
                features[name.subscription_id] = await look.overage_terms(one.tenant, name.subscription_id, name.period_start_s)
    return list(rules.read(alert, standings, features))


async def _settle(look: _Look, tenant: Tenant, alert: Alert, customer_id: int, reading: Reading, crossed: set[Crossing]) -> None:
    crossing = Crossing(alert.id, customer_id, reading.scope)
    if not rules.is_crossed(alert.settings, reading):
        if crossing in crossed and alert.settings.metric == "balance":
            await store.arm_again(look.connection, crossing)
        return
    if crossing in crossed or not await store.note_crossing(look.connection, tenant, crossing, look.now):
        return
    about = {
        "alertId": alert.public_id,
        "name": alert.settings.name,
        "metric": alert.settings.metric,
        "unit": alert.settings.unit,
        "threshold": rules.shown(alert.settings, alert.settings.threshold_nano),
        "value": rules.shown_value(alert.settings, reading),
        "featureCode": alert.feature_code,
        "periodStart": clock.iso(clock.from_ms(reading.period_start_s * 1000)),
    }
    await look.announce(tenant, TOPIC, reading.subscription_id, about)
