"""Group commit on a cluster: a lane for each server, so that one that is away or slow holds up its own partitions alone.

A script on a cluster may name keys of one slot only, so a call is one script for each partition, sent to the server together: they
share a round trip and a sync of its file, and each succeeds or fails by itself. One call a server is in flight: other servers are at work
meanwhile, and larger calls cost less.
"""

import asyncio
import dataclasses
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import cast

from tallybook.charge.commands import Charge, Receipt
from tallybook.charge.lane import Lane, LaneLimits, Send
from tallybook.core import errors

Settled = Receipt | errors.TallybookError
ServerOf = Callable[[int], str]
"""The name of the server that holds a partition, as far as is known."""


class Lanes:
    """One queue for each server, with its own bound. Belongs to the event loop it is used from."""

    def __init__(self, send: Send[Charge, Settled], limits: LaneLimits, server_of: ServerOf) -> None:
        self._send = send
        self._limits = dataclasses.replace(limits, in_flight_max=1)
        self._server_of = server_of
        self._lanes: dict[str, Lane[Charge, Settled]] = {}

    @property
    def depth(self) -> int:
        """Charges that wait or are in flight."""
        return sum(lane.depth for lane in self._lanes.values())

    async def charge(self, charges: Sequence[Charge]) -> list[Receipt]:
        """Receipts of all; raises what is wrong with any."""
        settled = await self.settle(charges)
        for one in settled:
            if isinstance(one, errors.TallybookError):
                raise one
        return cast("list[Receipt]", settled)

    async def settle(self, charges: Sequence[Charge]) -> list[Settled]:
        """Same length, same order: receipts, and in the places of charges of which nothing is known, why. Raises it when that is all."""
        if not charges:
            return []
        by_server: dict[str, list[int]] = defaultdict(list)
        for place, charge in enumerate(charges):
            by_server[self._server_of(charge.partition)].append(place)
        lots = [(name, [charges[place] for place in places]) for name, places in by_server.items()]
        outcomes = (
            [await self._settle(*lots[0])] if len(lots) == 1 else await asyncio.gather(*(self._settle(*lot) for lot in lots))
        )
        settled: list[Settled | None] = [None] * len(charges)
        for places, outcome in zip(by_server.values(), outcomes, strict=True):
            for place, one in zip(places, outcome, strict=True):
                settled[place] = one
        if isinstance(settled[0], errors.TallybookError) and all(isinstance(one, errors.TallybookError) for one in settled):
            raise settled[0]
        return cast("list[Settled]", settled)

    async def _settle(self, server: str, charges: Sequence[Charge]) -> Sequence[Settled]:
        lane = self._lanes.get(server)
        if lane is None:
            lane = self._lanes[server] = Lane(self._send, self._limits)
        try:
            return await lane.ask(charges)
        except errors.TallybookError as problem:
            return [problem] * len(charges)

    async def drain(self) -> None:
        """Wait until nothing waits and nothing is in flight."""
        for lane in self._lanes.values():
            await lane.drain()
