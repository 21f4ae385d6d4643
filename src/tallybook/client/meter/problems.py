"""What the meter tells about itself: counters, and problems for `on_error`. It never raises into the calls that it meters."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

_log = logging.getLogger("tallybook")

Kind = Literal["dropped", "refused", "unreachable", "unattributed", "usage_missing", "internal"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that went wrong.

    `dropped`: there was no room, or the process ended first · `refused`: the service does not record these events as they are ·
    `unreachable`: no answer; it is tried again · `unattributed`: a call of which the customer or feature is not known ·
    `usage_missing`: a call whose provider did not say what it used · `internal`: a bug of this client.
    """

    kind: Kind
    message: str
    events: Sequence[Mapping[str, Any]] = ()
    error: BaseException | None = None


OnError = Callable[[Problem], None]


@dataclass(slots=True)
class Counters:
    """Events since the start. `tracked` = `accepted` + `duplicates` + `refused` + `dropped` + what is pending."""

    tracked: int = 0
    accepted: int = 0
    duplicates: int = 0
    refused: int = 0
    dropped: int = 0
    adopted: int = 0
    """Found on disk, left there by processes that ended."""
    requests: int = 0
    failures: int = 0
    """Requests that were not answered, or with an error."""
    unattributed: int = 0
    usage_missing: int = 0

    def as_dict(self) -> dict[str, int]:
        """All of them by name."""
        return asdict(self)


def tell(on_error: OnError | None, problem: Problem) -> None:
    """Pass a problem on; without a hook it is logged. A hook that raises is logged too, and stops nothing."""
    if on_error is None:
        _log.warning("%s: %s", problem.kind, problem.message)
        return
    try:
        on_error(problem)
    except Exception:  # noqa: BLE001 - whatever a hook does, metering goes on
        _log.exception("on_error raised for %s: %s", problem.kind, problem.message)
