"""Is this the till of this installation, whole? Asked whenever Redis may have become another one, and once a second besides.

Every call of the script checks three things, which cost nothing: the epoch (an empty or foreign Redis lacks it), the run of the server
(one that was started again, perhaps on an old copy, is not charged before it was compared with the book), and that the log is not
behind what this process was told. What fails one of them lands here: the book is asked, and either the till is this installation's
after all (it was restarted, or made anew under another epoch), or everything is refused, with the reason, until it is.
"""

import asyncio
import logging
from collections import defaultdict
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
_SOON_S = 1.0
"""How long one server of a cluster may take to be looked at; meanwhile it may rewrite its file, which goes on."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Claim:
    """What the book says the till must be: its epoch, and the last sequence of each partition that the book has read."""

    epoch: str
    sequences: Sequence[int]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a partition is refused, and when that was found, by the event loop's clock."""

    reason: str
    at_s: float


AskBook = Callable[[], Awaitable[Claim]]
"""Raises Unavailable when the book can't be asked."""


class Fence:
    """Guards the till as seen from one process. Belongs to one event loop.

    On a cluster each server is judged by itself: one that is away, or went back, costs the partitions that it holds.
    """

    def __init__(self, client: redis.Redis, claim: Claim, ask_book: AskBook | None) -> None:
        self._redis = client
        self._ask_book = ask_book
        self._admitting: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """By server."""
        self._given_up_at_s: dict[str, float] = {}
        """By server that took too long to be looked at, when that was found, by the event loop's clock."""
        self.epoch: str = claim.epoch
        self.told: list[int] = list(claim.sequences)
        """By partition, the highest sequence that Redis or the book has told this process of."""
        self.booked = [0] * len(self.told)
        """By partition, how far the book had read when it was last asked."""
        self.refusals: dict[int, Refusal] = {}
        """Why partitions are neither charged nor read, as far as it is known."""

    async def check(self, partition: int) -> None:
        """Raise Unavailable while it is known that this is not the till; after a while that is looked at again."""
        if partition in self.refusals:
            await self._check_again(partition)

    def note(self, epoch: str, partition: int, sequence: int) -> None:
        """Remember what a till with this epoch said that it has written."""
        if epoch == self.epoch:
            self.told[partition] = max(self.told[partition], sequence)

    async def begin(self) -> None:
        """Give an empty till the epoch. Raises Unavailable when a partition belongs to another installation."""
        every = range(len(self.told))
        if self._redis.is_cluster:
            await self._run("probe", every)
        await self._run("begin", every)

    async def admit(self) -> None:
        """Compare the till with the book, and let it be charged in this run of its servers.

        Raises Unavailable when none of it is this installation's, whole (`till_unknown`), or the stores are away.
        """
        has_answered = await self._ask()
        groups = await self._by_server(range(len(self.told)))
        outcomes = await asyncio.gather(*(self._admit(*group, has_answered) for group in groups), return_exceptions=True)
        problems = [outcome for outcome in outcomes if outcome is not None]
        for problem in problems:
            if len(problems) == len(groups) or not isinstance(problem, errors.Unavailable):
                raise problem

    async def admit_one(self, partition: int) -> None:
        """Compare the server of a partition with the book, and let it be charged; raises Unavailable as `admit` does."""
        server, partitions_there = await self._neighbours(partition)
        await self._admit(server, partitions_there, await self._ask())

    async def resolve(self, error: redis.RedisError, partition: int) -> None:
        """Return when a call that the script has refused may be made again. Raises Unavailable when it may not."""
        if not _is_refusal(error):
            raise unanswered(error) from error
        if str(error).startswith("BEHIND"):
            await self._close((await self._neighbours(partition))[1], str(error))
        await self._check_again(partition)

    async def _check_again(self, partition: int) -> None:
        server, partitions_there = await self._neighbours(partition)
        async with self._admitting[server.name]:
            known = self.refusals.get(partition)
            if known is not None and asyncio.get_running_loop().time() < known.at_s + _REFUSED_S:
                raise unknown_till(known.reason)
            await self._compare_soon(server, partitions_there, await self._ask())

    async def _admit(self, server: redis.Redis, partitions_there: Sequence[int], has_answered: bool) -> None:  # noqa: FBT001 - what `_ask` said
        async with self._admitting[server.name]:
            await self._compare_soon(server, partitions_there, has_answered)

    async def _compare_soon(self, server: redis.Redis, partitions_there: Sequence[int], has_answered: bool) -> None:  # noqa: FBT001
        """The others of a cluster are not to wait for a server that stands still, or that takes long to rewrite its file.

        One that took too long is not waited for again at once: a call asks for each of its partitions.
        """
        now_s = asyncio.get_running_loop().time
        if now_s() < self._given_up_at_s.get(server.name, -_REFUSED_S) + _REFUSED_S:
            raise unanswered(TimeoutError())
        try:
            async with asyncio.timeout(_SOON_S if self._redis.is_cluster else None):
                await self._compare(partitions_there, has_answered)
        except TimeoutError as error:
            self._given_up_at_s[server.name] = now_s()
            raise unanswered(error) from error

    async def _compare(self, partitions_there: Sequence[int], has_answered: bool) -> None:  # noqa: FBT001
        if not has_answered:
            # Without the book nothing new is let in; what was let in before goes on.
            await self._run("look", partitions_there)
        else:
            await self._let_in(partitions_there)
        was_refused = [self.refusals.pop(partition, None) for partition in partitions_there]
        if has_answered and any(was_refused):
            _LOG.warning("the till is this installation's, and is charged again")

    async def _let_in(self, partitions_there: Sequence[int]) -> None:
        """Note that the till was compared in this run of its server; what a torn write left in its file is removed first."""
        if _RESTARTED in await self._run("ask", partitions_there):
            # Partitions may have moved since `server` was said to hold them; what was asked just now followed them.
            for holder, _ in await self._by_server(partitions_there):
                try:
                    await torn_tail.cut_off(holder)
                except redis.RedisError as error:
                    raise unanswered(error) from error
        await self._run("admit", partitions_there)

    async def _ask(self) -> bool:
        """Ask the book what the till must be. Returns whether it has answered."""
        if self._ask_book is None:
            return True
        try:
            claim = await self._ask_book()
        except errors.Unavailable:
            return False
        if claim.epoch != self.epoch:
            _LOG.warning("the till was made anew: epoch %s instead of %s", claim.epoch, self.epoch)
            self.epoch = claim.epoch
            self.told = list(claim.sequences)
        self.booked = list(claim.sequences)
        for partition, sequence in enumerate(claim.sequences):
            self.note(claim.epoch, partition, sequence)
        return True

    async def _close(self, partitions_there: Sequence[int], reason: str) -> None:
        """Whoever notices that the log went back refuses for everybody: those who remember less would go on charging."""
        _LOG.critical("the till has lost what it acknowledged, and is closed: %s", reason)
        try:
            await self._execute("close", partitions_there, lambda _partition: reason)
        except redis.RedisError as error:
            _LOG.error("the till could not be closed for others: %s", error)

    async def _run(self, verb: str, partitions_there: Sequence[int]) -> list[bytes]:
        try:
            return await self._execute(verb, partitions_there, self.told.__getitem__)
        except redis.ResponseError as error:
            if not _is_refusal(error):
                raise unanswered(error) from error
            if str(error).startswith("BEHIND"):
                await self._close(partitions_there, str(error))
            self._refuse(partitions_there, str(error))
            raise unknown_till(str(error)) from error
        except redis.RedisError as error:
            raise unanswered(error) from error

    def _refuse(self, partitions_there: Sequence[int], reason: str) -> None:
        if any(partition not in self.refusals for partition in partitions_there):
            _LOG.critical("nothing is charged: %s", reason)
        refusal = Refusal(reason, asyncio.get_running_loop().time())
        self.refusals |= dict.fromkeys(partitions_there, refusal)

    async def _execute(self, verb: str, numbers: Sequence[int], word_of: Callable[[int], redis.Word]) -> list[bytes]:
        """Do it to these partitions: on a single server in one step, on a cluster to all of them before an error is raised."""
        keys = [partitions.prefix(number) for number in numbers]

        async def run(places: Sequence[int]) -> bytes:
            words = [word_of(numbers[place]) for place in places]
            named = [keys[place] for place in places]
            return cast("bytes", await self._redis.execute_command("EVAL", _SCRIPT, len(named), *named, verb, self.epoch, *words))

        replies = await asyncio.gather(*(run(places) for places in self._redis.together(keys)), return_exceptions=True)
        problems = [reply for reply in replies if isinstance(reply, BaseException)]
        if problems:
            raise min(problems, key=lambda problem: not str(problem).startswith(_REFUSALS))
        return [reply for reply in replies if isinstance(reply, bytes)]

    async def _by_server(self, numbers: Sequence[int]) -> list[tuple[redis.Redis, list[int]]]:
        """Each server with those of the partitions that it holds."""
        try:
            groups = await self._redis.by_server([partitions.prefix(number) for number in numbers])
        except redis.RedisError as error:
            raise unanswered(error) from error
        return [(server, [numbers[place] for place in places]) for server, places in groups]

    async def _neighbours(self, partition: int) -> tuple[redis.Redis, list[int]]:
        """The server of a partition, and all partitions it holds."""
        groups = await self._by_server(range(len(self.told)))
        return next(group for group in groups if partition in group[1])


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
