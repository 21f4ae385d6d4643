"""Bodies, queries and path parameters into typed values, or an error that names the field, the value and the rule. Pure.

A body is read twice: once strictly as JSON, where everything is refused that two readers could understand differently or the book
can't store (duplicate keys, NaN, NUL, half surrogates, numbers without end), then typed and exact by msgspec.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Any, cast

import msgspec

from tallybook.core import errors

DEPTH_MAX = 32
PATH_PARAMETER_CHARACTERS_MAX = 256
_NUMBER_CHARACTERS_MAX = 40
_EXPONENT_MAX = 30
_INTEGER_MAX = 2**63
_SHOWN_CHARACTERS_MAX = 64
_EMPTY = frozenset({b"", b"{}", b"null"})
_JSON_BLANKS = b" \t\r\n"
_AT = re.compile(r" - at `\$\.?(.*)`$", re.DOTALL)
_FIELD_IN_MESSAGE = re.compile(r"^Object (?:contains unknown|missing required) field `(.*)`$", re.DOTALL)
_STEP = re.compile(r"\[(\d+)\]|([^.\[\]]+)")


@dataclass(frozen=True, slots=True)
class _Broken:
    """Stands in the parsed tree where something is that JSON allows and we don't; `where` adds to the path."""

    rule: str
    where: str = ""


def body(raw: bytes, shape: type[msgspec.Struct] | None) -> Any:  # noqa: ANN401 - an instance of `shape`
    """The typed body; None when the operation takes none. An absent body counts as `{}`. Raises ValidationError."""
    if shape is None:
        if raw.strip(_JSON_BLANKS) not in _EMPTY:
            raise errors.invalid("", "This operation takes no body.")
        return None
    raw = raw.strip(_JSON_BLANKS) or b"{}"
    tree = strict_json(raw)
    try:
        return _decoder(shape).decode(raw)
    except msgspec.ValidationError as error:
        raise _explain(error, tree) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _not_json(str(error)) from error


def query(sent: Sequence[tuple[str, str]], shape: type[msgspec.Struct] | None) -> Any:  # noqa: ANN401 - an instance of `shape`
    """The typed query; None when the operation takes none. Parameters must be known and there once. Raises ValidationError."""
    values: dict[str, str] = {}
    for name, value in sent:
        if name in values:
            raise errors.invalid(_shown_name(name), f"Query parameter {_shown_name(name)} is there twice.")
        if (reason := _unstorable(value)) is not None:
            raise errors.invalid(_shown_name(name), f"Query parameter {_shown_name(name)} holds {reason}.")
        values[name] = value
    if shape is None:
        for name in values:
            raise errors.invalid(_shown_name(name), f"Unknown query parameter {_shown_name(name)}; this operation takes none.")
        return None
    try:
        return msgspec.convert(values, shape, strict=False)
    except msgspec.ValidationError as error:
        raise _explain(error, values) from error


def path(parameters: Mapping[str, str]) -> Mapping[str, str]:
    """The path parameters themselves. Raises ValidationError for one that no object could have as its id."""
    for name, value in parameters.items():
        if not value or len(value) > PATH_PARAMETER_CHARACTERS_MAX or not value.isprintable():
            message = f"{name} in the path must be 1 to {PATH_PARAMETER_CHARACTERS_MAX} printable characters."
            raise errors.invalid(name, message)
    return parameters


def strict_json(raw: bytes) -> object:
    """The parsed body. Raises ValidationError: `invalid_json` when it is no JSON, else with the path of what is refused."""
    try:
        tree: object = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_pairs,
            parse_int=_integer,
            parse_float=_number,
            parse_constant=lambda name: _Broken(f"{name} is not a number in JSON"),
        )
    except (ValueError, RecursionError) as error:
        raise _not_json(str(error)) from error
    for where, rule in _refused(tree, "", 0):
        raise errors.invalid(where, f"{where or 'body'}: {rule}.")
    return tree


