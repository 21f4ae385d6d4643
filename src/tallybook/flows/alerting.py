"""Threshold alerts, judged in the rollup's own transaction: the crossing and its announcement commit with the usage that crossed it."""

import logging
from collections.abc import Sequence

from tallybook.alerts import judging
from tallybook.core.clock import Clock
from tallybook.rollup.actions import Also
from tallybook.storage import postgres
from tallybook.storage.postgres import Connection

_LOG = logging.getLogger(__name__)


def judge_with(clock: Clock) -> Also:
    """What the rollup is to do besides, for the customers whose pools a pass has changed.

    It runs inside a savepoint: whatever is wrong with an alert must not keep usage out of the book. What was not judged now is judged
    when the customer's pools change next.
    """

    async def judge(connection: Connection, customer_ids: Sequence[int]) -> None:
        try:
            async with connection.transaction():
                await judging.judge(connection, customer_ids, clock())
        except postgres.TRANSIENT_ERRORS:
            raise
        except Exception:  # noqa: BLE001 - told, and tried again by itself; the pass goes on
            _LOG.exception("alerts: a pass could not be judged")

    return judge
