"""Reading and trimming the till's log in Redis. Never writes anything else."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True, slots=True)
class Reading:
    """What a log holds: entries in order per partition, whether there may be more, and partitions that could not be read, with why."""

    entries: list[RawEntry]
    more: bool
    left_out: Mapping[int, redis.RedisError]


async def read(client: Redis, after: Mapping[int, int], epoch: str | None = None) -> Reading:
    """Entries after the given sequences, about BYTES_A_PASS of them. Raises RedisError when no partition can be read.

    With an epoch, only the log of the till that has it is read; raises UnknownLogError for another one or an older copy.
    """
    found: list[RawEntry] = []
    left_out: dict[int, redis.RedisError] = {}
    position, size = dict(after), 0
    while position and size < BYTES_A_PASS:
        replies = await _read_on(client, position)
        failed = {one: reply for one, (meta, entries) in replies.items() if (reply := _error_of(meta, entries)) is not None}
        left_out |= failed
        if len(left_out) == len(after):
            raise next(iter(left_out.values()))
        for partition in failed:
            del position[partition], replies[partition]
        if epoch is not None:
            _check_metas({partition: meta for partition, (meta, _) in replies.items()}, position, epoch)
        for partition, (_, reply) in replies.items():
            entries = [_entry(partition, item) for item in reply]
            found += entries
            size += sum(len(entry.data) for entry in entries)
            if len(entries) < ENTRIES_A_READ:
                del position[partition]
            else:
                position[partition] = entries[-1].seq
    return Reading(found, bool(position), left_out)


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


async def _read_on(client: Redis, after: Mapping[int, int]) -> dict[int, tuple[Any, Any]]:
    """By partition: epoch and sequence, and the next entries; an error in the place of either that can't be read."""
    order = sorted(after)
    metas = [("HMGET", f"{partitions.prefix(partition)}:m", "epoch", "seq") for partition in order]
    replies = await client.replies([*metas, *(_range(partition, after[partition]) for partition in order)])
    return dict(zip(order, zip(replies[: len(order)], replies[len(order) :], strict=True), strict=True))


def _error_of(*replies: object) -> redis.RedisError | None:
    return next((reply for reply in replies if isinstance(reply, redis.RedisError)), None)


def _check_metas(metas: Mapping[int, list[bytes | None]], after: Mapping[int, int], epoch: str) -> None:
    for partition, meta in metas.items():
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
