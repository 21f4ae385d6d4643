"""Random histories of the till: what every rule does is done to the real one and to the model, and then both are compared whole."""

import copy
import dataclasses
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import ClassVar

import msgspec
from hypothesis import strategies
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tallybook.charge import commands
from tallybook.charge.commands import Charge
from tallybook.charge.till import PoolState
from tallybook.core import usage_log
from tallybook.core.pools import PURCHASED_CREDITS
from tallybook.core.usage_log import Kind
from tests.properties import till_charges
from tests.properties.till_charges import TENANTS, Terms, Wish, amounts, customers, openings, wishes
from tests.properties.till_model import Logged, Partition, TillModel
from tests.properties.till_world import HOT_WINDOW_S, PARTITIONS, PROCESSES, START_MS, Lost, Sight, World

_BATCH_MAX = 6
_KILLS_MAX = 1
"""A history: a restart takes a hundred times as long as any other step."""
_JUMPS_S = [1, HOT_WINDOW_S // 2, HOT_WINDOW_S, 3 * HOT_WINDOW_S]

_batches = strategies.lists(wishes, min_size=1, max_size=_BATCH_MAX)
_processes = strategies.integers(0, PROCESSES - 1)
_choices = strategies.integers(0, 1_000_000)


class TillMachine(RuleBasedStateMachine):
    """One history, on an emptied till. A subclass says in which world it takes place."""

    world: ClassVar[World]
    steps: ClassVar[int] = 0
    """Of all histories so far; each was followed by a comparison."""

    def __init__(self) -> None:
        super().__init__()
        self.model = TillModel([Partition(START_MS) for _ in range(PARTITIONS)], HOT_WINDOW_S)
        self.terms: dict[int, list[Terms]] = {customer: [Terms()] for customer in TENANTS}
        self.sent: list[Charge] = []
        self.expired: set[tuple[int, str]] = set()
        self.compared = [0] * PARTITIONS
        self.changes = 0
        self.kills = 0
        self.is_begun = False
        self.is_dusty = False

    @initialize()
    def begin(self) -> None:
        self.world.begin()

    @rule(process=_processes, batch=_batches)
    def ingest(self, process: int, batch: list[Wish]) -> None:
        self._charge(process, self._priced(batch))

    @precondition(lambda self: self.sent)
    @rule(process=_processes, chosen=strategies.lists(_choices, min_size=1, max_size=_BATCH_MAX), other=strategies.booleans())
    def send_again(self, process: int, chosen: list[int], other: bool) -> None:  # noqa: FBT001 - drawn
        """As it was, or with another payload under the same id; both priced with the terms of now."""
        again = [self._repriced(self.sent[choice % len(self.sent)]) for choice in chosen]
        self._charge(process, [_with_another_payload(charge) for charge in again] if other else again)

    @rule(process=_processes, batch=_batches, lost=strategies.sampled_from(["before", "after"]))
    def lose_a_call_or_its_answer_and_send_again(self, process: int, batch: list[Wish], lost: Lost) -> None:
        charges = self._priced(batch)
        assert self.world.charge(process, charges, lost) is None
        if lost == "after":
            self.model.charge(charges)
        self.compare()
        self._charge(process, charges)

    @rule(process=_processes, customer=customers, amount=amounts)
    def top_up(self, process: int, customer: int, amount: int) -> None:
        self._charge(process, [till_charges.change(Kind.ADJUSTMENT, customer, self._name(), amount, self._now(customer))])

    @rule(process=_processes, customer=customers, amount=amounts)
    def take_back(self, process: int, customer: int, amount: int) -> None:
        self._charge(process, [till_charges.change(Kind.ADJUSTMENT, customer, self._name(), -amount, self._now(customer))])

    @rule(process=_processes, customer=customers, amount=amounts)
    def purchase(self, process: int, customer: int, amount: int) -> None:
        self._charge(process, [till_charges.purchase(customer, self._name(), amount, self._now(customer))])

    @rule(process=_processes, customer=customers, amount=amounts.filter(bool))
    def take_away_by_hand(self, process: int, customer: int, amount: int) -> None:
        self._charge(process, [till_charges.taking_away(customer, self._name(), amount, self._now(customer))])

    @rule(process=_processes, customer=customers, left=amounts)
    def set_what_is_left(self, process: int, customer: int, left: int) -> None:
        self._charge(process, [till_charges.change(Kind.SET, customer, self._name(), left, self._now(customer))])

    @precondition(lambda self: any(self._used()))
    @rule(process=_processes, choice=_choices)
    def void(self, process: int, choice: int) -> None:
        """Perhaps one that was taken back before: then it is a repeat."""
        used = self._used()
        place, logged = used[choice % len(used)]
        terms = self._now(logged.record.customer_id)
        self._charge(process, [till_charges.void(logged.record, place, logged.found, terms)])

    @rule(process=_processes, customer=customers, opening=openings, is_told=strategies.booleans())
    def change_terms(self, process: int, customer: int, opening: int, is_told: bool) -> None:  # noqa: FBT001 - drawn
        """The till is told at once, or learns it from the next event that is priced with them."""
        now = self._now(customer)
        self.terms[customer].append(dataclasses.replace(now, customer_version=now.customer_version + 1, opening=opening))
        if is_told:
            self._tell(process, customer)

    @rule(process=_processes, tenant=strategies.sampled_from([1, 2]))
    def change_terms_of_all(self, process: int, tenant: int) -> None:
        mine = [customer for customer, its in TENANTS.items() if its == tenant]
        version = self._now(mine[0]).tenant_version + 1
        for customer in mine:
            self.terms[customer].append(dataclasses.replace(self._now(customer), tenant_version=version))
        self.world.do(process, "bump_terms", tenant, None, version)
        for partition in self.model.partitions:
            partition.tenant_versions[tenant] = max(partition.tenant_versions[tenant], version)

    @rule(process=_processes, customer=customers)
    def close_the_period(self, process: int, customer: int) -> None:
        """Terms that name the next pool are told first, a tick marks the place in the log, then the old pool goes."""
        old = self._now(customer)
        self.terms[customer].append(dataclasses.replace(old, customer_version=old.customer_version + 1, period=old.period + 1))
        self._tell(process, customer)
        charge = till_charges.change(Kind.EXPIRY, customer, self._name(), 0, old)
        assert self.world.do(process, "tick", charge.partition) == self.model.tick(charge.partition)
        if old.pool(customer) in self.model.customer(customer).pools:
            self.expired.add((customer, old.pool(customer)))
        for _ in range(2):
            self._charge(process, [charge])

    @rule(process=_processes, customer=customers)
    def freeze(self, process: int, customer: int) -> None:
        self.world.do(process, "freeze", TENANTS[customer], customer, "does not reconcile")
        self.model.customer(customer).frozen = "does not reconcile"

    @precondition(lambda self: any(customer.frozen for customer in self.model.customers.values()))
    @rule(process=_processes)
    def thaw_all(self, process: int) -> None:
        for customer_id, customer in self.model.customers.items():
            self.world.do(process, "thaw", TENANTS[customer_id], customer_id)
            customer.frozen = None

    @rule(seconds=strategies.sampled_from(_JUMPS_S))
    def let_time_pass(self, seconds: int) -> None:
        for partition in self.model.partitions:
            partition.now_ms += seconds * 1000
        self.is_dusty = seconds > HOT_WINDOW_S
        self.world.set_time(self.model.partitions[0].now_ms)

    @precondition(lambda self: self.is_dusty)
    @rule(process=_processes)
    def forget(self, process: int) -> None:
        self.is_dusty = False
        self.world.do(process, "forget")
        self.model.forget()

    @precondition(lambda self: self.kills < _KILLS_MAX)
    @rule(process=_processes, batch=_batches, turns=strategies.integers(0, 8))
    def kill_redis_in_a_call(self, process: int, batch: list[Wish], turns: int) -> None:
        """Without an answer either all of the call happened or nothing; with one, all of it."""
        self.kills += 1
        charges = self._priced(batch)
        receipts = self.world.charge_and_kill(process, charges, turns)
        with_it = copy.deepcopy(self.model)
        assert receipts in (with_it.charge(charges), None)
        if receipts is not None or self.world.look().of_something() != expected(self.model):
            self.model = with_it
        self.compare()
        self._charge(process, charges)

    @rule()
    def roll_up(self) -> None:
        """The book gets all that the log holds, and says of every pool what the till says."""
        offsets = self.world.roll_up(self.model.partitions[0].now_ms)
        assert offsets == [len(partition.log) for partition in self.model.partitions]
        booked = self.world.booked_pools()
        left = {(customer, name): pool.left for customer in TENANTS for name, pool in self.model.customer(customer).pools.items()}
        assert {key: pool.left for key, pool in booked.items() if pool.left} == {
            key: units for key, units in left.items() if units
        }
        assert all(booked[key].closed for key in self.expired - left.keys())
        kinds = (Kind.USAGE, Kind.VOID)
        applied = [one.record for partition in self.model.partitions for entry in partition.log for one in entry.applied]
        assert self.world.booked_events() == Counter(record.digest for record in applied if record.kind in kinds)

    @invariant()
    def after_each_step(self) -> None:
        type(self).steps += self.is_begun
        self.is_begun = True
        self.compare()

    def compare(self) -> None:
        """Everything that can be seen of the till is as the model has it."""
        assert self.world.look().of_something() == expected(self.model)
        self._compare_logs()

    def teardown(self) -> None:
        """After a history that went well: every repeat is answered as the first was, and till, log and book reconcile."""
        if sys.exc_info()[0] is not None or not self.sent:
            return
        self.thaw_all(0)
        self._charge(0, [self._repriced(charge) for charge in self.sent if charge.record.kind == Kind.USAGE])
        self.compare()
        for customer_id, view in self.world.read(TENANTS).items():
            assert view.sequence == len(self.model.partitions[till_charges.partition_of(customer_id)].log)
            assert _of_something(view.pools) == _of_something(self.model.pools(customer_id))
        self.roll_up()
        assert self.world.reconciles() == ""

    def _charge(self, process: int, charges: Sequence[Charge]) -> None:
        self.sent += charges
        assert self.world.charge(process, charges) == self.model.charge(charges)

    def _now(self, customer: int) -> Terms:
        return self.terms[customer][-1]

    def _priced(self, batch: Sequence[Wish]) -> list[Charge]:
        return [till_charges.usage(wish, self.terms[wish.customer][-2:][0 if wish.behind else -1]) for wish in batch]

    def _repriced(self, charge: Charge) -> Charge:
        """As a process sends it again that knows the terms of now, which name another pool once a period has ended.

        The end of a pool is not priced.
        """
        record = charge.record
        if record.kind == Kind.EXPIRY:
            return charge
        now = self._now(record.customer_id)
        if record.pool != PURCHASED_CREDITS:
            record = msgspec.structs.replace(record, pool=now.pool(record.customer_id))
            charge = msgspec.structs.replace(charge, record=record, opening=now.opening)
        return msgspec.structs.replace(charge, tenant_version=now.tenant_version, customer_version=now.customer_version)

    def _tell(self, process: int, customer_id: int) -> None:
        version = self._now(customer_id).customer_version
        self.world.do(process, "bump_terms", TENANTS[customer_id], customer_id, version)
        customer = self.model.customer(customer_id)
        customer.version = max(customer.version, version)

    def _name(self) -> str:
        self.changes += 1
        return f"change {self.changes}"

    def _used(self) -> list[tuple[str, Logged]]:
        """Usage in the log, with its places."""
        return [
            (usage_log.place(entry.seq, position), logged)
            for partition in self.model.partitions
            for entry in partition.log
            for position, logged in enumerate(entry.applied)
            if logged.record.kind == Kind.USAGE
        ]

    def _compare_logs(self) -> None:
        """What was added to each log since the last time."""
        for number, partition in enumerate(self.model.partitions):
            after, until = self.compared[number], len(partition.log)
            if after == until:
                continue
            found, entries = self.world.log_after(number, after, until), partition.log[after:]
            assert not found.quarantined
            logged = [(entry.seq, entry.accepted_at_ms, one) for entry in entries for one in entry.applied]
            read = zip(found.seqs, found.accepted_ms, found.records, found.outcomes, found.lefts, found.spare_lefts, strict=True)
            assert [
                (seq, accepted_ms, Logged(record, int(outcome or 0), int(left or 0), int(spare_left or 0)))
                for seq, accepted_ms, record, outcome, left, spare_left in read
            ] == logged
            opened = [(entry.seq, entry.accepted_at_ms, *opening) for entry in entries for opening in entry.openings]
            assert found.openings == opened
            self.compared[number] = until


def expected(model: TillModel) -> Sight:
    """What is to be seen of a till that is as the model."""
    sight = Sight()
    for number, partition in enumerate(model.partitions):
        sight.sequences[number] = len(partition.log)
        sight.tenant_versions |= {(number, tenant): version for tenant, version in partition.tenant_versions.items()}
        sight.remembered.update((number, one.generation) for one in partition.remembered.values())
    for customer_id, customer in model.customers.items():
        sight.versions[customer_id] = customer.version
        sight.frozen[customer_id] = customer.frozen or ""
        sight.pools |= {(customer_id, name): state for name, state in model.pools(customer_id).items()}
    return sight.of_something()


def _of_something(pools: Mapping[str, PoolState]) -> dict[str, PoolState]:
    return {name: state for name, state in pools.items() if state != PoolState(0, 0)}


def _with_another_payload(charge: Charge) -> Charge:
    fingerprint = b"another!" + charge.record.fingerprint[commands.FINGERPRINT_BYTES :]
    return msgspec.structs.replace(charge, record=msgspec.structs.replace(charge.record, fingerprint=fingerprint))
