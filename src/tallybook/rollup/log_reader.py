"""Reading and trimming the till's log in Redis. Never writes anything else."""

from collections.abc import Iterable, Mapping, Sequence

from tallybook.core import partitions
from tallybook.rollup.model import RawEntry, UnknownLogError
from tallybook.storage import redis
from tallybook.storage.redis import Redis

FIELD = b"d"
ENTRIES_A_READ = 16
"""Per partition and round trip: with entries of 500 events, 16 partitions bring about 20 MB at most."""
BYTES_A_PASS = 8_000_000
"""A pass stops reading here: about 90,000 events. When much is waiting, larger passes add more events to each row of the totals."""


def key(partition: int) -> str:
    """The stream that is a partition's log."""
    return f"{partitions.prefix(partition)}:log"


async def read(client: Redis, after: Mapping[int, int], epoch: str | None = None) -> tuple[list[RawEntry], bool]:
    """Entries after the given sequences, in order per partition, about BYTES_A_PASS of them; and whether there may be more.

    With an epoch, only the log of the till that has it is read; raises UnknownLogError for another one or an older copy.
    """
    found: list[RawEntry] = []
    position, size = dict(after), 0
    while position and size < BYTES_A_PASS:
        order = sorted(position)
        metas = [("HMGET", f"{partitions.prefix(partition)}:m", "epoch", "seq") for partition in order]
        ranges = [_range(partition, position[partition]) for partition in order]
        replies = await client.pipeline(*metas, *ranges, atomic=False)
        if epoch is not None:
            _check_metas(order, replies, position, epoch)
        for partition, reply in zip(order, replies[len(order) :], strict=True):
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


async def trim(client: Redis, committed: Iterable[tuple[int, int]], epoch: str | None = None) -> None:
    """Let go of entries that the book holds: (partition, committed sequence). Redis may keep a few more, never fewer.

    With an epoch, a log that meanwhile belongs to another till is left alone.
    """
    commands: list[tuple[redis.Word, ...]] = []
    for partition, seq in committed:
        if epoch is None:
            commands.append(("XTRIM", key(partition), "MINID", "~", f"{seq + 1}-0"))
        else:
            meta = f"{partitions.prefix(partition)}:m"
            commands.append(("EVAL", _TRIM_OWN, 2, meta, key(partition), epoch, f"{seq + 1}-0"))
    if commands:
        await client.pipeline(*commands, atomic=False)


_TRIM_OWN = b"""
if redis.call('HGET', KEYS[1], 'epoch') == ARGV[1] then redis.call('XTRIM', KEYS[2], 'MINID', '~', ARGV[2]) end
"""


def _check_metas(order: Sequence[int], metas: Iterable[list[bytes | None]], after: Mapping[int, int], epoch: str) -> None:
    for partition, meta in zip(order, metas, strict=False):
        found, sequence = map(redis.text, meta)
        if found != epoch:
            raise UnknownLogError(f"partition {partition} of Redis holds epoch {found or 'none'}, expected {epoch}")
        if int(sequence or 0) < after[partition]:
            raise UnknownLogError(f"partition {partition} of Redis is at {sequence or 0}, and the book at {after[partition]}")


def _range(partition: int, after: int) -> tuple[str | int, ...]:
    return "XRANGE", key(partition), f"({after}-0", "+", "COUNT", ENTRIES_A_READ


def _entry(partition: int, item: tuple[bytes, list[bytes]]) -> RawEntry:
    """Any id and any fields are taken: what is no entry is for quarantine to say."""
    name, fields = item
    return RawEntry(partition, int(name.partition(b"-")[0]), redis.pairs(fields).get(FIELD, b""))
