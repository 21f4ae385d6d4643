"""Who sends a request. Keys found good are remembered for three seconds at most, so a revoked one is out within five."""

import asyncio
import hashlib
import logging
import time
from dataclasses import dataclass
from datetime import datetime

from tallybook.core import errors
from tallybook.core.clock import Clock
from tallybook.entrypoints.http.routing import Operation
from tallybook.storage import postgres
from tallybook.tenancy import actions, rules
from tallybook.tenancy.model import AuthenticatedKey

KEY_HEADER = "x-api-key"
FRESH_S = 3.0
"""How long an answer of the book counts, from before it was asked. Revocation is effective everywhere after this time."""
REFRESH_AFTER_S = 1.5
"""From this age on the book is asked again while the remembered answer still serves: busy keys never wait."""
REMEMBERED_MAX = 10_000
TOUCH_EVERY_S = 30.0
_KEY_CHARACTERS_MAX = 128
_ACQUIRE_TIMEOUT_S = 5.0
_PATIENCE_S = 0.5
_AWAY_S = 1.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the book said of a key, and when it was asked (monotonic seconds). None: not a good key."""

    key: AuthenticatedKey | None
    asked_at: float


class KeyRing:
    """The keys that one process has seen lately, by digest of their text; texts are never kept. Belongs to one event loop."""

    def __init__(self, database: postgres.Pool, clock: Clock, grace_s: int = 0) -> None:
        """`grace_s`: how long a key that was good is taken while the book says nothing."""
        self._database = database
        self._clock = clock
        self._grace_s = grace_s
        self._away_until = 0.0
        self._known: dict[bytes, _Answer] = {}
        self._asking: dict[bytes, asyncio.Task[_Answer]] = {}
        self._used: dict[str, datetime] = {}

    async def authenticate(self, text: str | None, now: datetime) -> AuthenticatedKey:
        """The key behind a header's value. Raises Unauthorized, and Unavailable when the book can't be asked."""
        if text is None:
            raise errors.Unauthorized("unauthorized", "Send an API key in the x-api-key header.")
        if len(text) > _KEY_CHARACTERS_MAX or not text.isascii():
            raise _wrong_key()
        digest = hashlib.sha256(text.encode()).digest()
        answer = self._known.get(digest)
        age = FRESH_S if answer is None else time.monotonic() - answer.asked_at
        if answer is None or age >= FRESH_S:
            answer = await self._ask_or_remember(digest, text, answer)
        elif age > REFRESH_AFTER_S and digest not in self._asking:
            self._start_asking(digest, text)
        key = answer.key
        if key is None or (key.expires_at is not None and key.expires_at <= now):
            raise _wrong_key()
        self._used[key.id] = now
        return key

    async def touch(self) -> None:
        """Write down when keys were last used; what can't be written now is written next time."""
        used, self._used = self._used, {}
        if not used:
            return
        try:
            async with postgres.transaction(self._database) as connection:
                await actions.touch_api_keys(connection, used)
        except (postgres.PostgresError, *postgres.TRANSIENT_ERRORS):
            self._used = used | self._used
            _log.warning("last use of %d keys could not be written", len(used), exc_info=True)

    async def touch_forever(self) -> None:
        """Call `touch` from time to time until cancelled."""
        while True:
            await asyncio.sleep(TOUCH_EVERY_S)
            await self.touch()

    async def _ask_or_remember(self, digest: bytes, text: str, known: _Answer | None) -> _Answer:
        """What the book says; while it says nothing, what it said last, as long as the grace lasts.

        Nobody can revoke a key while the book is away, so only a process that has lost sight of a book others still see takes a
        revoked one, and no longer than that. Of those who ask, one in a second waits to see whether the book is back.
        """
        now_s = time.monotonic()
        if known is None or now_s - known.asked_at >= self._grace_s:
            return await self._ask(digest, text)
        if now_s < self._away_until:
            return known
        asking = self._asking.get(digest) or self._start_asking(digest, text)
        await asyncio.wait({asking}, timeout=_PATIENCE_S)
        if asking.done() and not isinstance(asking.exception(), postgres.TRANSIENT_ERRORS):
            return asking.result()
        self._away_until = time.monotonic() + _AWAY_S
        return known

    async def _ask(self, digest: bytes, text: str) -> _Answer:
        asking = self._asking.get(digest) or self._start_asking(digest, text)
        try:
            return await asyncio.shield(asking)
        except postgres.TRANSIENT_ERRORS as error:
            message = "The key could not be checked: the database does not answer. Send the same again."
            raise errors.Unavailable("database_unavailable", message) from error

    def _start_asking(self, digest: bytes, text: str) -> asyncio.Task[_Answer]:
        asking = asyncio.create_task(self._look_up(digest, text))
        self._asking[digest] = asking
        asking.add_done_callback(lambda task: self._asked(digest, task))
        return asking

    def _asked(self, digest: bytes, task: asyncio.Task[_Answer]) -> None:
        self._asking.pop(digest, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.warning("an API key could not be looked up: %s", type(error).__name__)

    async def _look_up(self, digest: bytes, text: str) -> _Answer:
        asked_at = time.monotonic()
        key: AuthenticatedKey | None = None
        if rules.parse_key(text) is not None:
            async with self._database.acquire(timeout=_ACQUIRE_TIMEOUT_S) as connection:
                key = await actions.authenticate(connection, text, self._clock())
        answer = _Answer(key, asked_at)
        self._remember(digest, answer)
        return answer

    def _remember(self, digest: bytes, answer: _Answer) -> None:
        """Only good keys are kept, so guesses can't push them out."""
        self._known.pop(digest, None)
        if answer.key is None:
            return
        while len(self._known) >= REMEMBERED_MAX:
            del self._known[next(iter(self._known))]
        self._known[digest] = answer


def require(key: AuthenticatedKey, operation: Operation) -> None:
    """Raise Forbidden unless the key may do this."""
    if key.permissions is not None and not rules.may(key.permissions, operation.permission, write=operation.writes):
        action = "write" if operation.writes else "read"
        raise errors.Forbidden("forbidden", f"This key has no {action} permission for {operation.permission}.")


def _wrong_key() -> errors.Unauthorized:
    return errors.Unauthorized("unauthorized", "The API key is unknown, wrong, expired or revoked.")
