"""What a key looks like and what it may do. Pure."""

import base64
import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from tallybook.core import errors
from tallybook.tenancy.model import AuthenticatedKey, KeyText, Permissions

RESOURCES = frozenset(
    {
        "addon",
        "ai_model",
        "alert",
        "api_key",
        "credit_pack",
        "customer",
        "feature",
        "invoice",
        "market_group",
        "offer",
        "organization",
        "payment",
        "payout",
        "plan",
        "plan_group",
        "promo_code",
        "seat",
        "subscription",
        "test_clock",
        "transaction",
        "usage",
        "webhook",
    }
)
"""What permissions can be given for: the names of the wire, plus `ai_model`, `alert` and `webhook`, which are Tallybook's own."""
READ, WRITE = "read", "write"
EXPIRES_IN_DAYS_DEFAULT = 365
EXPIRES_IN_DAYS_MAX = 365
NAME_CHARACTERS_MAX = 128
IDEMPOTENCY_KEY_BYTES_MAX = 256

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_PUBLIC_CHARACTERS = 16
_SECRET_BYTES = 32
_KEY = re.compile(r"ck_([0-9A-Za-z]{16})_([0-9A-Za-z_-]{43})", re.ASCII)
_LETTER_AFTER_WORD = re.compile(r"(?<=[a-z0-9])([A-Z])", re.ASCII)


def new_public_part() -> str:
    """16 random base-62 characters (95 bits): finds a key's row, proves nothing."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(_PUBLIC_CHARACTERS))


def new_secret() -> str:
    """32 random bytes in base64url: 43 characters."""
    return base64.urlsafe_b64encode(secrets.token_bytes(_SECRET_BYTES)).decode().rstrip("=")


def secret_sha256(secret: str) -> bytes:
    """What is stored of a secret. It has 256 random bits, so a slow hash would add nothing."""
    return hashlib.sha256(secret.encode()).digest()


def key_text(public_part: str, secret: str) -> str:
    """`ck_<public part>_<secret>`."""
    return f"{prefix(public_part)}_{secret}"


def prefix(public_part: str) -> str:
    """The part of a key that may be shown: `ck_<public part>`."""
    return f"ck_{public_part}"


def parse_key(text: str) -> KeyText | None:
    """Take a key apart; None for anything that no key looks like."""
    match = _KEY.fullmatch(text)
    return KeyText(match[1], secret_sha256(match[2])) if match else None


def may(permissions: Permissions | None, resource: str, *, write: bool) -> bool:
    """Whether these permissions allow it. Writing needs "read" as well as "write"."""
    if permissions is None:
        return True
    granted = permissions.get(resource, frozenset())
    return READ in granted and (not write or WRITE in granted)


def covers(holder: Permissions | None, wanted: Permissions | None) -> bool:
    """Whether `wanted` asks for nothing that `holder` lacks. None is full access."""
    if holder is None:
        return True
    if wanted is None:
        return False
    return all(actions <= holder.get(resource, frozenset()) for resource, actions in wanted.items())


def read_permissions(wanted: Mapping[str, Sequence[str]]) -> Permissions:
    """Permissions as sent, names in either spelling (`plan_group`, `planGroup`). Raises ValidationError for an unknown name."""
    permissions: dict[str, frozenset[str]] = {}
    for name, actions in wanted.items():
        resource = _LETTER_AFTER_WORD.sub(r"_\1", name).lower()
        if resource not in RESOURCES:
            raise errors.invalid(
                f"permissions.{name[:64]}", f"{name[:64]!r} is no resource; one of {', '.join(sorted(RESOURCES))}."
            )
        permissions[resource] = permissions.get(resource, frozenset()) | frozenset(actions)
    return permissions


def expiry(now: datetime, expires_in_days: int | None, creator: AuthenticatedKey | None) -> datetime | None:
    """When a new key ends: after the days asked for (None: never), and no later than the restricted key that makes it."""
    asked = None if expires_in_days is None else now + timedelta(days=expires_in_days)
    if creator is None or creator.permissions is None or creator.expires_at is None:
        return asked
    return creator.expires_at if asked is None else min(asked, creator.expires_at)


def check_idempotency_key(key: str) -> str:
    """The key itself. Raises ValidationError unless it is 1 to 256 printable ASCII characters."""
    if not key or len(key) > IDEMPOTENCY_KEY_BYTES_MAX or not (key.isascii() and key.isprintable()):
        raise errors.invalid(
            "Idempotency-Key", f"Idempotency-Key must be 1 to {IDEMPOTENCY_KEY_BYTES_MAX} printable ASCII characters."
        )
    return key
