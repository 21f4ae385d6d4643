"""Reading and trimming the till's log in Redis. Never writes anything else."""

from collections.abc import Iterable, Mapping

from tallybook.core import partitions
from tallybook.rollup.model import RawEntry
from tallybook.storage import redis
from tallybook.storage.redis import Redis

FIELD = b"d"
ENTRIES_A_READ = 16
"""Per partition and round trip: with entries of 500 events, 16 partitions bring about 20 MB at most."""
BYTES_A_PASS = 4_000_000
"""A pass stops reading here: about 20,000 to 40,000 events."""


def key(partition: int) -> str:
    """The stream that is a partition's log."""
    return f"{partitions.prefix(partition)}:log"


async def read(client: Redis, after: Mapping[int, int]) -> tuple[list[RawEntry], bool]:
    """Entries after the given sequences, in order per partition, about BYTES_A_PASS of them; and whether there may be more."""
    found: list[RawEntry] = []
    position, size = dict(after), 0
    while position and size < BYTES_A_PASS:
        order = sorted(position)
        replies = await client.pipeline(*[_range(partition, position[partition]) for partition in order], atomic=False)
        for partition, reply in zip(order, replies, strict=True):
            entries = [_entry(partition, item) for item in reply]
            found += entries
            size += sum(len(entry.data) for entry in entries)
            if len(entries) < ENTRIES_A_READ:
                del position[partition]
            else:
                position[partition] = entries[-1].seq
    return found, bool(position)


async def read_between(client: Redis, partition: int, after: int, until: int) -> list[RawEntry]:
    """The entries `after` < sequence ≤ `until` that the log still holds."""
    found: list[RawEntry] = []
    while after < until:
        reply = await client.execute_command("XRANGE", key(partition), f"({after}-0", f"{until}-0", "COUNT", ENTRIES_A_READ)
        found += [_entry(partition, item) for item in reply]
        if len(reply) < ENTRIES_A_READ:
            break
        after = found[-1].seq
    return found


async def trim(client: Redis, committed: Iterable[tuple[int, int]]) -> None:
    """Let go of entries that the book holds: (partition, committed sequence). Redis may keep a few more, never fewer."""
    commands = [("XTRIM", key(partition), "MINID", "~", f"{seq + 1}-0") for partition, seq in committed]
    if commands:
        await client.pipeline(*commands, atomic=False)


def _range(partition: int, after: int) -> tuple[str | int, ...]:
    return "XRANGE", key(partition), f"({after}-0", "+", "COUNT", ENTRIES_A_READ


def _entry(partition: int, item: tuple[bytes, list[bytes]]) -> RawEntry:
    """Any id and any fields are taken: what is no entry is for quarantine to say."""
    name, fields = item
    return RawEntry(partition, int(name.partition(b"-")[0]), redis.pairs(fields).get(FIELD, b""))
