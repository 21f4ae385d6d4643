"""`tracked`: which package a client is of, and so how it is metered."""

import sys
from collections.abc import Callable
from typing import Any, TypeVar

from tallybook.client.client import AsyncTallybook, Tallybook
from tallybook.client.tracking import google, stainless
from tallybook.client.tracking.attribution import Properties, Text
from tallybook.client.tracking.tracker import OnBreak, Terms, Tracker

T = TypeVar("T")
_KINDS: tuple[tuple[str, tuple[str, ...], Callable[[Any, Tracker], Any]], ...] = (
    ("openai", ("OpenAI", "AsyncOpenAI"), stainless.track_openai),
    ("google.genai", ("Client",), google.track_google),
    ("anthropic", ("_base_client.SyncAPIClient", "_base_client.AsyncAPIClient"), stainless.track_anthropic),
)
"""Package, the classes in it whose objects can be tracked, and what tracks them."""


def tracked(
    client: T,
    *,
    tallybook: Tallybook | AsyncTallybook,
    feature: Text = None,
    customer_id: Text = None,
    properties: Properties = None,
    provider: str | None = None,
    gate: bool = False,
    on_break: OnBreak = "drain",
    drain_s: float = 60.0,
    estimate: bool = False,
) -> T:
    """A client that does what `client` does, and meters it. `client` itself is not changed.

    `feature`, `customer_id`, `properties`: a value, a callable that is asked before each call, or left to `attribution()` ·
    `provider`: who owns the models of a server that does not say · `gate`: ask before each call whether the customer's pool pays for it
    · `on_break`: what happens to the rest of a stream that the caller breaks off: `drain` reads it in the background for at most
    `drain_s` seconds, because the usage comes last, `stop` closes it · `estimate`: meter four characters as a token where a provider does
    not say what was used; else that is reported.

    Raises TypeError for a client of a kind that is not known.
    """
    terms = Terms(customer_id, feature, properties, provider, gate, on_break, drain_s, estimate)
    track = _track_of(client)
    if track is None:
        raise TypeError(f"tracked() does not know clients of type {type(client).__module__}.{type(client).__qualname__}")
    return track(client, Tracker(tallybook, terms))


def _track_of(client: object) -> Callable[[Any, Tracker], Any] | None:
    for package, names, track in _KINDS:
        module = sys.modules.get(package)
        if module is not None and any(isinstance(client, _class(module, name)) for name in names):
            return track
    return None


def _class(module: object, path: str) -> type:
    found: Any = module
    for name in path.split("."):
        found = getattr(found, name, None)
    return found if isinstance(found, type) else _Nothing


class _Nothing:
    """Stands for a class that a package does not have."""
