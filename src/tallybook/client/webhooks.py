"""For whoever receives webhooks: tells whether one comes from the service, whole and new."""

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any, cast

from tallybook.client.errors import TallybookError

TOLERANCE_S = 300
"""How far the time of sending may be from this machine's."""

_KEY_BYTES_MIN = 16


class UntrustedWebhook(TallybookError):
    """Not sent by the holder of the secret, changed on its way, or sent too long ago: answer 400 and do nothing."""


def verify_webhook(
    body: bytes | str, headers: Mapping[str, str], secret: str, *, tolerance_s: float = TOLERANCE_S, now_s: float | None = None
) -> dict[str, Any]:
    """The event in a request's raw body. `secret` is the endpoint's `whsec_…`, `now_s` the Unix time (this machine's).

    The same event may come more than once: remember its `id`. Raises UntrustedWebhook, saying why.
    """
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
    given = {name.lower(): value for name, value in headers.items()}
    message_id, sent_at = given.get("webhook-id", ""), given.get("webhook-timestamp", "")
    expected = _signature(f"{message_id}.{sent_at}.{text}", secret)
    if not any(hmac.compare_digest(expected, one.encode()) for one in given.get("webhook-signature", "").split()):
        raise UntrustedWebhook("The signature is not that of this body, id and time with this secret.")
    if (
        not (sent_at.isascii() and sent_at.isdigit())
        or abs((time.time() if now_s is None else now_s) - int(sent_at)) > tolerance_s
    ):
        raise UntrustedWebhook(f"It was sent at {sent_at}, more than {tolerance_s:g} seconds from now.")
    try:
        event: object = json.loads(text)
    except ValueError:
        event = None
    if not isinstance(event, dict):
        raise UntrustedWebhook("The body is no event.")
    return cast("dict[str, Any]", event)


def _signature(signed: str, secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise UntrustedWebhook("The secret is not whsec_ and base64.") from error
    if len(key) < _KEY_BYTES_MIN:
        raise UntrustedWebhook("The secret is missing or too short to prove anything.")
    return b"v1," + base64.b64encode(hmac.new(key, signed.encode(), hashlib.sha256).digest())
