"""The catalog's values: what a list says about a model, what came of reading it, and what changed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from tallybook.pricing.rates import Price


@dataclass(frozen=True, slots=True)
class Model:
    """One model as listed now. `price` is None where the list has no token price: known, and never charged as zero."""

    id: str
    provider: str
    name: str
    type: str
    context_window: int | None = None
    output_max: int | None = None
    other_units: tuple[str, ...] = ()
    """Names of listed prices that token pricing leaves out (images, seconds, audio tokens, regions)."""
    deprecated_at: datetime | None = None
    price: Price | None = None


@dataclass(frozen=True, slots=True)
class Remark:
    """A sentence about one row of a list: why it is in quarantine, or how it was repaired."""

    model_id: str
    text: str


@dataclass(frozen=True, slots=True)
class ModelList:
    """A list, read row by row. `quarantined` rows publish nothing; their models keep the price they had."""

    models: tuple[Model, ...]
    quarantined: tuple[Remark, ...] = ()
    repaired: tuple[Remark, ...] = ()


@dataclass(frozen=True, slots=True)
class Known:
    """A model as the catalog has it: what was listed last, and whether it has since vanished from the list."""

    model: Model
    removed: bool = False


class ChangeKind(StrEnum):
    """What happened to a model."""

    ADDED = "added"
    REMOVED = "removed"
    RETURNED = "returned"
    PRICED = "priced"
    """It had no token price before."""
    REPRICED = "repriced"
    DESCRIBED = "described"
    """Only its name, limits or type changed."""


PRICE_CHANGES = frozenset({ChangeKind.ADDED, ChangeKind.PRICED, ChangeKind.REPRICED, ChangeKind.REMOVED, ChangeKind.RETURNED})
"""The changes worth telling people about."""


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between the catalog and a list. `model` is the state to publish (for a removal: the last known one)."""

    kind: ChangeKind
    model: Model
    before: Price | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What publishing a list would do. A plan that was refused changes nothing."""

    changes: tuple[Change, ...] = ()
    quarantined: tuple[Remark, ...] = ()
    repaired: tuple[Remark, ...] = ()
    refused: str | None = None

    @property
    def counts(self) -> Mapping[ChangeKind, int]:
        """How many changes of each kind."""
        kinds = [change.kind for change in self.changes]
        return {kind: kinds.count(kind) for kind in ChangeKind}


class SyncStatus(StrEnum):
    """How a sync ended."""

    PUBLISHED = "published"
    UNCHANGED = "unchanged"
    REFUSED = "refused"
    """The list was read and is suspicious as a whole; nothing changed."""
    FAILED = "failed"
    """The list could not be fetched or read; nothing changed."""
    BUSY = "busy"
    """Another process was syncing; nothing was done or recorded."""


@dataclass(frozen=True, slots=True)
class SyncReport:
    """A finished sync."""

    status: SyncStatus
    source: str
    plan: Plan = field(default_factory=Plan)
    models: int = 0
    priced: int = 0
    digest: str | None = None
    error: str | None = None
    version: int | None = None
    """The catalog version it published, if it did."""
