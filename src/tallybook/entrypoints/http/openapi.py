"""The API's description, OpenAPI 3.1, made from the operations themselves. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from typing import Any, cast

import msgspec

from tallybook.entrypoints.http import error_codes
from tallybook.entrypoints.http.routing import Operation

Json = dict[str, Any]
_REFERENCE = "#/components/schemas/{name}"
_ABOUT = """Usage metering and AI token pricing.

Every request carries an API key in `x-api-key`; the key alone says which organization and mode it is for. Bodies are JSON.

With `commet-version: 2026-07-24` or later, answers are plain objects and lists are `{object: "list", data, hasMore, nextCursor}`;
with an older version or without the header they are wrapped as `{success: true, data, hasMore, nextCursor}`. Errors look the same
for all.

A write with an `Idempotency-Key` happens once: the same key and body get the first answer again for 24 hours.
Unknown fields and unknown query parameters are errors. Every answer carries `x-request-id`."""


def document(operations: Iterable[Operation], base: str) -> Json:
    """The whole description."""
    every = tuple(operations)
    schemas = _schemas(every)
    paths: Json = {}
    for operation in every:
        paths.setdefault(operation.template, {})[operation.method.lower()] = _operation(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Tallybook", "version": _version(), "description": _ABOUT},
        "servers": [{"url": base}],
        "security": [{"apiKey": []}],
        "tags": [{"name": tag} for tag in dict.fromkeys(operation.permission for operation in every)],
        "paths": paths,
        "components": {
            "securitySchemes": {"apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"}},
            "schemas": {**schemas.components, "Error": _ERROR},
            "responses": _error_responses(),
        },
    }


def _version() -> str:
    try:
        return metadata.version("tallybook")
    except metadata.PackageNotFoundError:  # run from a checkout that was not installed
        return "development"


class _Schemas:
    """Schemas of all Structs, with `livemode` added where the frame adds it."""

    def __init__(self, types: Sequence[type]) -> None:
        references, self.components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
        self._by_type = dict(zip(types, references, strict=True))
        for shape in self.components.values():
            properties = shape.get("properties", {})
            if "object" in properties and "default" in properties["object"]:
                properties["object"] = {"const": properties["object"]["default"]}
                properties.setdefault("livemode", {"type": "boolean"})

    def of(self, shape: type | None) -> Json:
        """A reference to a type's schema; null for no type."""
        return {"type": "null"} if shape is None else self._by_type[shape]


def _schemas(operations: Sequence[Operation]) -> _Schemas:
    types = [shape for one in operations for shape in (one.body, one.query, one.returns) if shape is not None]
    return _Schemas(tuple(dict.fromkeys(types)))


def _operation(operation: Operation, schemas: _Schemas) -> Json:
    described: Json = {
        "operationId": operation.id,
        "summary": operation.summary,
        "tags": [operation.permission],
        "parameters": [*_path_parameters(operation), *_query_parameters(operation, schemas), *_header_parameters(operation)],
        "responses": {str(operation.status): _answer(operation, schemas), **_errors(operation)},
        "x-permission": f"{operation.permission}: {'write' if operation.writes else 'read'}",
    }
    if operation.body is not None:
        content: Json = {"schema": schemas.of(operation.body)}
        if operation.example is not None:
            content["example"] = dict(operation.example)
        described["requestBody"] = {"required": True, "content": {"application/json": content}}
    return described


def _path_parameters(operation: Operation) -> list[Json]:
    schema = {"type": "string", "minLength": 1, "maxLength": 256}
    return [{"name": name, "in": "path", "required": True, "schema": schema} for name in operation.path_parameters]


def _query_parameters(operation: Operation, schemas: _Schemas) -> list[Json]:
    if operation.query is None:
        return []
    name = cast("str", schemas.of(operation.query)["$ref"]).rsplit("/", 1)[-1]
    shape = schemas.components[name]
    required = shape.get("required", [])
    return [
        {"name": field, "in": "query", "required": field in required, "schema": schema}
        for field, schema in shape["properties"].items()
    ]


def _header_parameters(operation: Operation) -> list[Json]:
    headers: list[Json] = [
        {"name": "commet-version", "in": "header", "required": False, "schema": {"type": "string", "format": "date"}}
    ]
    if operation.writes:
        key_schema = {"type": "string", "minLength": 1, "maxLength": 256, "pattern": "^[ -~]+$"}
        headers.append({"name": "Idempotency-Key", "in": "header", "required": False, "schema": key_schema})
    return headers


def _answer(operation: Operation, schemas: _Schemas) -> Json:
    item = schemas.of(operation.returns) if operation.returns is not None else {}
    item = {"anyOf": [item, {"type": "null"}]} if operation.nullable else item
    more: Json = {"hasMore": {"type": "boolean"}, "nextCursor": {"type": ["string", "null"]}} if operation.is_list else {}
    data = {"type": "array", "items": item} if operation.is_list else item
    plain = _object({"object": {"const": "list"}, "data": data, **more}) if operation.is_list else item
    enveloped = _object({"success": {"const": True}, "data": data, **more})
    return {
        "description": "Done.",
        "headers": {"x-request-id": {"schema": {"type": "string"}}},
        "content": {"application/json": {"schema": {"anyOf": [plain, enveloped]}}},
    }


def _object(properties: Mapping[str, object]) -> Json:
    return {"type": "object", "properties": dict(properties), "required": list(properties)}


def _errors(operation: Operation) -> Json:
    statuses = {400, 401, 403, 404, 413, 429, 500, 503, *operation.refusals}
    statuses |= {409} if operation.writes else set()
    statuses |= {402} if operation.hot else set()
    return {str(status): {"$ref": f"#/components/responses/Error{status}"} for status in sorted(statuses)}


def _error_responses() -> Json:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {
        f"Error{status}": {
            "description": meaning,
            "headers": {"x-request-id": {"schema": {"type": "string"}}},
            "content": content,
        }
        for status, meaning in error_codes.STATUSES.items()
    }


_ERROR: Json = _object(
    {
        "success": {"const": False},
        "error": _object(
            {
                "type": {"type": "string"},
                "code": {"type": "string"},
                "message": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "details": {},
                "doc_url": {"type": "string"},
            }
        ),
    }
)
