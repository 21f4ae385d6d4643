"""Where the till keeps the identities it remembers; the same rule as in `charge.lua`."""

from collections.abc import Iterator

from tallybook.core import partitions

_HIGH = 256
_NIBBLES = b"0123456789abcdef"


def key(partition: int, generation: int, bucket: bytes) -> bytes:
    """The hash that holds one bucket of one generation."""
    return f"{partitions.prefix(partition)}:d:{generation}:".encode() + bucket


def place_of(digest: bytes) -> tuple[bytes, bytes]:
    """Bucket and field of an identity: its first 12 bits, and bytes 2 to 14."""
    return digest[:1] + _NIBBLES[digest[1] >> 4 : (digest[1] >> 4) + 1], digest[1:14]


def buckets() -> Iterator[bytes]:
    """All 4096 buckets."""
    return (bytes((high, nibble)) for high in range(_HIGH) for nibble in _NIBBLES)
