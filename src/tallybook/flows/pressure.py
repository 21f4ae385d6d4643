"""When usage is turned away so that nothing breaks: the till's memory runs out, or the book falls too far behind.

Looked at once a second (`observe`); a request asks one attribute (`refuse`). What waits in this process is bounded where it waits,
in the lane in front of the till.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tallybook.core import errors

SLOW_DOWN_PERCENT = 75
STOP_PERCENT = 90
_COME_BACK_S = 5
_SAMPLES_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen at a moment (seconds of any clock that never goes back). `memory_most` 0: Redis has no limit.

    `written` and `read` are log sequences by partition: what the till has appended, and what the book has read of it.
    """

    at_s: float
    memory_used: int
    memory_most: int
    written: Sequence[int]
    read: Sequence[int]


@dataclass(slots=True)
class Pressure:
    """What one process knows of it. `refuse` makes the error that usage is answered with; None: come in."""

    refuse: Callable[[], errors.TallybookError] | None = None
    lag_s: float = 0.0
    """How long ago the oldest entry was written that the book has not read, as far as this process has seen; within a second."""
    waiting: deque[Sample] = field(default_factory=deque[Sample])
    """What was seen and is not all in the book yet, oldest first; bounded."""

    def observe(self, sample: Sample, lag_s_max: int) -> None:
        """Take note of what was seen. `lag_s_max` 0: the book may fall behind without limit."""
        self.lag_s = self._lag_s(sample)
        self.refuse = _refusal(sample, self.lag_s, lag_s_max)

    def _lag_s(self, sample: Sample) -> float:
        """The age of the oldest sample of which the book has not read everything."""
        if not self.waiting or self.waiting[-1].written != sample.written:
            self.waiting.append(sample)
        while self.waiting and all(read >= written for written, read in zip(self.waiting[0].written, sample.read, strict=True)):
            self.waiting.popleft()
        while len(self.waiting) > _SAMPLES_MAX:
            del self.waiting[1]
        return sample.at_s - self.waiting[0].at_s if self.waiting else 0.0


def _refusal(sample: Sample, lag_s: float, lag_s_max: int) -> Callable[[], errors.TallybookError] | None:
    percent = sample.memory_used * 100 // sample.memory_most if sample.memory_most else 0
    if percent >= STOP_PERCENT:
        message = f"Redis uses {percent} % of the memory it may use; nothing was recorded."
        return lambda: errors.Unavailable("till_full", message, retry_after_s=_COME_BACK_S)
    if lag_s_max and lag_s > lag_s_max:
        behind = f"The book is {lag_s:.0f} seconds behind the till, more than the {lag_s_max} allowed; nothing was recorded."
        return lambda: errors.Unavailable("book_behind", behind, retry_after_s=_COME_BACK_S)
    if percent >= SLOW_DOWN_PERCENT:
        slowly = f"Redis uses {percent} % of the memory it may use; come back shortly."
        return lambda: errors.RateLimited(slowly, retry_after_s=_COME_BACK_S)
    return None
