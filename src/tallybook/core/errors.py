"""The one error tree. Everything a caller can be told is a `TallybookError` with a stable code and an HTTP status.

TallybookError
├── ValidationError 400      ├── Unauthorized 401      ├── BillingError 402
├── Forbidden 403            ├── NotFound 404          ├── Conflict 409
├── PayloadTooLarge 413      ├── RateLimited 429       └── Unavailable 503
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class FieldError:
    """One broken rule: the field as the caller wrote it, and a message that names value and rule."""

    field: str
    message: str


class TallybookError(Exception):
    """What a caller is told. `code` is stable, `param` names the field, `details` is JSON-serializable."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "internal_error"

    def __init__(self, code: str, message: str, *, param: str | None = None, details: object = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
        self.details = details


class ValidationError(TallybookError):
    """The request breaks a rule; sending it again unchanged cannot succeed."""

    status = 400
    type = "validation_error"

    def __init__(self, errors: Sequence[FieldError], *, code: str = "validation_error") -> None:
        first = errors[0]
        details = [{"field": error.field, "message": error.message} for error in errors]
        super().__init__(code, first.message, param=first.field or None, details=details)


class Unauthorized(TallybookError):
    """No valid API key came with the request."""

    status = 401
    type = "authentication_error"


class BillingError(TallybookError):
    """The customer's pool or limit does not allow it; nothing was recorded and the same event id may be sent again."""

    status = 402
    type = "billing_error"


class Forbidden(TallybookError):
    """The key is valid and may not do this."""

    status = 403
    type = "authentication_error"


class NotFound(TallybookError):
    """The object does not exist in this organization and mode."""

    status = 404
    type = "not_found_error"


class Conflict(TallybookError):
    """The request contradicts something recorded before."""

    status = 409
    type = "conflict_error"


class PayloadTooLarge(TallybookError):
    """The body is larger than the route takes."""

    status = 413
    type = "validation_error"


class RateLimited(TallybookError):
    """Too much at once; wait `retry_after_s` and send the same again."""

    status = 429
    type = "rate_limit_error"

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__("rate_limited", message)
        self.retry_after_s = retry_after_s


class Unavailable(TallybookError):
    """Not done, or not known to be done: send the same ids again after `retry_after_s`."""

    status = 503
    type = "internal_error"

    def __init__(self, code: str, message: str, *, retry_after_s: int = 1, details: object = None) -> None:
        super().__init__(code, message, details=details)
        self.retry_after_s = retry_after_s


def invalid(field: str, message: str, *, code: str = "validation_error") -> ValidationError:
    """A `ValidationError` for one field."""
    return ValidationError([FieldError(field, message)], code=code)
