"""A started Tallybook as its users see it: a URL, a key, and HTTP."""

import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

PLAIN_VERSION = "2026-08-27"
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Service:
    """Where it answers, and its stores for tests that look behind the counter."""

    url: str
    postgres_url: str
    redis_url: str
    http: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=60.0, verify=False))  # noqa: S501 - plain http on loopback

    def close(self) -> None:
        """Close its connections."""
        self.http.close()


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers and JSON body of a response."""

    status: int
    body: Any
    headers: Mapping[str, str]

    @property
    def error(self) -> Json:
        """The error object of a refused request."""
        assert self.body["success"] is False, self.body
        return self.body["error"]


@dataclass(frozen=True, slots=True)
class Account:
    """One organization and its key."""

    service: Service
    organization_id: str
    key: str

    def call(
        self, method: str, path: str, body: object = None, *, raw: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request as a current client sends it (plain objects). `raw` sends bytes as they are."""
        content = raw if raw is not None else (None if body is None else json.dumps(body).encode())
        sent = {"x-api-key": self.key, "commet-version": PLAIN_VERSION, "content-type": "application/json", **(headers or {})}
        response = self.service.http.request(method, f"{self.service.url}/api/v1{path}", content=content, headers=sent)
        return Answer(response.status_code, response.json() if response.content else None, dict(response.headers))

    def done(self, method: str, path: str, body: object = None) -> Json:
        """One request that must succeed; returns its body."""
        answer = self.call(method, path, body, headers={"Idempotency-Key": str(uuid.uuid4())})
        assert 200 <= answer.status < 300, (method, path, answer)
        return answer.body

    def feature(self, code: str, **more: object) -> Json:
        """A usage feature."""
        return self.done("POST", "/features", {"code": code, "name": code.replace("_", " ").title(), "type": "usage", **more})

    def plan(self, code: str, model: str, *, price: Json | None = None, features: Mapping[str, Json], **more: object) -> Json:
        """A plan with one price (none when `price` is None) and features by code."""
        plan = self.done("POST", "/plans", {"code": code, "name": code.title(), "consumptionModel": model, **more})
        if price is not None:
            self.done("POST", f"/plans/{plan['id']}/prices", {"billingInterval": "monthly", "isDefault": True, **price})
        for feature, terms in features.items():
            self.done("POST", f"/plans/{plan['id']}/features", {"featureId": feature, **terms})
        return plan

    def subscribe(self, customer: str, plan: str, **more: object) -> Json:
        """A customer with a subscription to a plan."""
        self.done("POST", "/customers", {"id": customer, "email": f"{customer}@example.com"})
        return self.done("POST", "/subscriptions", {"customerId": customer, "planCode": plan, **more})

    def track(self, **event: object) -> Answer:
        """One usage event, as the test wrote it."""
        return self.call("POST", "/usage/events", event)

    def batch(self, events: list[Json], **headers: str) -> Json:
        """A batch; it must be answered with 200."""
        answer = self.call("POST", "/usage/events/batch", {"events": events}, headers=headers)
        assert answer.status == 200, answer
        return answer.body

    def advance(self, **to: object) -> Json:
        """Advance the test clock and wait until its run is over."""
        self.done("POST", "/test-clock", to)
        while True:
            run = self.done("GET", "/test-clock")["latestRun"]
            if run["status"] in ("completed", "failed"):
                assert run["status"] == "completed", run
                return run
            time.sleep(0.02)

    def invoices(self, customer: str) -> list[Json]:
        """A customer's invoices with their lines, oldest first."""
        listed = self.done("GET", f"/invoices?customerId={customer}")["data"]
        return [self.done("GET", f"/invoices/{invoice['id']}") for invoice in reversed(listed)]
