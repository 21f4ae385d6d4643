"""What the meters of both clients have in common: taking events in."""

import os
import weakref
from collections.abc import Mapping
from datetime import datetime

from tallybook.client import decoding
from tallybook.client.meter import event
from tallybook.client.meter.outbox import Outbox
from tallybook.client.models import Amount


class Queue:
    """Takes events in at once, from any thread; a sender takes them out in the background."""

    def __init__(self, outbox: Outbox) -> None:
        """Events go to `outbox`."""
        self.outbox = outbox
        _queues.add(self)

    def track(
        self,
        customer_id: str,
        feature_code: str,
        value: Amount | None = None,
        *,
        event_id: str | None = None,
        timestamp: datetime | str | None = None,
        properties: Mapping[str, str] | None = None,
        model: str | None = None,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cache_read_tokens: int | None = None,
        cache_write_tokens: int | None = None,
        cache_write_1h_tokens: int | None = None,
        service_tier: str | None = None,
        web_search_requests: int | None = None,
        input_tokens_include_cache: bool | None = None,
    ) -> str:
        """Put an event in the queue and return its id; nothing is waited for and, but by the policy `raise`, nothing is raised.

        Without an id it gets one, without a timestamp this moment, so that it means the same whenever it is sent.
        """
        fields: dict[str, object] = {
            "featureCode": feature_code,
            "customerId": customer_id,
            "value": value,
            "timestamp": decoding.wire(timestamp) or event.now(),
            "properties": dict(properties) if properties else None,
            "model": model,
            "inputTokens": input_tokens,
            "outputTokens": output_tokens,
            "cacheReadTokens": cache_read_tokens,
            "cacheWriteTokens": cache_write_tokens,
            "cacheWrite1hTokens": cache_write_1h_tokens,
            "serviceTier": service_tier,
            "webSearchRequests": web_search_requests,
            "inputTokensIncludeCache": input_tokens_include_cache,
        }
        made = event.make(fields, event_id=event_id)
        self.outbox.put(made.payload)
        return made.event_id

    @property
    def counters(self) -> dict[str, int]:
        """Events since the start, by what became of them, and how many are `pending`."""
        return {**self.outbox.counters.as_dict(), "pending": self.outbox.pending}

    def restart_after_fork(self) -> None:
        """In a forked child: start anew."""
        self.outbox.restart_after_fork()


_queues: weakref.WeakSet[Queue] = weakref.WeakSet()


def _restart_all_after_fork() -> None:
    for queue in list(_queues):
        queue.restart_after_fork()


os.register_at_fork(after_in_child=_restart_all_after_fork)
