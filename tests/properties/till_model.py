"""What the till must do, in plain Python: dictionaries, integers without end, one charge at a time. No Redis, no text, no Lua."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tallybook.charge.commands import IDEMPOTENCY_BYTES, Charge, Outcome, Receipt
from tallybook.charge.till import PoolState
from tallybook.core.usage_log import Kind, Record

POOL_BOUND = 4e18
_KEY = slice(-IDEMPOTENCY_BYTES, None)


@dataclass(slots=True)
class Pool:
    """What is left, and what its terms granted; None: only ever paid for another pool, never opened itself."""

    left: int = 0
    opening: int | None = None


@dataclass(slots=True)
class Customer:
    """One customer's part of the till."""

    version: int = 0
    frozen: str | None = None
    pools: dict[str, Pool] = field(default_factory=dict[str, Pool])


@dataclass(frozen=True, slots=True)
class Remembered:
    """An identity: in which generation it was taken, with which payload, and what was answered."""

    generation: int
    fingerprint: bytes
    answer: Receipt


@dataclass(frozen=True, slots=True)
class Logged:
    """A record in the log, and what it met; `left` and `spare_left` 0 where the till remembers nothing."""

    record: Record
    found: int
    left: int
    spare_left: int


@dataclass(slots=True)
class Entry:
    """What one call did in one partition. An opening is tenant, customer, pool and the change of what was granted."""

    seq: int
    accepted_at_ms: int
    applied: list[Logged] = field(default_factory=list[Logged])
    openings: list[tuple[int, int, str, int]] = field(default_factory=list[tuple[int, int, str, int]])


@dataclass(slots=True)
class Partition:
    """One partition: its log, its clock and what it remembers."""

    now_ms: int
    noted: int | None = None
    """The generation at the last entry."""
    log: list[Entry] = field(default_factory=list[Entry])
    tenant_versions: Counter[int] = field(default_factory=Counter[int])
    remembered: dict[tuple[int, bytes], Remembered] = field(default_factory=dict[tuple[int, bytes], Remembered])
    """By generation and digest; what the till no longer looks at stays until it is freed."""


@dataclass(slots=True)
class TillModel:
    """The till. Everything it knows can be copied with `copy.deepcopy`."""

    partitions: list[Partition]
    hot_window_s: int
    customers: dict[int, Customer] = field(default_factory=dict[int, Customer])

    def customer(self, customer_id: int) -> Customer:
        """A customer, known or not."""
        return self.customers.setdefault(customer_id, Customer())

    def charge(self, charges: Sequence[Charge]) -> list[Receipt]:
        """One call of the script."""
        entries: dict[int, Entry] = {}
        receipts: list[Receipt] = []
        for charge in charges:
            partition = self.partitions[charge.partition]
            entry = entries.setdefault(charge.partition, Entry(len(partition.log) + 1, partition.now_ms))
            receipts.append(self._settle(partition, entry, charge))
        for number, entry in entries.items():
            if entry.applied or entry.openings:
                self._append(self.partitions[number], entry)
        return receipts

    def tick(self, number: int) -> int:
        """Mark a place in a partition's log. Returns its sequence."""
        partition = self.partitions[number]
        record = Record(Kind.TICK, 0, 0, b"", "", 0)
        self._append(partition, Entry(len(partition.log) + 1, partition.now_ms, [Logged(record, 0, 0, 0)]))
        return len(partition.log)

    def generation(self, partition: Partition) -> int:
        """The generation that identities are remembered in now."""
        return partition.now_ms // 1000 // self.hot_window_s

    def forget(self) -> None:
        """Free what no call looks at any more."""
        for partition in self.partitions:
            if partition.noted is not None:
                oldest = partition.noted - 1
                partition.remembered = {place: one for place, one in partition.remembered.items() if place[0] >= oldest}

    def pools(self, customer_id: int) -> dict[str, PoolState]:
        """What a look at the till must show."""
        return {name: PoolState(pool.opening or 0, pool.left) for name, pool in self.customer(customer_id).pools.items()}

    def _append(self, partition: Partition, entry: Entry) -> None:
        partition.log.append(entry)
        partition.noted = self.generation(partition)

    def _settle(self, partition: Partition, entry: Entry, charge: Charge) -> Receipt:
        customer = self.customer(charge.record.customer_id)
        if charge.record.kind == Kind.EXPIRY:
            return _expire(customer, entry, charge)
        if _is_stale(partition, customer, charge):
            return Receipt(Outcome.STALE, charge.amount)
        now = self.generation(partition)
        for generation in (now, now - 1):
            if (seen := partition.remembered.get((generation, charge.record.digest))) is not None:
                return _repeat(seen, charge)
        if customer.frozen is not None:
            return Receipt(Outcome.FROZEN, charge.amount, reason=customer.frozen)
        _open(customer, entry, charge)
        outcome, found = _apply(customer, charge)
        pool, spare = customer.pools[charge.record.pool], customer.pools.get(charge.spare_pool, Pool())
        receipt = Receipt(outcome, charge.amount, pool.left, spare.left, found, partition.now_ms)
        if outcome is Outcome.ACCEPTED:
            entry.applied.append(Logged(charge.record, found, pool.left, spare.left))
            partition.remembered[now, charge.record.digest] = Remembered(now, charge.record.fingerprint, receipt)
        return receipt


