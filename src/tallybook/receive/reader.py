"""Reads the fields of one strictly parsed JSON object and notes, for each broken rule, the field, the value and the rule.

Every reading method returns what it read, or None when the field is absent, null or wrong; a wrong one has been noted then.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from tallybook.core import money
from tallybook.core.errors import FieldError, ValidationError
from tallybook.receive import bounds, quantities, times
from tallybook.receive.strict_json import Number, Object, Value

_SHOWN_MAX: Final = 48
_ERRORS_MAX: Final = 20
_INTEGER: Final = re.compile(r"-?[0-9]{1,20}")
_QUANTITY_RULE: Final = f"a number from 0 to {bounds.UNITS_MAX} with at most {bounds.DECIMALS_MAX} digits after the point"
_MOMENT_RULE: Final = "an ISO 8601 moment with seconds and Z or an offset, such as 2026-01-15T10:00:00Z"
_CODE_RULE: Final = f"1 to {bounds.ID_BYTES_MAX} of the characters a-z, 0-9 and _"


def shown(value: Value) -> str:
    """A value for an error message: as JSON writes it, cut short, and safe to encode whatever the sender put in it."""
    match value:
        case Number(text):
            return text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "…"
        case str():
            text = value if len(value) <= _SHOWN_MAX else value[:_SHOWN_MAX] + "…"
            return json.dumps(text, ensure_ascii=not text.isprintable())
        case Object():
            return "an object"
        case list():
            return "an array"
        case _:
            return json.dumps(value)


class Reader:
    """One object at `path` ("" for the body itself)."""

    def __init__(self, given: Value, path: str = "", errors: list[FieldError] | None = None) -> None:
        """Read `given`, noting into `errors` when a list is passed."""
        self._errors: list[FieldError] = [] if errors is None else errors
        self._path = path
        self._given: Mapping[str, Value] = given if isinstance(given, Object) else {}
        if not isinstance(given, Object):
            self._errors.append(FieldError(path, f"{path or 'the body'}: got {shown(given)}; must be an object"))
        elif given.repeated is not None:
            self.note(given.repeated, "stands twice in the same object; which one is meant?")

    def note(self, name: str, message: str) -> None:
        """Remember a broken rule of the field `name`."""
        if len(self._errors) < _ERRORS_MAX:
            field = self._field(name)
            self._errors.append(FieldError(field, f"{field}: {message}"))

    def refuse(self, name: str, value: Value, rule: str) -> None:
        """Remember that `value` is not what the field `name` must be."""
        self.note(name, f"got {shown(value)}; must be {rule}")

    def raise_errors(self) -> None:
        """Raises ValidationError with everything noted so far, if there is anything."""
        if self._errors:
            raise ValidationError(self._errors)

    def only(self, known: frozenset[str]) -> None:
        """Note every field that is not a known one."""
        for name in self._given:
            if name not in known:
                self.note(name, "is not a field of this request")

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self._given.get(name) is not None

    def value(self, name: str) -> Value:
        """The field as it came."""
        return self._given.get(name)

    def require(self, name: str) -> None:
        """Note the field when it is absent or null."""
        if not self.has(name):
            self.note(name, "is required")

    def inside(self, name: str, given: Value) -> "Reader":
        """A reader of a value within this object, which notes into the same list."""
        return Reader(given, self._field(name), self._errors)

    def printable(self, name: str, bytes_max: int) -> str | None:
        """A text of 1 … `bytes_max` bytes without control characters."""
        rule = f"a string of 1 to {bytes_max} bytes of UTF-8 without control characters"
        return self._string(name, rule, lambda text: bounds.is_printable(text, bytes_max))

    def storable(self, name: str, bytes_max: int) -> str | None:
        """A text of up to `bytes_max` bytes without NUL."""
        rule = f"a string of at most {bytes_max} bytes of UTF-8 without NUL"
        return self._string(name, rule, lambda text: bounds.is_storable(text, bytes_max))

    def code(self, name: str) -> str | None:
        """A feature code."""
        return self._string(name, _CODE_RULE, lambda text: bounds.is_code(text) and 1 <= len(text) <= bounds.ID_BYTES_MAX)

    def choice(self, name: str, choices: Sequence[str]) -> str | None:
        """One of the given texts."""
        return self._string(name, "one of " + ", ".join(choices), lambda text: text in choices)

    def moment(self, name: str) -> int | None:
        """Unix milliseconds of an ISO 8601 text."""
        text = self._string(name, _MOMENT_RULE, lambda text: times.from_text(text) is not None)
        return None if text is None else times.from_text(text)

    def integer(self, name: str, largest: int) -> int | None:
        """An integer 0 … `largest`, written without point and exponent."""
        value = self.value(name)
        if isinstance(value, Number) and _INTEGER.fullmatch(value.text) and 0 <= int(value.text) <= largest:
            return int(value.text)
        if value is not None:
            self.refuse(name, value, f"an integer from 0 to {largest}")
        return None

    def quantity(self, name: str) -> int | None:
        """Nano-units of a decimal number."""
        value = self.value(name)
        nano = quantities.nano_from_text(value.text) if isinstance(value, Number) else None
        if nano is not None and 0 <= nano <= money.QUANTITY_MAX:
            return nano
        if value is not None:
            self.refuse(name, value, _QUANTITY_RULE)
        return None

    def flag(self, name: str) -> bool | None:
        """True or false."""
        value = self.value(name)
        if value is None or isinstance(value, bool):
            return value
        self.refuse(name, value, "true or false")
        return None

    def _field(self, name: str) -> str:
        shown_name = _as_path(name)
        return f"{self._path}.{shown_name}" if self._path else shown_name

    def _string(self, name: str, rule: str, holds: Callable[[str], bool]) -> str | None:
        value = self.value(name)
        if isinstance(value, str) and holds(value):
            return value
        if value is not None:
            self.refuse(name, value, rule)
        return None


def _as_path(key: str) -> str:
    """A key that the sender chose, as part of a field's path: cut short, and quoted if it is not printable."""
    return key if key.isprintable() and 1 <= len(key) <= _SHOWN_MAX else shown(key)
