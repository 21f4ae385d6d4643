"""JSON of the wire to frozen dataclasses and back, by their field names: `customer_id` is `customerId`.

Fields that a newer service sends and this client does not know are left out; fields that are missing take their default, or None.
"""

import dataclasses
import functools
import re
import types
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")
_WORDS = re.compile(r"_([a-z0-9])")
_Reader = Callable[[Any], Any]


@functools.cache
def camel(name: str) -> str:
    """The wire name of a Python name."""
    return _WORDS.sub(lambda match: match[1].upper(), name)


def wire(value: Any) -> Any:
    """A value as JSON writes it: dataclasses by their wire names without None, moments in UTC."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
        return {camel(name): wire(each) for name, each in fields if each is not None}
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, Mapping):
        return {str(key): wire(each) for key, each in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [wire(each) for each in cast("Sequence[Any]", value)]
    return value


def iso(moment: datetime) -> str:
    """An aware moment in UTC with milliseconds. Raises ValueError for a naive one."""
    if moment.tzinfo is None:
        raise ValueError("a moment needs a time zone: datetime.now(UTC)")
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read(kind: type[T], given: Any) -> T:
    """A dataclass of a JSON object."""
    return cast("T", _reader(kind)(given))


def reader(kind: type[T]) -> Callable[[Any], T]:
    """Reads JSON objects as a dataclass."""
    return functools.partial(read, kind)


@functools.cache
def _reader(kind: Any) -> _Reader:
    if dataclasses.is_dataclass(kind):
        return functools.partial(_read_fields, kind)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        [inner] = [each for each in arguments if each is not type(None)][:1]
        return _optional(_reader(inner))
    if origin in (list, tuple):
        return _listed(_reader(arguments[0]), cast("Callable[[Any], Any]", origin))
    return _as_it_is


def _read_fields(kind: Any, given: Any) -> Any:
    values = cast("Mapping[str, Any]", given)
    return kind(
        **{name: read_one(values.get(key)) for name, key, read_one in _fields(kind) if key in values or name in _required(kind)}
    )


@functools.cache
def _fields(kind: Any) -> tuple[tuple[str, str, _Reader], ...]:
    hints = get_type_hints(kind)
    return tuple((field.name, camel(field.name), _optional(_reader(hints[field.name]))) for field in dataclasses.fields(kind))


@functools.cache
def _required(kind: Any) -> frozenset[str]:
    missing = dataclasses.MISSING
    return frozenset(
        field.name for field in dataclasses.fields(kind) if field.default is missing and field.default_factory is missing
    )


def _optional(inner: _Reader) -> _Reader:
    return lambda given: None if given is None else inner(given)


def _listed(inner: _Reader, into: Callable[[Any], Any]) -> _Reader:
    return lambda given: into(inner(each) for each in given)


def _as_it_is(given: Any) -> Any:
    return given
