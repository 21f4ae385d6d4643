"""The identities that the till remembers against those that the book knows: an id that the till forgot could be counted twice.

The till is read first, at some sequence of its log; then the book is asked for what stands up to that sequence, and the log for what
the book has not read. So traffic changes nothing. Counted by bucket; of buckets that differ, and of some others, the identities are
compared one by one.
"""

import math
import random
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec

from tallybook.charge import identities
from tallybook.core import clock, ids, partitions, usage_log
from tallybook.core.usage_log import Kind
from tallybook.rollup import identity_sums, log_reader, store, sums
from tallybook.rollup.identity_sums import Known
from tallybook.rollup.sums import Sum
from tallybook.storage import postgres, redis
from tallybook.storage.postgres import Pool
from tallybook.storage.redis import Redis

_WHAT = "identities of the till = those of events in its memory"
_LOOKED_INTO_MAX = 20_000
"""About how many identities are compared one by one, besides those of buckets whose counts differ."""
_UNREMEMBERED = frozenset({Kind.TICK, Kind.EXPIRY})
_COUNT = b"""
local buckets, generation_s = tonumber(ARGV[1]), tonumber(ARGV[2])
local meta = redis.call('HMGET', KEYS[1] .. ':m', 'generation', 'now_ms', 'seq')
local generation = math.max(tonumber(meta[1] or '0'), math.floor(tonumber(redis.call('TIME')[1]) / generation_s))
local found = {}
for age = 0, 1 do
    local prefix = KEYS[1] .. ':d:' .. string.format('%.0f', generation - age) .. ':'
    for bucket = 0, buckets - 1 do
        local held = redis.call('HLEN', prefix .. string.char(math.floor(bucket / 64), 48 + bucket % 64))
        if held > 0 then
            found[#found + 1] = age * buckets + bucket
            found[#found + 1] = held
        end
    end
end
return {meta[1] or '0', meta[2] or '0', meta[3] or '0', generation, found}
"""

_Bucket = tuple[int, int, int]
"""partition, generation, bucket."""


@dataclass(frozen=True, slots=True)
class _Memory:
    """What one partition of the till held at a sequence, as far as it would look for it now.

    `noted` is the generation of its last entry; after a silence `generation` is a later one, and what is older may be gone from the book.
    """

    partition: int
    noted: int
    generation: int
    now_ms: int
    sequence: int
    counts: Mapping[_Bucket, int]


