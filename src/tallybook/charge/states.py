"""What the till knows of a customer, in the text that it is kept in; the same rules as in `charge.lua`.

A partition has one hash of states. The field of a customer is its row id, its value eight bytes and then the version of its terms, its
pools, the one used last first, and what it is frozen for:

    ........3;17.b.1763596800=1000:;credits=:20;
    ........!3;17.b.1763596800=1000:;credits=:20;!why it is frozen

Of a pool it says what it was opened with (nothing when it only ever paid for another pool) and what is left; where the first pool
lacks this, the eight bytes are that number. The field of a tenant is `t` and its number, its value the version of its terms, followed by
spaces: one long value makes Redis look fields up by hash and not one after the other.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from tallybook.core import partitions

_FIRST_LEFT = struct.Struct(">q")
_EXACT = 2**53 - 1
"""What the script's numbers can say."""


class Pool(NamedTuple):
    """One pool: what it was opened with, None when no terms have opened it, and what is left. 1e-9 of the pool's unit."""

    opening: int | None
    left: int


@dataclass(frozen=True, slots=True)
class State:
    """A customer as one partition of the till knows it."""

    version: int = 0
    pools: Mapping[str, Pool] = field(default_factory=dict[str, Pool])
    frozen: str | None = None


def key(partition: int) -> str:
    """The hash of states of a partition."""
    return f"{partitions.prefix(partition)}:c"


def customer_field(customer_id: int) -> str:
    """Where a customer's state is."""
    return str(customer_id)


def tenant_field(tenant_id: int) -> str:
    """Where the version of a tenant's terms is."""
    return f"t{tenant_id}"


def is_customer(name: bytes) -> bool:
    """Whether a field is a customer's."""
    return name.isdigit()


def tenant_version(version: int) -> str:
    """The value of a tenant's field."""
    return f"{version:<65d}"


def beginning(version: int, pool: str, opening: int) -> str:
    """How the text of a customer begins who has these terms and whose first pool is this one, opened with so much."""
    return f"{version};{pool}={opening}:;"


def write(state: State) -> bytes:
    """The value of a customer's field."""
    first_left = next((pool.left for pool in state.pools.values()), 0)
    is_number = abs(first_left) <= _EXACT
    lefts = ["" if is_number and not place else str(pool.left) for place, pool in enumerate(state.pools.values())]
    openings = ["" if pool.opening is None else str(pool.opening) for pool in state.pools.values()]
    pools = (f"{name}={opening}:{left};" for name, opening, left in zip(state.pools, openings, lefts, strict=True))
    mark, reason = ("", "") if state.frozen is None else ("!", f"!{state.frozen}")
    return _FIRST_LEFT.pack(first_left if is_number else 0) + f"{mark}{state.version};{''.join(pools)}{reason}".encode()


def read(value: bytes | None) -> State:
    """A state from the value of its field; of a customer that the till knows nothing of when there is none."""
    if value is None:
        return State()
    text = value[_FIRST_LEFT.size :].decode()
    known, mark, reason = text.removeprefix("!").partition("!")
    version, *texts = known.split(";")[:-1]
    [first_left] = _FIRST_LEFT.unpack_from(value)
    return State(int(version), dict(_pool(text, first_left) for text in texts), reason if mark else None)


def _pool(text: str, first_left: int) -> tuple[str, Pool]:
    name, _, amounts = text.partition("=")
    opening, _, left = amounts.partition(":")
    return name, Pool(int(opening) if opening else None, int(left) if left else first_left)
