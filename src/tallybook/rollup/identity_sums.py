"""How many identities the book knows, of those that the till must remember, and whose they are. Reads only."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from tallybook.core import clock, ids
from tallybook.core.usage_log import Kind
from tallybook.rollup import memory
from tallybook.storage import queries
from tallybook.storage.postgres import Querying, Row

_SQL = queries.load("tallybook.rollup", "reconcile.sql")

Bucket = tuple[int, int, int]
"""partition, generation, bucket: the first 14 bits of the identity."""


@dataclass(frozen=True, slots=True)
class Known:
    """An identity of the book. `event_id` is None for what is no event, or had no id."""

    tenant_id: int
    customer_id: int
    event_id: str | None
    kind: int
    digest: bytes
    fingerprint: bytes
    accepted_at_ms: int

    def __str__(self) -> str:
        what = "a change without an id" if self.event_id is None else f"event {self.event_id}"
        return f"customer {self.customer_id} {what}"

    @property
    def is_misnamed(self) -> bool:
        """Whether the event's id is another one than the identity was made of."""
        if self.kind != Kind.USAGE or self.event_id is None:
            return False
        return ids.event_digest(self.tenant_id, self.customer_id, self.event_id) != self.digest


async def counts(connection: Querying, since: datetime, generation_s: int, upto: Mapping[int, int]) -> Mapping[Bucket, int]:
    """Of what was accepted since a time: how many identities there are up to these sequences of these partitions."""
    rows = await connection.fetch(_SQL["count_identities"], since, generation_s, list(upto), list(upto.values()))
    return {(row["partition"], row["generation"], row["bucket"]): row["identities"] for row in rows}


async def quarantined(connection: Querying, since: datetime, generation_s: int, upto: Mapping[int, int]) -> Mapping[Bucket, int]:
    """The same of what is or was in quarantine: the till remembers it as well."""
    found: Counter[Bucket] = Counter()
    for sequence, one in await memory.quarantined_identities(connection, since):
        if one.partition in upto and sequence <= upto[one.partition]:
            found[one.partition, one.accepted_at_ms // 1000 // generation_s, ids.bucket_of(one.digest)] += 1
    return found


async def of_buckets(connection: Querying, since: datetime, partition: int, upto: int, buckets: Sequence[int]) -> list[Known]:
    """All identities of some buckets that were accepted since a time and stand up to a sequence."""
    rows = await connection.fetch(_SQL["identities_of_buckets"], since, partition, upto, list(buckets))
    return [_known(row) for row in rows]


def _known(row: Row) -> Known:
    return Known(
        row["tenant_id"],
        row["customer_id"],
        row["event_id"],
        row["kind"],
        row["digest"],
        row["fingerprint"],
        clock.to_ms(row["accepted_at"]),
    )
