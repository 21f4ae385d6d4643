"""The loop that sends webhooks: announcements → deliveries → attempts. Any number of processes may run it; one at a time does.

A crash between an attempt and its note means that it is made again: at least once, always with the same event id. To one endpoint
messages go one after the other, in order; one that failed is tried again later and does not hold up those behind it.
"""

import asyncio
import logging
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tallybook.entrypoints import metrics, webhook_sender
from tallybook.entrypoints.webhook_sender import Sender
from tallybook.entrypoints.workers import pause
from tallybook.flows.services import Services
from tallybook.storage import locks, postgres
from tallybook.tenancy import actions as tenancy
from tallybook.webhooks import actions
from tallybook.webhooks.model import Due
from tallybook.webhooks.sealing import Keeper

_LOG = logging.getLogger(__name__)
LOCK = 0x7A11_3B0C
_TERM_S = 60.0
"""How long one process leads before it takes the lock anew: a lock that was lost unnoticed is shared no longer than that."""
_NOT_LEADING_S = 5.0
_FAILED_S = 1.0
_IDLE_S = 0.25
_BUSY_S = 0.05
_SHOW_EVERY_S = 5.0
OF_EACH = 20
"""Messages that one look takes for one endpoint."""


@dataclass(slots=True)
class Post:
    """The messages that are being sent, by endpoint."""

    services: Services
    sender: Sender
    jitter: Callable[[], float] = random.random
    ending: bool = False
    under_way: dict[int, asyncio.Task[None]] = field(default_factory=dict[int, asyncio.Task[None]])


async def run(services: Services, stop: asyncio.Event) -> None:
    """Send until `stop` is set; attempts under way then are finished."""
    keeper = Keeper(services.settings.webhook_key)
    allow_private = services.settings.webhook_allow_private
    async with webhook_sender.open_sender(keeper, allow_private=allow_private) as sender:
        while not stop.is_set():
            try:
                rest_s = await lead(Post(services, sender), stop)
            except postgres.TRANSIENT_ERRORS as error:
                _LOG.warning("webhooks wait: %s: %s", type(error).__name__, error)
                rest_s = _FAILED_S
            except Exception:  # noqa: BLE001 - must not stop the other loops of this process; what was not noted is sent again
                _LOG.exception("webhooks: sending broke off")
                rest_s = _FAILED_S
            await pause.rest(stop, rest_s)


async def lead(post: Post, stop: asyncio.Event) -> float:
    """Send for a while, if nobody else does. Returns how many seconds to rest."""
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + _TERM_S
    async with locks.alone(post.services.settings.postgres_url, LOCK, application_name="tallybook webhooks") as leads:
        if not leads:
            return _NOT_LEADING_S
        shown_at = 0.0
        try:
            while not stop.is_set() and loop.time() < ends_at:
                if loop.time() - shown_at > _SHOW_EVERY_S:
                    await show(post.services)
                    shown_at = loop.time()
                worked = await fan_out(post.services) + await begin(post)
                await pause.rest(stop, 0.0 if worked else _BUSY_S if post.under_way else _IDLE_S)
        finally:
            await finish(post)
    return 0.0


async def fan_out(services: Services) -> int:
    """Turn what was announced into deliveries. Returns how many announcements there were."""
    async with postgres.transaction(services.database) as connection:
        return await actions.fan_out(connection, services.clock())


async def begin(post: Post) -> int:
    """Begin to send what is due to endpoints that nothing is being sent to. Returns to how many that was."""
    for endpoint_id in [endpoint_id for endpoint_id, task in post.under_way.items() if task.done()]:
        post.under_way.pop(endpoint_id).result()
    async with post.services.database.acquire() as connection:
        found = await actions.due(connection, post.services.clock(), of_each=OF_EACH, but_not_of=list(post.under_way))
    by_endpoint: dict[int, list[Due]] = defaultdict(list)
    for due in found:
        by_endpoint[due.delivery.endpoint_id].append(due)
    for endpoint_id, messages in by_endpoint.items():
        post.under_way[endpoint_id] = asyncio.create_task(_send_all(post, messages))
    return len(by_endpoint)


async def finish(post: Post) -> None:
    """Wait for the attempts that are under way; nothing new is begun."""
    post.ending = True
    results = await asyncio.gather(*post.under_way.values(), return_exceptions=True)
    post.under_way.clear()
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def _send_all(post: Post, messages: Sequence[Due]) -> None:
    for due in messages:
        if post.ending or not await attempt(post, due):
            return


async def attempt(post: Post, due: Due) -> bool:
    """Make one attempt and note it. Whether the endpoint is still switched on."""
    delivery = due.delivery
    made = await post.sender.send(due.url, delivery.message, due.secret, post.services.clock())
    async with postgres.transaction(post.services.database) as connection:
        disabled = await actions.settle(connection, delivery, made, post.services.clock(), post.jitter())
    metrics.WEBHOOK_ATTEMPTS.labels("delivered" if made.is_delivered else "failed").inc()
    if disabled is not None:
        metrics.WEBHOOK_ENDPOINTS_DISABLED.inc()
        _LOG.error("webhooks: endpoint %s was switched off: too many events in a row could not be delivered", disabled)
    return disabled is None


async def show(services: Services) -> None:
    """Set the metrics of what waits."""
    async with services.database.acquire() as connection:
        since, waiting = await tenancy.announcements_wait_since(connection), await actions.backlog(connection)
    metrics.OUTBOX_LAG_SECONDS.set(0.0 if since is None else max(0.0, (services.clock() - since).total_seconds()))
    metrics.WEBHOOKS_WAITING.set(waiting)
