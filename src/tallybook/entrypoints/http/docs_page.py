"""`/docs`: the API's description as one readable page, made from the same document as openapi.json. Pure."""

import json
from collections.abc import Iterator, Mapping
from html import escape
from importlib import resources
from typing import Any, cast

from tallybook.entrypoints.http import error_codes

CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = resources.files("tallybook.entrypoints.http").joinpath("docs_page.css").read_text(encoding="utf-8")

_DEPTH_MAX = 3

Json = Mapping[str, Any]


def render(document: Json) -> str:
    """The page."""
    sections = dict.fromkeys(tag["name"] for tag in document["tags"])
    base = document["servers"][0]["url"]
    links = "".join(f'<a href="#{escape(tag)}">{_title(tag)}</a>' for tag in sections)
    body = "".join(_section(document, tag, base) for tag in sections)
    about = "".join(f"<p>{_code(part)}</p>" for part in document["info"]["description"].split("\n\n"))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Tallybook API</title><style>{_STYLE}</style></head><body>"
        f'<nav><strong>Tallybook</strong>{links}<a href="#errors">Errors</a></nav><main>'
        f'<h1>Tallybook API</h1><p class="quiet">Version {escape(document["info"]["version"])} · '
        f'<a href="{escape(base)}/openapi.json">openapi.json</a></p>{about}{body}{_errors()}</main></body></html>'
    )


def _section(document: Json, tag: str, base: str) -> str:
    operations = "".join(
        _operation(document, base + path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if tag in operation["tags"]
    )
    return f'<section id="{escape(tag)}"><h2>{_title(tag)}</h2>{operations}</section>'


def _operation(document: Json, path: str, method: str, operation: Json) -> str:
    parts = [
        f'<p class="quiet">Permission <code>{escape(operation["x-permission"])}</code></p>',
        _table("Parameters", _parameters(operation)),
    ]
    if "requestBody" in operation:
        content = operation["requestBody"]["content"]["application/json"]
        parts.append(_table("Body", _fields(document, content["schema"], sent=True)))
        if "example" in content:
            parts.append(f"<pre>{escape(json.dumps(content['example'], indent=2))}</pre>")
    parts.append(_table("Answer", _fields(document, _plain_answer(operation), sent=False)))
    return (
        f'<details id="{escape(operation["operationId"])}"><summary>'
        f'<span class="method {escape(method)}">{escape(method.upper())}</span>'
        f'<code class="path">{escape(path)}</code><span class="summary">{escape(operation["summary"])}</span></summary>'
        f"{''.join(parts)}</details>"
    )


def _parameters(operation: Json) -> Iterator[tuple[str, str, str]]:
    for parameter in operation["parameters"]:
        if parameter["in"] == "header":
            continue
        kind = _kind(parameter["schema"]) + (" · required" if parameter["required"] else "")
        yield parameter["name"], kind, parameter["schema"].get("description", f"in the {parameter['in']}")


def _plain_answer(operation: Json) -> Json:
    [answer] = [answer for status, answer in operation["responses"].items() if status.startswith("2")]
    schema: Json = answer["content"]["application/json"]["schema"]["anyOf"][0]
    return schema


def _fields(document: Json, schema: Json, *, sent: bool, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, str, str]]:
    """Rows of an object's fields, those of objects inside it with their path."""
    shape = _resolve(document, schema)
    if shape.get("properties", {}).get("object") == {"const": "list"}:
        shape = _resolve(document, shape["properties"]["data"]["items"])
    required: list[str] = shape.get("required", []) if sent else []
    for name, field in shape.get("properties", {}).items():
        yield prefix + name, _kind(field) + (" · required" if name in required else ""), _bounds(field)
        for path, inner in _inside(field, prefix + name):
            if depth < _DEPTH_MAX:
                yield from _fields(document, inner, sent=sent, prefix=f"{path}.", depth=depth + 1)


def _inside(field: Json, path: str) -> Iterator[tuple[str, Json]]:
    """Objects that a field holds: itself, one of several shapes, or the items of a list."""
    if "$ref" in field:
        yield path, field
    for choice in field.get("anyOf", []):
        yield from _inside(choice, path)
    if field.get("type") == "array":
        yield from _inside(field.get("items", {}), f"{path}[]")


def _resolve(document: Json, schema: Json) -> Json:
    if "$ref" not in schema:
        return schema
    found: Json = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[-1]]
    return found


def _kind(schema: Json) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1]
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema or "anyOf" in schema:
        return " | ".join([*map(json.dumps, schema.get("enum", [])), *map(_kind, schema.get("anyOf", []))])
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_kind(schema['additionalProperties'])}"
    return str(schema.get("type", "any"))


def _bounds(schema: Json) -> str:
    choices = cast("list[Json]", schema.get("anyOf", [schema]))
    words = [str(found["description"]) for found in (schema, *choices) if "description" in found][:1]
    names = {
        "minimum": "at least",
        "maximum": "at most",
        "minLength": "length at least",
        "maxLength": "length at most",
        "pattern": "like",
    }
    words += [f"{word} {choice[name]}" for choice in choices for name, word in names.items() if name in choice]
    default = schema.get("default")
    if default is not None:
        words.append(f"default {json.dumps(default)}")
    return ", ".join(words)


def _table(title: str, rows: Iterator[tuple[str, str, str]]) -> str:
    body = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(kind)}</td><td>{escape(note)}</td></tr>"
        for name, kind, note in rows
    )
    return f"<h4>{title}</h4><div class=wide><table>{body}</table></div>" if body else ""


def _errors() -> str:
    statuses = "".join(f"<tr><td>{status}</td><td>{_code(meaning)}</td></tr>" for status, meaning in error_codes.STATUSES.items())
    codes = "".join(
        f'<tr id="error-{code}"><td><code>{code}</code></td><td>{_code(meaning)}</td></tr>'
        for code, meaning in error_codes.CODES.items()
    )
    return (
        '<section id="errors"><h2>Errors</h2><p>'
        + _code("An error is `{success: false, error: {type, code, message, param, details, doc_url}}`. Act on `code`.")
        + f"</p><div class=wide><table>{statuses}</table></div><div class=wide><table>{codes}</table></div></section>"
    )


def _code(text: str) -> str:
    """Escaped text, with what stands between backticks as code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if place % 2 else part for place, part in enumerate(parts))


def _title(tag: str) -> str:
    return escape(tag.replace("_", " ").capitalize().replace("Ai ", "AI ").replace("Api ", "API "))
