"""How many usage events an API key may send, in this process: a bucket for each key, filled at a steady rate."""

import math
import time
from collections.abc import Callable

from tallybook.core import errors

_BATCH_MAX = 100
_KEYS_MAX = 10_000


class Rates:
    """Buckets by key id. A bucket holds one second's worth, and a whole batch at least, so that a batch can always pass."""

    def __init__(self, events_per_s: int, now_s: Callable[[], float] = time.monotonic) -> None:
        """0 events a second: no limit."""
        self._events_per_s = events_per_s
        self._now_s = now_s
        self._full = float(max(events_per_s, _BATCH_MAX))
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, key_id: str, events: int) -> None:
        """Count events against a key. Raises RateLimited, and counts nothing, when it has sent too many."""
        if not self._events_per_s:
            return
        now_s = self._now_s()
        left, since_s = self._buckets.pop(key_id, (self._full, now_s))
        left = min(self._full, left + (now_s - since_s) * self._events_per_s)
        taken = events if events <= left else 0
        self._buckets[key_id] = (left - taken, now_s)
        while len(self._buckets) > _KEYS_MAX:
            del self._buckets[next(iter(self._buckets))]
        if taken < events:
            wait_s = max(1, math.ceil((events - left) / self._events_per_s))
            message = f"This API key may send {self._events_per_s} usage events a second; nothing of this request was recorded."
            raise errors.RateLimited(message, retry_after_s=wait_s)
