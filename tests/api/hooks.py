"""What schemathesis loads in its own process: generated names become, about every other time, names of things that exist.

`TALLYBOOK_KNOWN` is a JSON file of ids by collection, and `TALLYBOOK_OWN_KEY` the id of the key that the requests carry, which they
must not delete.
"""

# pyright: reportMissingTypeArgument=false, reportUnknownMemberType=false, reportUnknownParameterType=false
# pyright: reportUnknownVariableType=false
# schemathesis leaves open what a case's parts are made of.

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast
from zlib import crc32

import schemathesis
from schemathesis import Case, GenerationMode, HookContext

_KNOWN: Mapping[str, Sequence[str]] = json.loads(Path(os.environ["TALLYBOOK_KNOWN"]).read_text(encoding="utf-8"))
_OWN_KEY = os.environ["TALLYBOOK_OWN_KEY"]
_STATEFUL = "stateful"
_IN_PATH = re.compile(r"/([a-z-]+)/\{(\w+)\}")
_COLLECTIONS = {
    "customerId": "customers",
    "featureCode": "features",
    "featureId": "features",
    "planCode": "plans",
    "planId": "plans",
    "subscriptionId": "subscriptions",
    "model": "ai-models",
}


@schemathesis.hook
def map_case(context: HookContext, case: Case) -> Case:
    """Names in path, query and body, unless the case is meant to be wrong.

    Where a case follows from another one, its path names what that one made.
    """
    del context
    if case.meta is not None and case.meta.generation.mode == GenerationMode.NEGATIVE:
        return case
    if case.meta is None or case.meta.phase.name != _STATEFUL:
        _replace(case.path_parameters, {name: collection for collection, name in _IN_PATH.findall(case.path)})
    _replace(case.query, _COLLECTIONS)
    if isinstance(case.body, dict):
        body = cast("dict[str, Any]", case.body)
        _replace(body, _COLLECTIONS)
        for event in body.get("events") or []:
            _replace(event, _COLLECTIONS)
    return case


@schemathesis.hook
def before_call(context: HookContext, case: Case, kwargs: dict[str, Any]) -> None:
    """The key that is used stays."""
    del context, kwargs
    if case.path_parameters.get("id") == _OWN_KEY:
        case.path_parameters["id"] = "key_of_nobody"


def _replace(named: Any, collections: Mapping[str, str]) -> None:  # noqa: ANN401 - whatever was generated
    """The same value always becomes the same, so that a case that is sent again is the same case."""
    if not isinstance(named, dict):
        return
    values = cast("dict[str, Any]", named)
    for name, collection in collections.items():
        known = _KNOWN.get(collection, ())
        if not isinstance(values.get(name), str) or not known:
            continue
        number = crc32(repr(values).encode()) % (2 * len(known))
        if number < len(known):
            values[name] = known[number]