async def compare(database: Pool, client: Redis, count: int, hot_window_s: int) -> Sum:
    """Count what the till remembers and what it should; name identities that one of the two lacks, or remembers otherwise.

    Raises what the stores raise. A partition whose generations are not those of this hot window (it was changed) is left out, and so
    is one whose log lacks entries that the book has not read: another sum tells of that.
    """
    memories = [
        memory
        for memory in [await _memory(client, partition, hot_window_s) for partition in range(count)]
        if _is_of(memory, hot_window_s)
    ]
    if not memories:
        return Sum(_WHAT, 0, 0)
    known, upto = await _known(database, client, memories, hot_window_s)
    held: Counter[_Bucket] = Counter()
    for memory in memories:
        if memory.partition in upto:
            held.update(memory.counts)
    wrong = {bucket for bucket in held.keys() | known.keys() if held[bucket] != known[bucket]}
    places = [
        f"partition {bucket[0]} generation {bucket[1]} bucket {bucket[2]:04x}: {held[bucket]} remembered, {known[bucket]} in book and log"
        for bucket in sorted(wrong)[: sums.PLACES_MAX // 2]
    ]
    for partition, sequence in upto.items():
        looked_into = _some_of(partition, wrong, known)
        if looked_into:
            places += await _look_into(database, client, looked_into, sequence, hot_window_s)
    return Sum(_WHAT, held.total(), known.total(), max(len(wrong), len(places)), places[: sums.PLACES_MAX])


def _some_of(partition: int, wrong: Collection[_Bucket], known: Counter[_Bucket]) -> list[_Bucket]:
    """The buckets of a partition that are looked into: the first that differ, and others by chance, all of them where they are few."""
    first = sorted(bucket for bucket in wrong if bucket[0] == partition)[: sums.PLACES_MAX]
    others = [bucket for bucket in known if bucket[0] == partition and bucket not in wrong]
    share = min(1.0, _LOOKED_INTO_MAX / max(1, known.total()))
    return first + random.sample(others, math.ceil(len(others) * share))


async def _memory(client: Redis, partition: int, hot_window_s: int) -> _Memory:
    noted, now_ms, sequence, generation, pairs = await client.execute_command(
        "EVAL", _COUNT, 1, partitions.prefix(partition), identities.BUCKETS, hot_window_s
    )
    counts = {
        (partition, generation - place // identities.BUCKETS, place % identities.BUCKETS): held
        for place, held in zip(pairs[::2], pairs[1::2], strict=True)
    }
    return _Memory(partition, int(noted), generation, int(now_ms), int(sequence), counts)


def _is_of(memory: _Memory, hot_window_s: int) -> bool:
    return memory.now_ms > 0 and memory.now_ms // 1000 // hot_window_s == memory.noted


async def _known(
    database: Pool, client: Redis, memories: Sequence[_Memory], hot_window_s: int
) -> tuple[Counter[_Bucket], dict[int, int]]:
    """What should be remembered, by bucket, and of the partitions where that could be told the sequence it was told for."""
    since = _since(min(memory.generation for memory in memories), hot_window_s)
    upto = {memory.partition: memory.sequence for memory in memories}
    oldest = {memory.partition: memory.generation - 1 for memory in memories}
    async with postgres.snapshot(database) as connection:
        offsets = await store.offsets(connection, upto)
        found = Counter(await identity_sums.counts(connection, since, hot_window_s, upto))
        found.update(await identity_sums.quarantined(connection, since, hot_window_s, upto))
    for partition, sequence in list(upto.items()):
        entries = await log_reader.read_between(client, partition, offsets.get(partition, 0), sequence)
        if len(entries) == max(0, sequence - offsets.get(partition, 0)):
            found.update(_of_entries(partition, (entry.data for entry in entries), hot_window_s))
        else:
            del upto[partition]
    within = {bucket: many for bucket, many in found.items() if bucket[0] in upto and bucket[1] >= oldest[bucket[0]]}
    return Counter(within), upto


def _since(generation: int, hot_window_s: int) -> datetime:
    return clock.from_ms((generation - 1) * hot_window_s * 1000)


def _of_entries(partition: int, entries: Iterable[bytes], hot_window_s: int) -> Counter[_Bucket]:
    found: Counter[_Bucket] = Counter()
    for data in entries:
        try:
            entry = usage_log.decode_entry(data)
        except msgspec.MsgspecError:
            continue
        generation = entry.accepted_at_ms // 1000 // hot_window_s
        found.update(
            (partition, generation, ids.bucket_of(one.record.digest))
            for one in entry.applied
            if one.record.kind not in _UNREMEMBERED
        )
    return found


async def _look_into(database: Pool, client: Redis, buckets: Sequence[_Bucket], upto: int, hot_window_s: int) -> list[str]:
    """What is wrong in buckets of one partition. The book is asked again: what it holds up to a sequence never changes."""
    [partition] = {bucket[0] for bucket in buckets}
    since = _since(min(bucket[1] for bucket in buckets) + 1, hot_window_s)
    async with database.acquire() as connection:
        every = await identity_sums.of_buckets(connection, since, partition, upto, [bucket[2] for bucket in buckets])
    known: dict[_Bucket, list[Known]] = defaultdict(list)
    for one in every:
        known[partition, one.accepted_at_ms // 1000 // hot_window_s, ids.bucket_of(one.digest)].append(one)
    asked = [("HGETALL", identities.key(partition, generation, identities.name_of(number))) for _, generation, number in buckets]
    replies = await client.pipeline(*asked, atomic=False)
    return [
        place
        for bucket, held in zip(buckets, replies, strict=True)
        for place in _problems(bucket, redis.pairs(held), known[bucket])
    ]


def _problems(bucket: _Bucket, held: Mapping[bytes, bytes], known: Sequence[Known]) -> Iterator[str]:
    by_field = {identities.place_of(one.digest)[1]: one for one in known}
    for field, one in by_field.items():
        if field not in held:
            yield f"{one} is in the book, and not remembered by the till"
        elif held[field][: usage_log.PAYLOAD_BYTES] != one.fingerprint[: usage_log.PAYLOAD_BYTES]:
            yield f"{one} is remembered by the till with another payload"
        if one.is_misnamed:
            yield f"{one} is in the book under the identity of another event"
    partition, generation, number = bucket
    if len(known) > len(by_field):
        yield f"partition {partition} generation {generation} bucket {number:03x}: an identity is there twice in the book"