def canonical(tree: object) -> bytes:
    """Bytes that are the same for bodies that mean the same, whatever the order of keys and the zeros at a number's end."""
    return json.dumps(tree, sort_keys=True, separators=(",", ":"), default=lambda number: f"\0{number.normalize()}").encode()


def _pairs(pairs: list[tuple[str, object]]) -> object:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    seen: set[str] = set()
    for name, _value in pairs:
        if name in seen:
            return _Broken("the key is there twice", _shown_name(name))
        seen.add(name)
    return found


def _integer(text: str) -> object:
    if len(text) > _NUMBER_CHARACTERS_MAX or not -_INTEGER_MAX <= int(text) < _INTEGER_MAX:
        return _Broken(f"{_shorten(text)} does not fit into 64 bits")
    return int(text)


def _number(text: str) -> object:
    exponent = text.lower().partition("e")[2]
    if len(text) > _NUMBER_CHARACTERS_MAX or abs(int(exponent or 0)) > _EXPONENT_MAX:
        return _Broken(
            f"{_shorten(text)} is out of range: at most {_NUMBER_CHARACTERS_MAX} characters, exponents within ±{_EXPONENT_MAX}"
        )
    return Decimal(text)


def _refused(node: object, where: str, depth: int) -> Iterator[tuple[str, str]]:
    if depth > DEPTH_MAX:
        yield where, f"nested more than {DEPTH_MAX} deep"
    elif isinstance(node, _Broken):
        yield _join(where, node.where), node.rule
    elif isinstance(node, str):
        if (reason := _unstorable(node)) is not None:
            yield where, f"holds {reason}"
    elif isinstance(node, dict):
        for name, value in cast("dict[str, object]", node).items():
            if _unstorable(name) is not None:
                yield where, "has a key with a NUL character or half a surrogate pair"
            yield from _refused(value, _join(where, _shown_name(name)), depth + 1)
    elif isinstance(node, list):
        for index, value in enumerate(cast("list[object]", node)):
            yield from _refused(value, f"{where}[{index}]", depth + 1)


def _unstorable(text: str) -> str | None:
    if "\0" in text:
        return "a NUL character"
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        return "half a surrogate pair"
    return None


def _explain(error: msgspec.ValidationError, sent: object) -> errors.ValidationError:
    message = str(error)
    at = _AT.search(message)
    where, rule = (at[1], message[: at.start()]) if at else ("", message)
    where = where.replace("[...]", "")
    field = _FIELD_IN_MESSAGE.match(rule)
    if field:
        name = _join(where, _shown_name(field[1]))
        problem = "is required" if "missing" in rule else "is not a field of this request"
        return errors.invalid(name, f"{name} {problem}.")
    rule = rule[:1].lower() + rule[1:]
    return errors.invalid(where, f"{where or 'body'}: {rule}{_as_sent(sent, where)}.")


def _as_sent(tree: object, where: str) -> str:
    for index, name in _STEP.findall(where):
        if isinstance(tree, list) and index and int(index) < len(cast("list[object]", tree)):
            tree = cast("list[object]", tree)[int(index)]
        elif isinstance(tree, dict) and name in tree:
            tree = cast("dict[str, object]", tree)[name]
        else:
            return ""
    if isinstance(tree, dict | list):
        return ""
    return f"; sent was {_shorten(json.dumps(tree, ensure_ascii=False, default=str))}"


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where and name else where or name


def _shown_name(name: str) -> str:
    return _shorten(name) if name.isprintable() else _shorten(ascii(name))


def _shorten(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS_MAX else text[: _SHOWN_CHARACTERS_MAX - 1] + "…"


def _not_json(reason: str) -> errors.ValidationError:
    return errors.ValidationError([errors.FieldError("", f"The body is not valid JSON: {reason}.")], code="invalid_json")


@cache
def _decoder(shape: type[msgspec.Struct]) -> msgspec.json.Decoder[msgspec.Struct]:
    return msgspec.json.Decoder(shape)
