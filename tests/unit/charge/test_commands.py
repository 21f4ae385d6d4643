"""What goes to the script: which form records take, and that both forms say the same of them."""

import msgspec
import pytest

from tallybook.charge import commands
from tallybook.charge.commands import Charge
from tallybook.core import usage_log
from tallybook.core.usage_log import Kind, Record
from tests.support import log_builder as log

_HEAD = 5
"""Bytes before the amounts: the form, and how many charges."""


def charges(count: int, *, customers: int = 1) -> list[Charge]:
    records = [log.usage(f"e{number}", number, customer_id=number % customers + 1) for number in range(count)]
    return [Charge(0, record, -record.amount, 1000) for record in records]


def logged(asked: list[Charge]) -> list[Record]:
    """The records as the log says them after the script has accepted all."""
    words, body = commands.pack(asked)
    data = msgspec.msgpack.encode((words[0], log.ACCEPTED_MS, (), bytes(8 * len(asked)), (), (), msgspec.Raw(body)))
    return [applied.record for applied in usage_log.decode_entry(data).applied]


@pytest.mark.parametrize("count", [1, 2, commands.ROWS_MAX, commands.ROWS_MAX + 1, 100])
def test_records_come_out_of_the_log_as_they_went_in_however_many_they_are(count: int) -> None:
    asked = charges(count, customers=3)
    assert logged(asked) == [charge.record for charge in asked]


def test_few_records_go_as_rows_and_many_by_columns() -> None:
    few, many = (commands.pack(charges(count))[0] for count in (commands.ROWS_MAX, commands.ROWS_MAX + 1))
    assert (few[0], many[0]) == (usage_log.ROWS, usage_log.PACKED)


def test_columns_are_much_shorter_than_rows_where_records_are_many() -> None:
    rows, columns = (len(commands.pack(charges(count))[1]) / count for count in (commands.ROWS_MAX, 100))
    assert columns < rows / 2


@pytest.mark.parametrize("unnamed", [set[int](), {0}, {7, 99}])
def test_the_log_repeats_identities_only_where_one_of_them_does_not_follow_from_its_event_id(unnamed: set[int]) -> None:
    """Its record has another identity than its event id would make: then none may be left out."""
    asked = [msgspec.structs.replace(charge, is_named=place not in unnamed) for place, charge in enumerate(charges(100))]
    asked = [
        charge
        if charge.is_named
        else msgspec.structs.replace(charge, record=msgspec.structs.replace(charge.record, digest=b"?" * 16))
        for charge in asked
    ]
    assert logged(asked) == [charge.record for charge in asked]
    shorter = len(commands.pack(charges(100))[1]) - len(commands.pack(asked)[1])
    assert shorter == (0 if unnamed else 16 * 100)


def test_charges_that_differ_in_the_amount_alone_share_a_run_only_when_they_stand_together() -> None:
    same = charges(4)
    apart = charges(4, customers=2)
    assert len(commands.pack(same)[0]) + 2 * len(_run_of(same[0])) < len(commands.pack(apart)[0])


def _run_of(charge: Charge) -> bytes:
    """What one charge says beside its amount and its identity."""
    words, _body = commands.pack([charge])
    identities = 3 * 5 + 16 + 8
    return words[_HEAD + 8 + identities :]


def test_a_tick_goes_beside_usage_though_it_has_no_identity() -> None:
    asked = [*charges(1), Charge(0, Record(Kind.TICK, 0, 0, b"", "", 0), 0)]
    assert logged(asked) == [charge.record for charge in asked]


def test_an_amount_beyond_the_scripts_numbers_costs_its_own_run_a_text_and_no_other() -> None:
    """Fails when one such amount makes all runs of the call say theirs in text."""
    asked = charges(6, customers=2)
    large = [*asked[:-1], msgspec.structs.replace(asked[-1], amount=-(2**53))]
    assert len(commands.pack(large)[0]) - len(commands.pack(asked)[0]) == 1 + len(str(-(2**53)))


def test_amounts_up_to_what_the_scripts_numbers_say_go_without_text() -> None:
    asked = charges(2)
    large = [msgspec.structs.replace(charge, amount=amount) for charge, amount in zip(asked, (2**53 - 1, 1 - 2**53), strict=True)]
    assert len(commands.pack(large)[0]) == len(commands.pack(asked)[0])
