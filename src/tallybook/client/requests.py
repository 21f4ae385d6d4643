"""A request as a value, and how one definition serves both clients.

A resource's function builds a `Request[Answer]` and does nothing else. `operation(build)` as a class attribute makes it a method that
sends: on a resource of `Tallybook` it returns the answer, on one of `AsyncTallybook` an awaitable of it, both with the parameters of
the function.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Concatenate, Final, Generic, Literal, ParamSpec, TypeVar, overload
from uuid import uuid4

from tallybook.client import decoding

P = ParamSpec("P")
T = TypeVar("T")
Json = dict[str, Any]


class Unset:
    """The type of `UNSET`."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset()
"""Stands for a field that is not sent, where None is sent as null and removes what was there."""


@dataclass(frozen=True, slots=True)
class Request(Generic[T]):
    """One call: how it is sent, and how its answer is read. `key` makes sending it again harmless."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    read: Callable[[Any], T]
    body: Mapping[str, Any] | None = None
    query: Mapping[str, str] | None = None
    key: str = field(default_factory=lambda: f"tb-{uuid4().hex}")


class Sync:
    """Marks resources that answer."""


class Async:
    """Marks resources that answer when awaited."""


Mode = TypeVar("Mode", Sync, Async)


class Resource(Generic[Mode]):
    """A group of operations. `send` does a request; what it returns depends on the mode."""

    def __init__(self, send: Callable[[Request[Any]], Any]) -> None:
        self._send = send


class operation(Generic[P, T]):  # noqa: N801 - used like a decorator
    """A method that sends what `build` makes of its arguments."""

    def __init__(self, build: Callable[P, Request[T]]) -> None:
        self._build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, resource: None, owner: type) -> "operation[P, T]": ...
    @overload
    def __get__(self, resource: Resource[Sync], owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, resource: Resource[Async], owner: type) -> Callable[P, Awaitable[T]]: ...
    def __get__(self, resource: Any, owner: type) -> Any:
        if resource is None:
            return self
        send, build = resource._send, self._build  # noqa: SLF001 - both are this module's

        def call(*given: P.args, **named: P.kwargs) -> Any:
            return send(build(*given, **named))

        call.__doc__ = self.__doc__
        return call


class CustomerResource(Generic[Mode]):
    """A group of operations for one customer."""

    def __init__(self, send: Callable[[Request[Any]], Any], customer_id: str) -> None:
        self._send = send
        self._customer_id = customer_id


class customer_operation(Generic[P, T]):  # noqa: N801 - used like a decorator
    """A method that sends what `build` makes of the customer and its arguments."""

    def __init__(self, build: Callable[Concatenate[str, P], Request[T]]) -> None:
        self._build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, resource: None, owner: type) -> "customer_operation[P, T]": ...
    @overload
    def __get__(self, resource: CustomerResource[Sync], owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, resource: CustomerResource[Async], owner: type) -> Callable[P, Awaitable[T]]: ...
    def __get__(self, resource: Any, owner: type) -> Any:
        if resource is None:
            return self
        send, customer_id, build = resource._send, resource._customer_id, self._build  # noqa: SLF001 - all are this module's

        def call(*given: P.args, **named: P.kwargs) -> Any:
            return send(build(customer_id, *given, **named))

        call.__doc__ = self.__doc__
        return call


def present(**fields: Any) -> Json:
    """A body of the fields that are not None, under their wire names."""
    return {decoding.camel(name): decoding.wire(value) for name, value in fields.items() if value is not None}


def changes(**fields: Any) -> Json:
    """A body of the fields that are not `UNSET`; None removes."""
    return {decoding.camel(name): decoding.wire(value) for name, value in fields.items() if not isinstance(value, Unset)}


def query(**fields: Any) -> dict[str, str]:
    """Query parameters of the fields that are not None."""
    return {decoding.camel(name): _text(value) for name, value in fields.items() if value is not None}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
