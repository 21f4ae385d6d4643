"""A customer's own margin on AI usage: it comes before the margin that the plan has for the feature."""

from typing import Annotated

import msgspec

from tallybook.core import money
from tallybook.customers import actions, model, store
from tallybook.entrypoints.http.resources.ai_models import MARGIN_MAX
from tallybook.entrypoints.http.routing import Call, Operation

_BPS_PER_PERCENT = money.BPS // 100


class SetMargin(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """The margin in whole percent; null: the plans' margins again."""

    margin: Annotated[int, msgspec.Meta(ge=0, le=MARGIN_MAX)] | None


class CustomerMargin(msgspec.Struct, rename="camel", kw_only=True):
    """The margin in whole percent that the customer's AI usage carries whatever its plan says; null: what its plan says."""

    object: str = "customer_ai_margin"
    customer_id: str
    margin: int | None


async def get(call: Call) -> CustomerMargin:
    """The margin of a customer."""
    customer = await store.find(call.connection, call.tenant, call.path["id"])
    if customer is None:
        raise actions.not_found(call.path["id"])
    return _shown(customer)


async def put(call: Call) -> CustomerMargin:
    """Set or remove it; it holds from the next event on."""
    body: SetMargin = call.body
    margin_bps = None if body.margin is None else body.margin * _BPS_PER_PERCENT
    return _shown(await actions.set_ai_margin(call.connection, call.tenant, call.now, call.path["id"], margin_bps))


def _shown(customer: model.Customer) -> CustomerMargin:
    margin_bps = customer.ai_margin_bps
    return CustomerMargin(customer_id=customer.public_id, margin=None if margin_bps is None else margin_bps // _BPS_PER_PERCENT)


OPERATIONS = (
    Operation(
        method="GET",
        path="/customers/{id}/ai-margin",
        id="get-customer-ai-margin",
        summary="Show the margin that a customer's AI usage carries instead of its plan's.",
        permission="customer",
        handler=get,
        returns=CustomerMargin,
    ),
    Operation(
        method="PUT",
        path="/customers/{id}/ai-margin",
        id="set-customer-ai-margin",
        summary="Set the margin that a customer's AI usage carries instead of its plan's; null removes it.",
        permission="customer",
        handler=put,
        body=SetMargin,
        returns=CustomerMargin,
        example={"margin": 15},
    ),
)