def _is_stale(partition: Partition, customer: Customer, charge: Charge) -> bool:
    tenant_id = charge.record.tenant_id
    if charge.tenant_version < partition.tenant_versions[tenant_id] or charge.customer_version < customer.version:
        return True
    partition.tenant_versions[tenant_id] = charge.tenant_version
    customer.version = charge.customer_version
    return False


def _repeat(seen: Remembered, charge: Charge) -> Receipt:
    then, now = seen.fingerprint, charge.record.fingerprint
    outcome = Outcome.DUPLICATE if then[:-IDEMPOTENCY_BYTES] == now[:-IDEMPOTENCY_BYTES] else Outcome.CONFLICT
    same_request = then[_KEY] == now[_KEY] != bytes(IDEMPOTENCY_BYTES)
    answer = seen.answer
    return Receipt(
        outcome, answer.amount, answer.left, answer.spare_left, answer.found, answer.accepted_at_ms, same_request=same_request
    )


def _expire(customer: Customer, entry: Entry, charge: Charge) -> Receipt:
    pool = customer.pools.get(charge.record.pool)
    if pool is None or pool.opening is None:
        return Receipt(Outcome.ACCEPTED, charge.amount)
    del customer.pools[charge.record.pool]
    entry.applied.append(Logged(charge.record, pool.left, 0, 0))
    return Receipt(Outcome.ACCEPTED, charge.amount, 0, 0, pool.left, entry.accepted_at_ms)


def _open(customer: Customer, entry: Entry, charge: Charge) -> None:
    record = charge.record
    pool = customer.pools.setdefault(record.pool, Pool())
    if pool.opening == charge.opening:
        return
    change = charge.opening - (pool.opening or 0)
    entry.openings.append((record.tenant_id, record.customer_id, record.pool, change))
    pool.left += change
    pool.opening = charge.opening


def _apply(customer: Customer, charge: Charge) -> tuple[Outcome, int]:
    """Change the pools, or nothing. Returns what came of it and what it met."""
    pool = customer.pools[charge.record.pool]
    spare = customer.pools.setdefault(charge.spare_pool, Pool()) if charge.spare_pool else None
    match charge.record.kind:
        case Kind.USAGE:
            return _use(pool, spare, charge)
        case Kind.VOID:
            return _void(pool, spare, charge)
        case Kind.SET:
            return _set(pool, charge)
        case _:
            return _adjust(pool, charge) if spare is None else _take_away(pool, spare, charge.amount)


def _use(pool: Pool, spare: Pool | None, charge: Charge) -> tuple[Outcome, int]:
    after = pool.left + charge.amount
    if _is_below(after):
        return Outcome.LIMIT, 0
    if after >= 0 or not charge.blocks or charge.amount == 0:
        pool.left = after
        return Outcome.ACCEPTED, 0
    covered = max(0, pool.left)
    shortage = -charge.amount - covered
    if spare is None or spare.left < shortage:
        return Outcome.REFUSED, 0
    spare.left -= shortage
    pool.left -= covered
    return Outcome.ACCEPTED, shortage


def _void(pool: Pool, spare: Pool | None, charge: Charge) -> tuple[Outcome, int]:
    after = pool.left + charge.amount
    spare_after = 0 if spare is None else spare.left + charge.for_spare
    if _is_above(after) or _is_above(spare_after):
        return Outcome.LIMIT, 0
    pool.left = after
    if spare is not None:
        spare.left = spare_after
    return Outcome.ACCEPTED, -charge.for_spare


def _set(pool: Pool, charge: Charge) -> tuple[Outcome, int]:
    if charge.blocks and charge.amount < 0:
        return Outcome.REFUSED, 0
    before, pool.left = pool.left, charge.amount
    return Outcome.ACCEPTED, before


def _adjust(pool: Pool, charge: Charge) -> tuple[Outcome, int]:
    after = pool.left + charge.amount
    if _is_above(after) or _is_below(after):
        return Outcome.LIMIT, 0
    if after < 0 and charge.blocks and charge.amount < 0:
        return Outcome.REFUSED, 0
    pool.left = after
    return Outcome.ACCEPTED, 0


def _take_away(pool: Pool, spare: Pool, amount: int) -> tuple[Outcome, int]:
    """First what was purchased, then the pool; neither is left below zero by it."""
    from_spare = min(max(0, spare.left), -amount)
    rest = -amount - from_spare
    if rest and pool.left < rest:
        return Outcome.REFUSED, 0
    spare.left -= from_spare
    pool.left -= rest
    return Outcome.ACCEPTED, -from_spare


def _is_above(left: int) -> bool:
    """Past the bound, as a double tells it: the bound is far from where integers end, so its own last digits do not matter."""
    return float(left) > POOL_BOUND


def _is_below(left: int) -> bool:
    return float(left) < -POOL_BOUND
