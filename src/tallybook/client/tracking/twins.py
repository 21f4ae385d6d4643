"""A tracked client is a twin of the caller's: the same class and state, with some methods of its own; the original is as it was."""

import copy
import functools
from typing import Any, TypeVar, cast

T = TypeVar("T")
_MARK = "_tallybook_original"


def twin(original: T) -> T:
    """A shallow copy that forgets what was made lazily from the original, such as the resources of an SDK's client.

    The twin of a twin is one of the original, so that a client tracked twice is metered once, as the outer one says.
    """
    source = original_of(original)
    made = copy.copy(source)
    for kind in type(source).__mro__:
        for name, member in vars(kind).items():
            if isinstance(member, functools.cached_property):
                made.__dict__.pop(name, None)
    object.__setattr__(made, _MARK, source)
    return made


def state(value: object) -> dict[str, Any]:
    """What an object holds by name, as it is now."""
    return dict(vars(value))


def original_of(client: T) -> T:
    """The client that a twin was made of; any other client itself."""
    return vars(client).get(_MARK, client)


def override(client: Any, /, **methods: Any) -> None:
    """Give one object methods of its own, whatever its class thinks of new attributes."""
    for name, method in methods.items():
        object.__setattr__(client, name, method)


def without_finalizer(client: Any) -> None:
    """Keep a twin from closing, when it is forgotten, what its original still uses. Its class keeps its name."""
    kind = cast("type[object]", type(client))
    client.__class__ = type(
        kind.__name__, (kind,), {"__del__": _nothing, "__module__": kind.__module__, "__qualname__": kind.__qualname__}
    )


def _nothing(_client: object) -> None:
    """The original closes."""
