"""Stored responses that show a secret are sealed with the key of whoever asked, so that the book alone can't open them.

A response that carries a new API key must be replayable for a retry, yet only a hash of an API key may be stored. The sender's own
key has 256 random bits and is not stored either, so a key derived from it opens what a retry with the same key asks for.
"""

import base64

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_PURPOSE = b"tallybook stored response"
_KEY_BYTES = 32


def seal(plain: bytes, api_key: str, idempotency_key: str) -> bytes:
    """The plain bytes encrypted and authenticated (Fernet: AES-128-CBC with HMAC-SHA-256)."""
    return _box(api_key, idempotency_key).encrypt(plain)


def unseal(sealed: bytes, api_key: str, idempotency_key: str) -> bytes | None:
    """The plain bytes; None when another key sealed them or they were changed."""
    try:
        return _box(api_key, idempotency_key).decrypt(sealed)
    except InvalidToken:
        return None


def _box(api_key: str, idempotency_key: str) -> Fernet:
    derived = HKDF(SHA256(), _KEY_BYTES, salt=idempotency_key.encode(), info=_PURPOSE).derive(api_key.encode())
    return Fernet(base64.urlsafe_b64encode(derived))
