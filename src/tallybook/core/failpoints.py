"""Places where a test may end a process, each by its name. In a process where none is armed, reaching one does nothing.

`TALLYBOOK_FAILPOINT=charge.after_script:3` has a process killed when it comes there for the third time; `app` arms it.
"""

from collections.abc import Callable
from typing import Literal, get_args

Name = Literal[
    "usage.received",
    "charge.before_script",
    "charge.after_script",
    "usage.before_reply",
    "rollup.read",
    "rollup.before_commit",
    "rollup.after_commit",
    "rollup.before_trim",
    "rollup.after_trim",
    "period.begun",
    "period.published",
    "period.reopened",
    "period.marked",
    "period.caught_up",
    "period.before_settling",
    "period.settled",
    "period.expired",
    "period.noted",
]
"""In the order in which an event, and then its period, passes them."""
NAMES: tuple[Name, ...] = get_args(Name)


def _pass_by(_name: Name) -> None:
    """What reaching a place does unless one is armed."""


reach: Callable[[Name], None] = _pass_by
"""Say that the code is here. Call it by way of the module, because arming replaces it."""


def parse(text: str) -> tuple[Name, int]:
    """`name` or `name:nth` as the place and how often it must be reached. Raises ValueError."""
    wanted, _, nth = text.partition(":")
    for name in NAMES:
        if name == wanted and (nth or "1").isdecimal() and int(nth or "1") > 0:
            return name, int(nth or "1")
    raise ValueError(f"{text!r} is not NAME or NAME:NTH with one of {', '.join(NAMES)}")


def arm(text: str, end: Callable[[], None]) -> None:
    """Have `end` called when the place that `text` names is reached for the nth time. Raises ValueError as `parse` does."""
    global reach  # noqa: PLW0603 - so that what is not armed costs one call of nothing
    armed, left = parse(text)

    def count_down(name: Name) -> None:
        nonlocal left
        if name == armed:
            left -= 1
            if left == 0:
                end()

    reach = count_down
