"""Names of pools. A pool is a number in the till that events take from; its name says whose it is, what it holds and for when.

`17.b.1763596800` balance of subscription 17 (nano-USD) for the period that starts at that Unix second, `17.c.…` its plan
credits (1e-9 credits), `17.f42.…` its included units of feature 42 (nano-units), `credits` the customer's purchased credits (1e-9
credits, no period). A pool may go below zero: for a balance that is the overdraft, for a feature the overage.
"""

from dataclasses import dataclass
from enum import StrEnum

PURCHASED_CREDITS = "credits"


class PoolKind(StrEnum):
    """What a pool holds."""

    BALANCE = "b"
    CREDITS = "c"
    FEATURE = "f"
    PURCHASED = "credits"


@dataclass(frozen=True, slots=True)
class PoolName:
    """A pool's name, taken apart. `subscription_id`, `feature_id` and `period_start_s` are 0 where they do not apply."""

    kind: PoolKind
    subscription_id: int
    feature_id: int
    period_start_s: int


def balance(subscription_id: int, period_start_s: int) -> str:
    """The balance of a subscription in one period."""
    return f"{subscription_id}.b.{period_start_s}"


def credits(subscription_id: int, period_start_s: int) -> str:  # noqa: A001 - the word of the field
    """The plan credits of a subscription in one period."""
    return f"{subscription_id}.c.{period_start_s}"


def feature(subscription_id: int, feature_id: int, period_start_s: int) -> str:
    """The included units of one metered feature in one period."""
    return f"{subscription_id}.f{feature_id}.{period_start_s}"


def parse(name: str) -> PoolName:
    """Take a name apart. Raises ValueError for anything the functions above did not make."""
    if name == PURCHASED_CREDITS:
        return PoolName(PoolKind.PURCHASED, 0, 0, 0)
    subscription, what, start = name.split(".")
    kind = PoolKind(what[0])
    return PoolName(kind, int(subscription), int(what[1:] or 0), int(start))
