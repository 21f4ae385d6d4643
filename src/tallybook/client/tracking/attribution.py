"""Who pays for a call, and as what: from the context, else from the arguments of `tracked`, which may be callables."""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

Text = str | Callable[[], str | None] | None
Properties = Mapping[str, str] | Callable[[], Mapping[str, str] | None] | None


class Attribution(NamedTuple):
    """The customer and the feature of a call, and what else its event says."""

    customer_id: str | None = None
    feature: str | None = None
    properties: Mapping[str, str] | None = None


_NOBODY = Attribution()
_in_context: ContextVar[Attribution] = ContextVar("tallybook_attribution", default=_NOBODY)


@contextmanager
def attribution(
    *, customer_id: str | None = None, feature: str | None = None, properties: Mapping[str, str] | None = None
) -> Generator[None]:
    """Tracked calls inside this block are paid for by this customer, as this feature; it wins over the arguments of `tracked`.

    Blocks can be nested: what the inner one does not name holds from the outer one; properties are merged.
    """
    outer = _in_context.get()
    merged = {**(outer.properties or {}), **(properties or {})}
    inner = Attribution(customer_id or outer.customer_id, feature or outer.feature, merged or None)
    token = _in_context.set(inner)
    try:
        yield
    finally:
        _in_context.reset(token)


def resolve(customer_id: Text, feature: Text, properties: Properties) -> Attribution:
    """The attribution of a call that is made now. Raises what the callables raise."""
    context = _in_context.get()
    given = properties() if callable(properties) else properties
    return Attribution(
        context.customer_id or (customer_id() if callable(customer_id) else customer_id),
        context.feature or (feature() if callable(feature) else feature),
        {**(given or {}), **context.properties} if context.properties else given,
    )
