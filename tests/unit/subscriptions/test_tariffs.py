"""What an event goes by: worked out once, remembered with the terms, and only for the moments that it holds for."""

import dataclasses

import pytest

from tallybook.catalog.model import FeatureTerms
from tallybook.core import errors, ids
from tallybook.core.tenant import Tenant
from tallybook.flows import price_event
from tallybook.pricing.price_book import PriceBook
from tallybook.receive import events
from tallybook.subscriptions import tariffs
from tallybook.subscriptions.terms import ConsumptionModel, PeriodTerms, SubscriptionTerms, Terms

FEBRUARY_S, MARCH_S, APRIL_S = 1_769_904_000, 1_772_323_200, 1_775_001_600
IMAGES = FeatureTerms(
    feature_id=7,
    code="images",
    name="Images",
    unit_name=None,
    type="usage",
    enabled=True,
    included_nano=5 * 10**9,
    unlimited=False,
    overage_enabled=False,
    unit_price_nano=0,
    credits_per_unit=3,
    pricing_mode="fixed",
    margin_bps=2000,
)


def period(start_s: int, end_s: int) -> PeriodTerms:
    return PeriodTerms(start_s, end_s, start_s, False, True, 11, 22, {"images": IMAGES})  # noqa: FBT003 - no trial, overage allowed


def subscribed(model: ConsumptionModel = ConsumptionModel.METERED, ends_at_s: int | None = None) -> Terms:
    periods = (period(FEBRUARY_S, MARCH_S), period(MARCH_S, APRIL_S))
    subscription = SubscriptionTerms(17, "sub_1", "active", model, True, ends_at_s, periods)  # noqa: FBT003 - blocks
    return Terms(Tenant(1, "org_1", True), 42, "cus_1", None, 3, 5, 6, None, subscription)  # noqa: FBT003 - live


def pool_at(terms: Terms, moment_s: int) -> str:
    event = events.parse_one(b'{"featureCode":"images","customerId":"cus_1","eventId":"e"}')
    return price_event.price(event, terms, PriceBook(1, []), moment_s * 1000, "e", bytes(4)).charge.record.pool


def test_an_event_is_named_when_its_identity_is_that_of_its_own_id() -> None:
    """Fails when an event without an id counts as named: the log would not say its identity, and nobody could tell it from the next one."""
    named, unnamed = (
        price_event.price(events.parse_one(body), subscribed(), PriceBook(1, []), MARCH_S * 1000, identity, bytes(4)).charge
        for body, identity in (
            (b'{"featureCode":"images","customerId":"cus_1","eventId":"e"}', "e"),
            (b'{"featureCode":"images","customerId":"cus_1"}', "made up"),
        )
    )
    assert (named.is_named, named.record.digest) == (True, ids.event_digest(1, 42, "e"))
    assert (unnamed.is_named, unnamed.record.digest) == (False, ids.event_digest(1, 42, "made up"))


def test_each_period_pays_from_its_own_pool_in_whatever_order_events_come() -> None:
    terms = subscribed()
    moments = [FEBRUARY_S + 1, MARCH_S, MARCH_S - 1, APRIL_S - 1, FEBRUARY_S]
    starts = [FEBRUARY_S, MARCH_S, FEBRUARY_S, MARCH_S, FEBRUARY_S]
    assert [pool_at(terms, moment) for moment in moments] == [f"17.f7.{start}" for start in starts]


def test_the_open_period_pays_for_what_happened_before_it() -> None:
    assert pool_at(subscribed(), FEBRUARY_S - 86_400 * 30) == f"17.f7.{FEBRUARY_S}"


def test_a_remembered_tariff_does_not_outlive_a_scheduled_cancellation() -> None:
    terms = subscribed(ends_at_s=FEBRUARY_S + 100)
    assert pool_at(terms, FEBRUARY_S + 99) == f"17.f7.{FEBRUARY_S}"
    with pytest.raises(errors.NotFound, match="no active subscription"):
        pool_at(terms, FEBRUARY_S + 100)


def test_a_remembered_tariff_does_not_reach_past_the_known_periods() -> None:
    terms = subscribed()
    pool_at(terms, APRIL_S - 1)
    with pytest.raises(price_event.PeriodUnknown):
        pool_at(terms, APRIL_S)


def test_terms_that_are_loaded_again_remember_no_tariff_of_the_terms_before() -> None:
    terms = subscribed()
    pool_at(terms, FEBRUARY_S)
    assert terms.tariffs
    assert dataclasses.replace(terms, customer_version=7).tariffs == {}


@pytest.mark.parametrize(
    ("model", "pool", "opening", "blocks", "spare_pool"),
    [
        (ConsumptionModel.METERED, f"17.f7.{FEBRUARY_S}", 5 * 10**9, True, ""),
        (ConsumptionModel.CREDITS, f"17.c.{FEBRUARY_S}", 22, True, "credits"),
        (ConsumptionModel.BALANCE, f"17.b.{FEBRUARY_S}", 11, True, ""),
    ],
)
def test_the_plan_decides_which_pool_pays(
    model: ConsumptionModel, pool: str, opening: int, spare_pool: str, *, blocks: bool
) -> None:
    terms = subscribed(model)
    assert terms.subscription is not None
    tariff = tariffs.of(terms, terms.subscription, terms.subscription.periods[0], IMAGES)
    assert (tariff.pool, tariff.opening, tariff.blocks, tariff.spare_pool) == (pool, opening, blocks, spare_pool)


@pytest.mark.parametrize(("own_bps", "margin_bps"), [(None, 2000), (0, 0), (500, 500)])
def test_a_customers_own_margin_goes_before_the_plans(own_bps: int | None, margin_bps: int) -> None:
    terms = dataclasses.replace(subscribed(ConsumptionModel.BALANCE), ai_margin_bps=own_bps)
    assert terms.subscription is not None
    assert tariffs.of(terms, terms.subscription, terms.subscription.periods[0], IMAGES).margin_bps == margin_bps
