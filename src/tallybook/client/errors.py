"""What can go wrong, as a caller of the client sees it.

TallybookError
├── APIError                  the service said no: status, code, message, param, details, request id
│   ├── ValidationError       400, 413   the request breaks a rule
│   ├── Unauthorized          401        no valid API key
│   ├── Refused               402        the customer's balance, credits or limit does not allow it
│   ├── Forbidden             403        the key may not do this
│   ├── NotFound              404        there is no such object (or model)
│   ├── Conflict              409        it contradicts what was recorded before
│   │   └── Duplicate         409        the event was recorded before; `details` is the original
│   ├── RateLimited           429        too much at once; `retry_after_s`
│   └── ServiceError          5xx        not done, or not known to be done
├── ConnectionFailed          no answer: refused, reset, timed out
├── QueueFull                 the meter took no more events and its policy is to raise
└── GateClosed                a tracked call was not made, because what it costs would not be paid for
"""

from collections.abc import Mapping
from typing import Any, cast


class TallybookError(Exception):
    """The root of everything this client raises on purpose."""


class ConnectionFailed(TallybookError):
    """No answer came, after all retries. What was sent may have been done; the same ids can be sent again."""


class QueueFull(TallybookError):
    """The meter is full and was told to raise when it is."""


class APIError(TallybookError):
    """The service answered with an error."""

    def __init__(
        self, status: int, error: Mapping[str, Any], *, request_id: str | None = None, retry_after_s: float | None = None
    ) -> None:
        """`error` is the error object of the response."""
        super().__init__(str(error.get("message") or f"the service answered with status {status}"))
        self.status = status
        self.code = str(error.get("code") or "unknown")
        self.type = str(error.get("type") or "api_error")
        self.param = cast("str | None", error.get("param"))
        self.details: Any = error.get("details")
        self.doc_url = cast("str | None", error.get("doc_url"))
        self.request_id = request_id
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        """The code, the message and the request id that finds it in the logs."""
        named = f" (request {self.request_id})" if self.request_id else ""
        return f"{self.code}: {self.args[0]}{named}"


class ValidationError(APIError):
    """The request breaks a rule; `param` is the first field, `details` lists all."""


class Unauthorized(APIError):
    """The API key is missing, malformed, unknown, expired or revoked."""


class Refused(APIError):
    """The customer's pool or limit does not allow it. Nothing was recorded; the same event id can be sent after a top-up."""


class Forbidden(APIError):
    """The API key is valid and may not do this."""


class NotFound(APIError):
    """There is no such object, subscription or model."""


class Conflict(APIError):
    """The request contradicts something that was recorded before."""


class Duplicate(Conflict):
    """An event with this id was recorded before; `details` is the original event."""


class RateLimited(APIError):
    """Too much at once; wait `retry_after_s`."""


class ServiceError(APIError):
    """Not done, or not known to be done. Sending the same ids again counts nothing twice."""


class GateClosed(TallybookError):
    """A gated call was not made. `code` says why, for example `insufficient_balance` or `model_not_found`."""

    def __init__(self, code: str, message: str, *, customer_id: str | None, feature: str | None) -> None:
        """Keeps what the application needs to tell its user."""
        super().__init__(message)
        self.code = code
        self.customer_id = customer_id
        self.feature = feature

    def __str__(self) -> str:
        """Who was stopped, and why."""
        return f"the call was not made for customer {self.customer_id} ({self.feature}): {self.code}: {self.args[0]}"


_BY_STATUS: dict[int, type[APIError]] = {
    400: ValidationError,
    401: Unauthorized,
    402: Refused,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: ValidationError,
    422: ValidationError,
    429: RateLimited,
}


def _object(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def from_answer(status: int, body: object, *, request_id: str | None = None, retry_after_s: float | None = None) -> APIError:
    """The error that an answer with a status of 400 or more means, whatever its body is."""
    answer = _object(body)
    error = _object(answer.get("error")) or answer
    kind = _BY_STATUS.get(status, ServiceError if status >= 500 else APIError)  # noqa: PLR2004 - the classes of HTTP
    if error.get("code") == "duplicate":
        kind = Duplicate
    return kind(status, error, request_id=request_id, retry_after_s=retry_after_s)
