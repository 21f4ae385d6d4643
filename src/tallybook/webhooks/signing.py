"""Signatures of webhooks, two of each: the wire's own, and that of the Standard Webhooks specification. Pure.

The wire's is the hex HMAC-SHA256 of the body with the whole secret (`whsec_` and all) as its key. The standard's covers id and time
too, so that an old delivery can be told from a new one, and its key is what the base64 after `whsec_` stands for.
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from datetime import datetime

from tallybook.core import clock
from tallybook.webhooks.model import Message

PREFIX = "whsec_"
_KEY_BYTES = 32


def new_secret() -> str:
    """`whsec_` and 32 random bytes in base64."""
    return PREFIX + base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()


def headers(message: Message, secret: str, now: datetime) -> Mapping[str, str]:
    """Everything a receiver needs to trust a message sent `now`."""
    seconds = str(int(now.timestamp()))
    return {
        "Content-Type": "application/json",
        "X-Commet-Signature": wire_signature(message.body, secret),
        "X-Commet-Event": message.topic,
        "X-Commet-Event-Id": message.event_id,
        "X-Commet-Timestamp": clock.iso(message.emitted_at),
        "webhook-id": message.event_id,
        "webhook-timestamp": seconds,
        "webhook-signature": standard_signature(message.event_id, seconds, message.body, secret),
    }


def wire_signature(body: str, secret: str) -> str:
    """64 hex digits."""
    return hmac.new(secret.encode(), body.encode(), hashlib.sha256).hexdigest()


def standard_signature(message_id: str, seconds: str, body: str, secret: str) -> str:
    """`v1,` and base64."""
    key = base64.b64decode(secret.removeprefix(PREFIX))
    digest = hmac.new(key, f"{message_id}.{seconds}.{body}".encode(), hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()
