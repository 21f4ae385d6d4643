"""Lists on the wire."""

from collections.abc import Callable
from typing import Any, TypeVar

from tallybook.client import decoding
from tallybook.client.models import ListOf

T = TypeVar("T")


def page(kind: type[T]) -> Callable[[Any], ListOf[T]]:
    """Reads one page of a list."""

    def read(given: Any) -> ListOf[T]:
        return ListOf([decoding.read(kind, each) for each in given["data"]], given.get("hasMore", False), given.get("nextCursor"))

    return read
