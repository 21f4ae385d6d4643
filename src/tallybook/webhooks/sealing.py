"""Signing secrets at rest. They must be readable to sign with, so a hash will not do.

With a key (`TALLYBOOK_WEBHOOK_KEY`, which is not in the database) they are sealed, and a copy of the database signs nothing. Without
one they are stored as they are.
"""

import base64
from dataclasses import dataclass

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tallybook.webhooks.model import StoredSecret

_PURPOSE = b"tallybook webhook secret"
_KEY_BYTES = 32


class UnreadableSecretError(Exception):
    """The secret was sealed with another key, or the installation has none any more."""


@dataclass(frozen=True, slots=True)
class Keeper:
    """Seals and opens with the installation's key; "" has none."""

    key: str = ""

    def seal(self, secret: str) -> StoredSecret:
        """The secret as it is to be stored (sealed: Fernet, AES-128-CBC with HMAC-SHA-256)."""
        return (
            StoredSecret(self._box().encrypt(secret.encode()), is_sealed=True)
            if self.key
            else StoredSecret(secret.encode(), is_sealed=False)
        )

    def open(self, stored: StoredSecret) -> str:
        """The secret. Raises UnreadableSecretError."""
        if not stored.is_sealed:
            return stored.content.decode()
        if not self.key:
            raise UnreadableSecretError("the secret is sealed and TALLYBOOK_WEBHOOK_KEY is not set")
        try:
            return self._box().decrypt(stored.content).decode()
        except InvalidToken as error:
            raise UnreadableSecretError("the secret was sealed with another TALLYBOOK_WEBHOOK_KEY") from error

    def _box(self) -> Fernet:
        derived = HKDF(SHA256(), _KEY_BYTES, salt=None, info=_PURPOSE).derive(self.key.encode())
        return Fernet(base64.urlsafe_b64encode(derived))
