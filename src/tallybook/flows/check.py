"""May a customer use something, and what would it cost? The same decision as for a real event, without recording anything."""

from dataclasses import dataclass

from tallybook.core import clock
from tallybook.core.tenant import Tenant
from tallybook.flows import access, price_event
from tallybook.flows.access import Standing
from tallybook.flows.price_event import Take
from tallybook.flows.services import Services
from tallybook.receive.model import Check
from tallybook.subscriptions import tariffs
from tallybook.subscriptions.terms import Tariff


@dataclass(frozen=True, slots=True)
class Answer:
    """Where the customer stands, what the usage would take, and whether the till would take it."""

    standing: Standing
    tariff: Tariff
    take: Take
    allowed: bool


async def check(services: Services, tenant: Tenant, wanted: Check) -> Answer:
    """Weigh a proposed usage. Raises as `price_event.price` and `access.usable_feature` do; an exhausted pool is an answer."""
    standing = await access.standing(services, tenant, wanted.customer_id)
    feature = await access.usable_feature(services, standing, wanted.feature_code)
    tariff = tariffs.of(standing.terms, standing.subscription, standing.period, feature)
    take = price_event.take_from_pool(wanted, tariff, services.book, clock.to_ms(standing.now))
    left = standing.left(tariff.pool, tariff.opening)
    if tariff.spare_pool:
        left = max(left, 0) + standing.purchased_credits_left()
    allowed = not standing.view.frozen and (not tariff.blocks or take.amount == 0 or left >= take.amount)
    return Answer(standing, tariff, take, allowed)
