"""What the stores must promise before usage is taken, and how a broken promise is told."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Unsafe:
    """One server setting that breaks a promise: what it is, what it must be, and how to change it."""

    setting: str
    found: str
    needed: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.setting} is {self.found!r}, needed is {self.needed}. To fix: {self.remedy}"


class UnsafeStoreError(Exception):
    """A store is not set up to keep what it acknowledges; the message has one line for each wrong setting."""

    def __init__(self, store: str, problems: list[Unsafe]) -> None:
        lines = "".join(f"\n  - {problem}" for problem in problems)
        super().__init__(f"{store} is not safe for usage data:{lines}")
        self.store = store
        self.problems = problems


class UnreadableSettingsError(Exception):
    """The server does not let its settings be read, so nothing can be said about safety."""
