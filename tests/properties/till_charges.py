"""Charges as the flows make them, from a few small choices that a shrinker can make smaller."""

from dataclasses import dataclass

import msgspec
from hypothesis import strategies

from tallybook.charge import commands
from tallybook.charge.commands import Charge
from tallybook.core import ids, partitions
from tallybook.core.pools import PURCHASED_CREDITS
from tallybook.core.usage_log import Kind, Record
from tests.properties.till_world import PARTITIONS, START_MS

TENANTS = {1: 1, 2: 1, 3: 1, 4: 2, 5: 2, 6: 2}
"""The tenant of each customer; every partition has several customers, and two tenants."""
EVENT_IDS = 25
_MOST = 10**18
"""The most that one event or adjustment can amount to."""
_EDGES = [0, 1, 10**14, 2**53 - 1, 2**53, 2**53 + 1, _MOST - 1, _MOST]
_OPENINGS = [0, 1, 1000, 10**14, 2**53 + 1, 4 * 10**18 - 1, 4 * 10**18]

customers = strategies.sampled_from(sorted(TENANTS))
amounts = strategies.one_of(strategies.integers(0, 1500), strategies.sampled_from(_EDGES))
openings = strategies.sampled_from(_OPENINGS)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a customer's usage is priced with at one time: a pool, what it is granted, and the versions of that."""

    tenant_version: int = 0
    customer_version: int = 0
    period: int = 1
    opening: int = 1000

    def pool(self, customer_id: int) -> str:
        """The pool of the current period."""
        return f"{customer_id}.c.{self.period}"


@dataclass(frozen=True, slots=True)
class Wish:
    """One event as a client sends it. `behind`: priced by a process that does not know the newest terms."""

    customer: int
    event: int
    amount: int
    request: int
    blocks: bool
    spare: bool
    behind: bool


wishes = strategies.builds(
    Wish,
    customer=customers,
    event=strategies.integers(1, EVENT_IDS),
    amount=amounts,
    request=strategies.integers(0, 2),
    blocks=strategies.booleans(),
    spare=strategies.booleans(),
    behind=strategies.booleans(),
)


def usage(wish: Wish, terms: Terms) -> Charge:
    """A usage event. The same id with another amount is another payload."""
    record = Record(
        Kind.USAGE,
        TENANTS[wish.customer],
        wish.customer,
        _digest(wish.customer, f"event {wish.event}"),
        terms.pool(wish.customer),
        wish.amount,
        f"event {wish.event}",
        feature_id=3,
        period_start_s=terms.period,
        occurred_at_ms=START_MS,
        quantity_nano=wish.amount,
        matched_by="exact",
        fingerprint=commands.fingerprint(str(wish.amount))[: commands.FINGERPRINT_BYTES] + bytes([0, 0, 0, wish.request]),
    )
    spare = PURCHASED_CREDITS if wish.spare and wish.blocks else ""
    return _charge(record, -wish.amount, terms, blocks=wish.blocks, spare_pool=spare)


def change(kind: Kind, customer: int, name: str, amount: int, terms: Terms) -> Charge:
    """An adjustment that may not go below zero, a set value, or the end of a pool."""
    record = _changing(kind, customer, name, amount, terms.pool(customer))
    return _charge(record, amount, terms, blocks=True)


def purchase(customer: int, name: str, amount: int, terms: Terms) -> Charge:
    """Credits that were bought: they have no period and nobody grants them."""
    record = _changing(Kind.ADJUSTMENT, customer, name, amount, PURCHASED_CREDITS)
    return msgspec.structs.replace(_charge(record, amount, terms), opening=0)


def taking_away(customer: int, name: str, amount: int, terms: Terms) -> Charge:
    """Credits that are taken away by hand, purchased ones first."""
    record = _changing(Kind.ADJUSTMENT, customer, name, -amount, terms.pool(customer))
    return _charge(record, -amount, terms, blocks=True, spare_pool=PURCHASED_CREDITS)


def void(used: Record, place: str, from_spare: int, terms: Terms) -> Charge:
    """A usage event taken back to where it came from, or to the pool that is open now."""
    record = msgspec.structs.replace(
        used,
        kind=Kind.VOID,
        digest=_digest(used.customer_id, f"void {place}"),
        pool=terms.pool(used.customer_id),
        amount=-used.amount,
        quantity_nano=-used.quantity_nano,
        fingerprint=commands.fingerprint("void"),
        voids=place,
    )
    spare = PURCHASED_CREDITS if from_spare else ""
    charge = _charge(record, used.amount - from_spare, terms, spare_pool=spare)
    return msgspec.structs.replace(charge, for_spare=from_spare)


def _changing(kind: Kind, customer: int, name: str, amount: int, pool: str) -> Record:
    digest, fingerprint = _digest(customer, name), commands.fingerprint(f"{kind} {amount}")
    return Record(kind, TENANTS[customer], customer, digest, pool, amount, occurred_at_ms=START_MS, fingerprint=fingerprint)


def _charge(record: Record, amount: int, terms: Terms, *, blocks: bool = False, spare_pool: str = "") -> Charge:
    return Charge(
        partition=partition_of(record.customer_id),
        record=record,
        amount=amount,
        opening=terms.opening,
        blocks=blocks,
        spare_pool=spare_pool,
        tenant_version=terms.tenant_version,
        customer_version=terms.customer_version,
    )


def partition_of(customer: int) -> int:
    """Where a customer is."""
    return partitions.of(TENANTS[customer], customer, PARTITIONS)


def _digest(customer: int, name: str) -> bytes:
    return ids.event_digest(TENANTS[customer], customer, name)
