"""The API's resources, one module each."""

from types import ModuleType

from tallybook.entrypoints.http.resources import api_keys

MODULES: tuple[ModuleType, ...] = (api_keys,)
