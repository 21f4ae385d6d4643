"""Which clients of SDKs can be tracked, by the packages that are loaded. Nothing is imported: a client's package is loaded already."""

import sys
from collections.abc import Callable
from typing import Any

from tallybook.client.tracking import google, stainless
from tallybook.client.tracking.tracker import Tracker

Track = Callable[[Any, Tracker], Any]
_SDKS: tuple[tuple[str, tuple[str, ...], Track], ...] = (
    ("openai", ("OpenAI", "AsyncOpenAI"), stainless.track_openai),
    ("anthropic", ("_base_client.SyncAPIClient", "_base_client.AsyncAPIClient"), stainless.track_anthropic),
    ("google.genai", ("Client",), google.track_google),
)
"""Package, the classes in it, and what tracks their objects."""


def is_a(value: object, package: str, *paths: str) -> bool:
    """Whether a value is of a class of a package that is loaded."""
    module = sys.modules.get(package)
    return module is not None and any(
        isinstance(value, kind) for kind in (_class(module, path) for path in paths) if kind is not None
    )


def _class(module: object, path: str) -> type | None:
    found: Any = module
    for name in path.split("."):
        found = getattr(found, name, None)
    return found if isinstance(found, type) else None


def track_of_sdk(client: object) -> Track | None:
    """What tracks a client of an SDK; None for everything else."""
    for package, paths, track in _SDKS:
        if is_a(client, package, *paths):
            return track
    return None
