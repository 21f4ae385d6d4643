"""People who signed in with an API key in a browser. A session can do what its key can, and is over as soon as the key is.

The book has only a digest of what the cookie holds, as it has of keys; so neither can be made from a copy of the book.
"""

import base64
import hashlib
import hmac
import secrets
from datetime import datetime, timedelta

from tallybook.storage.postgres import Connection
from tallybook.tenancy import store
from tallybook.tenancy.model import AuthenticatedKey

KEPT = timedelta(hours=12)
"""How long a session lasts, used or not."""
OF_A_KEY_MAX = 50
"""How many sessions a key may have; the oldest one makes room."""
_SECRET_BYTES = 32
_TOKEN_CHARACTERS = 43
_FORM_PURPOSE = b"tallybook form"


def new_token() -> str:
    """32 random bytes in base64url: 43 characters."""
    return base64.urlsafe_b64encode(secrets.token_bytes(_SECRET_BYTES)).decode().rstrip("=")


def form_token(token: str) -> str:
    """What a form must send along with the cookie that holds this token: another site can make neither from the other."""
    return hmac.new(token.encode(), _FORM_PURPOSE, hashlib.sha256).hexdigest()


def is_form_token(sent: str, token: str) -> bool:
    """Whether a form was made for the holder of this token."""
    return hmac.compare_digest(sent.encode(), form_token(token).encode())


async def open_session(connection: Connection, key: AuthenticatedKey, now: datetime) -> str:
    """Make a session of a key that was just found good. Returns the only copy of its token."""
    token = new_token()
    await store.add_web_session(connection, _digest(token), key.id, now, now + KEPT, OF_A_KEY_MAX)
    return token


async def find(connection: Connection, token: str, now: datetime) -> AuthenticatedKey | None:
    """The key of a session; None when the session has ended, or its key was revoked or has expired. Asks the book each time."""
    if len(token) != _TOKEN_CHARACTERS or not token.isascii():
        return None
    return await store.key_of_web_session(connection, _digest(token), now)


async def end(connection: Connection, token: str) -> None:
    """End a session for good, wherever its cookie may be."""
    await store.drop_web_session(connection, _digest(token))


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
