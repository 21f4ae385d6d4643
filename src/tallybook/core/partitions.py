"""Which partition of the till and of the log a customer lives in. Fixed at installation: the count never changes."""

from binascii import crc32


def of(tenant_id: int, customer_id: int, count: int) -> int:
    """The partition of a customer, 0 … count - 1."""
    return crc32(b"%d:%d" % (tenant_id, customer_id)) % count


def prefix(partition: int) -> str:
    """The hash tag that all keys of a partition start with: `{p07}`."""
    return f"{{p{partition:02d}}}"
