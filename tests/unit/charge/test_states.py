"""What the till knows of customers, in text: every state comes out as it went in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallybook.charge import states
from tallybook.charge.states import Pool, State

_AMOUNTS = st.integers(-(2**62), 2**62)
_NAMES = st.sampled_from(["credits", "7.b.1763596800", "7.f3.1763596800", "17.b.1763596800", "17.c.1"])
_POOLS = st.dictionaries(_NAMES, st.builds(Pool, st.none() | _AMOUNTS, _AMOUNTS))
_REASONS = st.none() | st.text(min_size=1)


@given(st.builds(State, st.integers(0, 2**48 - 1), _POOLS, _REASONS))
def test_a_state_comes_out_as_it_went_in(state: State) -> None:
    assert states.read(states.write(state)) == state


@pytest.mark.parametrize("left", [0, 1, -1, 2**53 - 1, 1 - 2**53])
def test_what_is_left_in_the_first_pool_is_a_number_before_the_text(left: int) -> None:
    value = states.write(State(3, {"7.b.1": Pool(1000, left), "credits": Pool(None, 20)}))
    assert (int.from_bytes(value[:8], "big", signed=True), value[8:]) == (left, b"3;7.b.1=1000:;credits=:20;")
    assert value[8:].startswith(states.beginning(3, "7.b.1", 1000).encode())


@pytest.mark.parametrize("left", [2**53, -(2**53), 4 * 10**18])
def test_what_a_double_cannot_say_stands_in_the_text(left: int) -> None:
    assert states.write(State(3, {"7.b.1": Pool(1000, left)})) == bytes(8) + f"3;7.b.1=1000:{left};".encode()


def test_who_is_frozen_never_begins_like_one_who_is_not() -> None:
    text = states.write(State(3, {"7.b.1": Pool(1000, 5)}, "pool 7.b.1 differs;!"))[8:]
    assert not text.startswith(states.beginning(3, "7.b.1", 1000).encode())


def test_nothing_is_known_of_a_customer_without_a_field() -> None:
    assert states.read(None) == State(0, {}, None)


def test_fields_of_customers_and_tenants_are_told_apart_and_a_version_is_long_but_a_number() -> None:
    fields = [states.customer_field(17), states.tenant_field(17)]
    assert [states.is_customer(field.encode()) for field in fields] == [True, False]
    version = states.tenant_version(12)
    assert (int(version), len(version) > 64) == (12, True)
