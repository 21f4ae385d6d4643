"""One batch on the wire: the request, and what its answer says about each event."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast
from uuid import uuid4

import httpx

from tallybook.client import errors, transport
from tallybook.client.meter import event

PATH: Final = "/api/v1/usage/events/batch"
_OK: Final = 200
_TOO_LARGE: Final = 413
_BAD_REQUEST: Final = 400
_RECORDED: Final = ("accepted", "duplicate")


@dataclass(frozen=True, slots=True)
class Shipment:
    """Events in one request. The key stays the same however often it is sent."""

    payloads: Sequence[bytes]
    key: str = field(default_factory=lambda: f"tb-{uuid4().hex}")

    def body(self) -> bytes:
        """The request's body."""
        return b'{"events":[' + b",".join(self.payloads) + b"]}"

    def headers(self, to: transport.Address) -> dict[str, str]:
        """The request's headers."""
        return {**to.headers(), "Idempotency-Key": self.key}

    def halves(self) -> tuple["Shipment", "Shipment"]:
        """The same events in two requests."""
        middle = len(self.payloads) // 2
        return Shipment(self.payloads[:middle]), Shipment(self.payloads[middle:])


@dataclass(frozen=True, slots=True)
class RefusedEvent:
    """An event that the service will not record as it is: the event as it was sent, and why."""

    event: dict[str, Any]
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Delivered:
    """The service decided about every event. Those in `again` it wants once more, later."""

    accepted: int
    duplicates: int
    refused: Sequence[RefusedEvent] = ()
    again: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """Nothing is known about the events: they are sent again, after `retry_after_s` if the service named a time."""

    error: errors.TallybookError
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class Split:
    """The request was not understood as a whole: its halves are sent by themselves, so that one event never costs another."""


Outcome = Delivered | Failed | Split


def outcome(shipment: Shipment, answer: httpx.Response | httpx.TransportError, url: str) -> Outcome:
    """What became of a shipment."""
    if isinstance(answer, httpx.TransportError):
        return Failed(transport.lost(answer, url))
    if answer.status_code == _OK:
        return _results(shipment, answer, url)
    failure = transport.failure(answer)
    if answer.status_code in (_BAD_REQUEST, _TOO_LARGE):
        if len(shipment.payloads) > 1:
            return Split()
        return Delivered(0, 0, [_refused(shipment.payloads[0], failure.code, failure.args[0])])
    # A wrong key (401, 403) or address (404) is for the operator to set right; the events wait for it.
    return Failed(failure, failure.retry_after_s)


def _results(shipment: Shipment, answer: httpx.Response, url: str) -> Outcome:
    body = transport.json_of(answer)
    results = cast("dict[str, Any]", body).get("results") if isinstance(body, dict) else None
    if not isinstance(results, list) or len(cast("list[Any]", results)) != len(shipment.payloads):
        return Failed(
            errors.ServiceError(answer.status_code, {"code": "bad_answer", "message": f"{url} did not answer as Tallybook does"})
        )
    statuses = [str(each["status"]) for each in cast("list[dict[str, Any]]", results)]
    pairs = list(zip(shipment.payloads, cast("list[dict[str, Any]]", results), statuses, strict=True))
    return Delivered(
        accepted=statuses.count("accepted"),
        duplicates=statuses.count("duplicate"),
        refused=[_why(payload, result) for payload, result, status in pairs if status not in (*_RECORDED, "retry")],
        again=[payload for payload, _, status in pairs if status == "retry"],
    )


def _why(payload: bytes, result: dict[str, Any]) -> RefusedEvent:
    error = cast("dict[str, Any]", result.get("error") or {})
    return _refused(payload, str(error.get("code", result["status"])), str(error.get("message", "")))


def _refused(payload: bytes, code: str, message: object) -> RefusedEvent:
    return RefusedEvent(event.read(payload), code, str(message))
