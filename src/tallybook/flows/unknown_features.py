"""Why a feature can't be used: the customer's plan lacks it, or nobody has it. Terms name only what the plan has; the catalog decides."""

from collections.abc import Collection
from typing import Final

from tallybook.catalog import store as catalog
from tallybook.core import errors
from tallybook.core.tenant import Tenant
from tallybook.flows.services import Services
from tallybook.storage import postgres

_NOT_IN_PLAN: Final = "feature_not_in_plan"
_ACQUIRE_S: Final = 2.0
_SHOWN_MAX: Final = 128


async def unknown(services: Services, tenant: Tenant, codes: Collection[str]) -> frozenset[str]:
    """Which of these codes are no feature of the organization; none of them when the database does not answer."""
    try:
        async with services.database.acquire(timeout=_ACQUIRE_S) as connection:
            known = await catalog.known_codes(connection, tenant, codes)
    except postgres.TRANSIENT_ERRORS:
        return frozenset()
    return frozenset(codes) - known


async def told_apart(services: Services, tenant: Tenant, refusal: errors.TallybookError, code: str) -> errors.TallybookError:
    """The refusal of one use of a feature: NotFound `feature_not_found` in place of `feature_not_in_plan` when nobody has it."""
    if refusal.code == _NOT_IN_PLAN and await unknown(services, tenant, [code]):
        return not_found(code)
    return refusal


def not_found(code: str, field: str = "featureCode") -> errors.NotFound:
    """No feature of the organization has this code."""
    return errors.NotFound("feature_not_found", f"There is no feature {code[:_SHOWN_MAX]!r} here.", param=field)
