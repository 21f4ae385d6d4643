"""Whether the till remembers identities, without charging anything: for what is refused before it gets there."""

from collections.abc import Mapping

from tallybook.charge import fence, identities
from tallybook.core import partitions
from tallybook.storage import redis


async def remembered(client: redis.Redis, by_digest: Mapping[bytes, int]) -> set[bytes]:
    """Of these identities, each with its partition, those that were recorded within the till's memory.

    Raises Unavailable when the till can't be asked.
    """
    asked = sorted(set(by_digest.values()))
    try:
        found = await client.pipeline(*[("HGET", f"{partitions.prefix(one)}:m", "generation") for one in asked], atomic=False)
        newest = {partition: int(redis.text(reply) or 0) for partition, reply in zip(asked, found, strict=True)}
        places = [
            (digest, identities.key(partition, generation, bucket), field)
            for digest, partition in by_digest.items()
            for bucket, field in [identities.place_of(digest)]
            for generation in (newest[partition], newest[partition] - 1)
        ]
        known = await client.pipeline(*[("HEXISTS", key, field) for _, key, field in places], atomic=False)
    except redis.RedisError as error:
        raise fence.unanswered(error) from error
    return {digest for (digest, _, _), is_known in zip(places, known, strict=True) if is_known}
