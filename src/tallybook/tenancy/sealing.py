"""Stored responses that show a secret are sealed with the key of whoever asked, so that the book alone can't open them.

A response that carries a new API key must be replayable for a retry, yet only a hash of an API key may be stored. The sender's
own key has 256 random bits and is not stored either: SHAKE-256 over it, the idempotency key and a fresh nonce gives a keystream
that is used once, and an HMAC over the result proves that it was opened with the right key.
"""

import hashlib
import hmac
import secrets

_NONCE_BYTES = 16
_TAG_BYTES = 32


def seal(plain: bytes, api_key: str, idempotency_key: str) -> bytes:
    """Nonce, sealed bytes, tag."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    sealed = _mask(plain, _stream_key(api_key, idempotency_key, nonce))
    return nonce + sealed + _tag(api_key, idempotency_key, nonce + sealed)


def unseal(sealed: bytes, api_key: str, idempotency_key: str) -> bytes | None:
    """The plain bytes; None when another key sealed them or they were changed."""
    content, tag = sealed[:-_TAG_BYTES], sealed[-_TAG_BYTES:]
    if not hmac.compare_digest(tag, _tag(api_key, idempotency_key, content)):
        return None
    return _mask(content[_NONCE_BYTES:], _stream_key(api_key, idempotency_key, content[:_NONCE_BYTES]))


def _stream_key(api_key: str, idempotency_key: str, nonce: bytes) -> bytes:
    return b"\0".join((b"tallybook stored response", api_key.encode(), idempotency_key.encode(), nonce))


def _tag(api_key: str, idempotency_key: str, content: bytes) -> bytes:
    key = hashlib.sha256(b"tallybook stored response tag\0" + api_key.encode()).digest()
    return hmac.digest(key, idempotency_key.encode() + b"\0" + content, "sha256")


def _mask(data: bytes, key: bytes) -> bytes:
    stream = hashlib.shake_256(key).digest(len(data))
    return bytes(left ^ right for left, right in zip(data, stream, strict=True))
