"""Is this the till of this installation, whole? Asked whenever Redis may have become another one, and once a second besides.

Every call of the script checks three things, which cost nothing: the epoch (an empty or foreign Redis lacks it), the run of the server
(one that was started again, perhaps on an old copy, is not charged before it was compared with the book), and that the log is not
behind what this process was told. What fails one of them lands here: the book is asked, and either the till is this installation's
after all (it was restarted, or made anew under another epoch), or everything is refused, with the reason, until it is.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import cast

from tallybook.charge import torn_tail
from tallybook.core import errors, partitions
from tallybook.storage import redis

_SCRIPT = resources.files("tallybook.charge").joinpath("fence.lua").read_bytes()
_RESTARTED = b"restarted"
_REFUSALS = ("EPOCH", "CLOSED", "RESTARTED", "BEHIND")
_REFUSED_S = 1.0
"""How long a refusal is believed before Redis and the book are asked again."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Claim:
    """What the book says the till must be: its epoch, and the last sequence of each partition that the book has read."""

    epoch: str
    sequences: Sequence[int]


AskBook = Callable[[], Awaitable[Claim]]
"""Raises Unavailable when the book can't be asked."""


class Fence:
    """Guards the till as seen from one process. Belongs to one event loop."""

    def __init__(self, client: redis.Redis, claim: Claim, ask_book: AskBook | None) -> None:
        self._redis = client
        self._ask_book = ask_book
        self._admitting = asyncio.Lock()
        self._refused_at = float("-inf")
        self.epoch: str = claim.epoch
        self.told: list[int] = list(claim.sequences)
        """By partition, the highest sequence that Redis or the book has told this process of."""
        self.booked = [0] * len(self.told)
        """By partition, how far the book had read when it was last asked."""
        self.refusal: str | None = None
        """Why nothing is charged or read, as far as it is known; None: all is well."""

    async def check(self) -> None:
        """Raise Unavailable while it is known that this is not the till; after a while that is looked at again."""
        if self.refusal is not None:
            await self._check_again(self.refusal)

    def note(self, epoch: str, partition: int, sequence: int) -> None:
        """Remember what a till with this epoch said that it has written."""
        if epoch == self.epoch:
            self.told[partition] = max(self.told[partition], sequence)

    async def begin(self) -> None:
        """Give an empty till the epoch. Raises Unavailable when a partition belongs to another installation."""
        await self._run("begin")

    async def admit(self) -> None:
        """Compare the till with the book, and let it be charged in this run of its server.

        Raises Unavailable when it is not this installation's whole till (`till_unknown`), or one of the stores is away.
        """
        async with self._admitting:
            await self._admit()

    async def resolve(self, error: redis.RedisError) -> None:
        """Return when a call that the script has refused may be made again. Raises Unavailable when it may not."""
        if not _is_refusal(error):
            raise unanswered(error) from error
        if str(error).startswith("BEHIND"):
            await self._close(str(error))
        await self._check_again(self.refusal)

    async def _check_again(self, refusal: str | None) -> None:
        async with self._admitting:
            if refusal is not None and asyncio.get_running_loop().time() < self._refused_at + _REFUSED_S:
                raise unknown_till(refusal)
            await self._admit()

    async def _admit(self) -> None:
        if self._ask_book is not None:
            try:
                self._take(await self._ask_book())
            except errors.Unavailable:
                # Without the book nothing new is let in; what was let in before goes on.
                await self._run("look")
                self.refusal = None
                return
        await self._let_in()
        if self.refusal is not None:
            _LOG.warning("the till is this installation's, and is charged again")
        self.refusal = None

    async def _let_in(self) -> None:
        """Note that the till was compared in this run of its server; what a torn write left in its file is removed first."""
        if await self._run("ask") == _RESTARTED:
            try:
                await torn_tail.cut_off(self._redis)
            except redis.RedisError as error:
                raise unanswered(error) from error
        await self._run("admit")

    def _take(self, claim: Claim) -> None:
        if claim.epoch != self.epoch:
            _LOG.warning("the till was made anew: epoch %s instead of %s", claim.epoch, self.epoch)
            self.epoch = claim.epoch
            self.told = list(claim.sequences)
        self.booked = list(claim.sequences)
        for partition, sequence in enumerate(claim.sequences):
            self.note(claim.epoch, partition, sequence)

    async def _close(self, reason: str) -> None:
        """Whoever notices that the log went back refuses for everybody: those who remember less would go on charging."""
        _LOG.critical("the till has lost what it acknowledged, and is closed: %s", reason)
        await self._execute("close", reason)

    async def _run(self, verb: str) -> bytes:
        try:
            return await self._execute(verb, *self.told)
        except redis.ResponseError as error:
            if not _is_refusal(error):
                raise unanswered(error) from error
            if str(error).startswith("BEHIND"):
                await self._close(str(error))
            self._refuse(str(error))
            raise unknown_till(str(error)) from error
        except redis.RedisError as error:
            raise unanswered(error) from error

    def _refuse(self, reason: str) -> None:
        if self.refusal is None:
            _LOG.critical("nothing is charged: %s", reason)
        self.refusal = reason
        self._refused_at = asyncio.get_running_loop().time()

    async def _execute(self, verb: str, *words: redis.Word) -> bytes:
        keys = [partitions.prefix(partition) for partition in range(len(self.told))]
        reply = await self._redis.execute_command("EVAL", _SCRIPT, len(keys), *keys, verb, self.epoch, *words)
        return cast("bytes", reply)


def _is_refusal(error: redis.RedisError) -> bool:
    return isinstance(error, redis.ResponseError) and str(error).startswith(_REFUSALS)


def unanswered(error: Exception) -> errors.Unavailable:
    """What a caller is told when Redis said nothing, or could not."""
    if "OOM" in str(error) or "maxmemory" in str(error):
        return errors.Unavailable("till_full", "Redis has no memory left, so nothing was recorded.", retry_after_s=5)
    return errors.Unavailable("till_unavailable", f"Redis did not answer ({type(error).__name__}); send the same ids again.")


def unknown_till(found: str) -> errors.Unavailable:
    """What a caller is told when Redis holds something else than this installation's whole till."""
    kind, _, rest = found.partition(" ")
    return errors.Unavailable("till_unknown", f"{_EXPLAINED[kind]} ({rest}). {_REMEDY[kind]}", retry_after_s=30)


_REBUILD = "Usage is refused until `tallybook rebuild` has run."
_EXPLAINED = {
    "EPOCH": "Redis does not hold this installation's till",
    "CLOSED": "The till is closed",
    "RESTARTED": "Redis was started again and the book can't be asked whether it is whole",
    "BEHIND": "Redis is older than what it acknowledged: it was restored from a copy or lost its last writes",
}
_REMEDY = {"EPOCH": _REBUILD, "CLOSED": _REBUILD, "RESTARTED": "Usage is refused until the book answers.", "BEHIND": _REBUILD}
