"""`tracked`: which package a client is of, and so how it is metered."""

import sys
from collections.abc import Mapping
from typing import TypeVar

from tallybook.client.client import AsyncTallybook, Tallybook
from tallybook.client.tracking import langchain, litellm, packages, pydantic_ai, twins
from tallybook.client.tracking.attribution import Properties, Text
from tallybook.client.tracking.packages import Track
from tallybook.client.tracking.tracker import OnBreak, Terms, Tracker

T = TypeVar("T")
_OTHERS: tuple[tuple[str, tuple[str, ...], Track], ...] = (
    ("litellm", ("Router",), litellm.track_router),
    ("pydantic_ai.models", ("Model",), pydantic_ai.track_model),
    ("pydantic_ai.agent", ("Agent",), pydantic_ai.track_agent),
    ("langchain_core.runnables.base", ("RunnableBindingBase",), langchain.track_model),
    ("langchain_core.language_models", ("BaseChatModel",), langchain.track_model),
    ("langchain_core.embeddings", ("Embeddings",), langchain.track_model),
)
"""Package, the classes in it, and what tracks their objects; beside the SDKs in `packages`."""


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
    models: Mapping[str, str] | None = None,
) -> T:
    """A client that does what `client` does, and meters it. `client` itself is not changed.

    `feature`, `customer_id`, `properties`: a value, a callable that is asked before each call, or left to `attribution()` ·
    `provider`: who owns the models of a server that does not say · `gate`: ask before each call whether the customer's pool pays for it
    · `on_break`: what happens to the rest of a stream that the caller breaks off: `drain` reads it in the background for at most
    `drain_s` seconds, because the usage comes last, `stop` closes it · `estimate`: meter four characters as a token where a provider does
    not say what was used; else that is reported · `models`: catalog ids of names that are your own, such as Azure's deployments.

    Raises TypeError for a client of a kind that is not known.
    """
    terms = Terms(customer_id, feature, properties, provider, gate, on_break, drain_s, estimate, models)
    track = packages.track_of_sdk(client) or _track_of(client)
    if track is None:
        raise TypeError(f"tracked() does not know clients of type {type(client).__module__}.{type(client).__qualname__}")
    return track(client, Tracker(tallybook, terms))


def _track_of(client: object) -> Track | None:
    if hasattr(client, "__dict__") and twins.original_of(client) is sys.modules.get("litellm", _ABSENT):
        return litellm.track_module
    for package, paths, track in _OTHERS:
        if packages.is_a(client, package, *paths):
            return track
    return None


_ABSENT = object()
