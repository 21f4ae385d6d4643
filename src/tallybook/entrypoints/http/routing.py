"""What a resource module declares: operations, and what its handlers get and give. The frame does the rest."""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Protocol

import msgspec

from tallybook.core import cursors
from tallybook.core.tenant import Tenant
from tallybook.flows.services import Services
from tallybook.storage.postgres import Connection
from tallybook.tenancy import rules as tenancy_rules
from tallybook.tenancy.model import AuthenticatedKey

BODY_BYTES_MAX = 262_144
_READING_METHODS = frozenset({"GET", "HEAD"})
_PARAMETER = re.compile(r"\{([a-zA-Z]+)(:[^{}]+)?\}")


@dataclass(slots=True)
class Call:
    """One request to an ordinary operation.

    `connection` is in ONE transaction for writes, which the frame commits together with the stored response; for reads it is
    plain. `now` is the tenant's clock, `real_now` the real one. `body` and `query` are instances of the operation's Structs.
    """

    tenant: Tenant
    key: AuthenticatedKey
    now: datetime
    real_now: datetime
    connection: Connection
    body: Any
    query: Any
    path: Mapping[str, str]
    services: Services
    idempotency_key: str | None
    request_id: str


class HotCall(msgspec.Struct, gc=False):
    """One request to a hot operation: authenticated, bounded and read, nothing more. `now` is the real time.

    `spend` counts usage events against the key; it raises RateLimited when there were too many.
    `is_older`: the client is one of the envelope (see `older_wire`).
    """

    tenant: Tenant
    key: AuthenticatedKey
    body: bytes
    now: datetime
    services: Services
    idempotency_key: str | None
    request_id: str
    spend: Callable[[str, int], None]
    is_older: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list, newest first; `next_cursor` None on the last one."""

    data: Sequence[object]
    next_cursor: str | None


class ListQuery(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """Which page of a list. Lists with filters extend it."""

    cursor: Annotated[str, msgspec.Meta(max_length=128, description="nextCursor of the page before")] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=cursors.LIMIT_MAX, description="rows of a page")] = cursors.LIMIT_DEFAULT


Handler = Callable[[Call], Awaitable[object]]
HotHandler = Callable[[HotCall], Awaitable[msgspec.Struct | Mapping[str, object]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path.

    `path` is without the /api/v1 prefix; a parameter that may hold slashes is `{id:.+}`. `permission` is the resource that a
    restricted key must have: "read", and for writes (any method but GET, unless `reads`) "write" too. `returns` is the response
    Struct, of one item when `is_list`. `secret`: the response shows a secret, so what is stored of it is sealed.
    `hot`: the handler takes a HotCall and returns a Struct or a dict; it sees to transaction, tenant clock and replays itself.
    `refusals`: statuses it may answer with beside those that all operations share. `nullable`: the answer may be null.
    """

    method: str
    path: str
    id: str
    summary: str
    permission: str
    handler: Handler | HotHandler
    body: type[msgspec.Struct] | None = None
    query: type[msgspec.Struct] | None = None
    returns: type | None = None
    is_list: bool = False
    status: int = 200
    reads: bool = False
    hot: bool = False
    secret: bool = False
    body_max: int = BODY_BYTES_MAX
    refusals: tuple[int, ...] = ()
    nullable: bool = False
    example: Mapping[str, object] | None = None

    @property
    def writes(self) -> bool:
        """Whether it changes anything."""
        return not self.reads and self.method not in _READING_METHODS

    @property
    def path_parameters(self) -> list[str]:
        """Names of the parameters in the path."""
        return [match[1] for match in _PARAMETER.finditer(self.path)]

    @property
    def template(self) -> str:
        """The path with bare parameter names, as OpenAPI writes it."""
        return _PARAMETER.sub(r"{\1}", self.path)


class Resource(Protocol):
    """A resource module."""

    @property
    def OPERATIONS(self) -> tuple[Operation, ...]:  # noqa: N802 - the constant's name in a resource module
        """What the resource can do."""
        ...


def collect(modules: Iterable[Resource]) -> tuple[Operation, ...]:
    """All operations of some resource modules. Raises ValueError when two clash or one asks for an unknown permission."""
    operations = tuple(operation for module in modules for operation in module.OPERATIONS)
    seen: set[object] = set()
    for operation in operations:
        for claim in (operation.id, (operation.method, operation.template)):
            if claim in seen:
                raise ValueError(f"{claim} is declared twice")
            seen.add(claim)
        if operation.permission not in tenancy_rules.RESOURCES:
            raise ValueError(f"{operation.id}: {operation.permission!r} is no resource that a key can have permissions for")
    return operations
