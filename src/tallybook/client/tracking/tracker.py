"""What all tracked clients share: who pays, the gate before a call, and the event after it. Nothing here raises but the gate."""

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tallybook.client import errors
from tallybook.client.client import AsyncTallybook, Tallybook
from tallybook.client.meter import event
from tallybook.client.meter.problems import Problem
from tallybook.client.requests import Request
from tallybook.client.resources import usage as usage_resource
from tallybook.client.tracking import attribution, usage
from tallybook.client.tracking.attribution import Attribution, Properties, Text
from tallybook.client.tracking.usage import Usage

UsageStatus = Literal["final", "partial", "estimated", "missing"]
OnBreak = Literal["drain", "stop"]
_ID_CHARACTERS_MIN = 20
"""Shorter response ids come from servers that count or draw small numbers; they would name several responses."""
_ID_CHARACTERS_MAX = 128
_GATE_TIMEOUT_S = 2.0
_OF_BEDROCK = re.compile(r"(?:[a-z-]+\.)?anthropic\.(.+?)(?:-v\d+)?(?::\d+)?")
"""For example `eu.anthropic.claude-sonnet-4-20250514-v1:0`."""


@dataclass(frozen=True, slots=True)
class Terms:
    """The arguments of `tracked`. `provider` is the owner of the model ids, for those that do not name theirs."""

    customer_id: Text = None
    feature: Text = None
    properties: Properties = None
    provider: str | None = None
    gate: bool = False
    on_break: OnBreak = "drain"
    drain_s: float = 60.0
    estimate: bool = False
    models: Mapping[str, str] | None = None


@dataclass(slots=True)
class Call:
    """One call to a provider, from before it is sent: who pays, the model that was asked for, and the request for estimates."""

    tracker: "Tracker"
    who: Attribution
    model: str | None
    request: Any
    provider: str | None

    def used(self, found: Usage, status: UsageStatus) -> None:
        """Meter what was used."""
        self.tracker.guarded(self.tracker.meter, self, found, status)

    def unknown(self, output: str = "", response_id: str | None = None) -> None:
        """The provider did not say what was used. `output` is the text that came, for an estimate."""
        self.tracker.meter_unknown(self, output, response_id)


class Tracker:
    """Meters the calls of one tracked client."""

    def __init__(self, tallybook: Tallybook | AsyncTallybook, terms: Terms) -> None:
        """Events go to the meter of `tallybook`."""
        self.tallybook = tallybook
        self.terms = terms
        self.outbox = tallybook.meter.outbox

    def require_sync_gate(self) -> None:
        """Raises TypeError for a gate that a sync client could not ask."""
        if self.terms.gate and isinstance(self.tallybook, AsyncTallybook):
            raise TypeError("a sync client with gate=True needs a Tallybook, not an AsyncTallybook")

    def begin(self, model: object, request: Any, provider: str | None) -> Call:
        """A call that is about to be made."""
        terms = self.terms
        who = self.guarded(attribution.resolve, terms.customer_id, terms.feature, terms.properties)
        asked = model if isinstance(model, str) else None
        return Call(self, who or Attribution(), asked, request, terms.provider or provider)

    def guarded(self, do: Callable[..., Any], *given: Any) -> Any:
        """The result of something that must not fail the caller's call; None if it failed, which is reported."""
        try:
            return do(*given)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with metering, the call goes on
            self.outbox.tell(Problem("internal", f"metering failed: {error!r}", error=error))
            return None

    def meter(self, call: Call, found: Usage, status: UsageStatus) -> None:
        """Put the event of a call in the queue."""
        who = call.who
        made = self._written(call, found, status).encode()
        if not who.customer_id or not who.feature:
            self.outbox.counters.unattributed += 1
            missing = "customer" if not who.customer_id else "feature"
            told = f"a call has no {missing}: name one in tracked() or attribution()"
            self.outbox.tell(Problem("unattributed", told, [event.read(made)]))
            return
        try:
            self.outbox.put(made)
        except errors.QueueFull as error:
            self.outbox.give_up(made, error)

    def _written(self, call: Call, found: Usage, status: UsageStatus) -> str:
        """The event as it is sent. Written in one piece, because the caller waits for it."""
        who = call.who
        model = self.named(found.model or call.model or "", call.provider)
        properties = f'{{"usageStatus":"{status}"}}'
        if who.properties:
            properties = event.written({**who.properties, "usageStatus": status})
        more = ""
        if found.cache_read:
            more = f',"cacheReadTokens":{found.cache_read:d}'
        if found.cache_write:
            more += f',"cacheWriteTokens":{found.cache_write:d}'
        if found.cache_write_1h:
            more += f',"cacheWrite1hTokens":{found.cache_write_1h:d}'
        if found.service_tier:
            more += f',"serviceTier":{event.written(found.service_tier)}'
        if found.web_searches:
            more += f',"webSearchRequests":{found.web_searches:d}'
        return (
            f'{{"featureCode":{event.written(who.feature)},"customerId":{event.written(who.customer_id)},"timestamp":"{event.now()}"'
            f',"model":{event.written(model)},"inputTokens":{found.input:d},"outputTokens":{found.output:d}{more}'
            f',"properties":{properties},"eventId":{event.written(_event_id(found.response_id))}}}'
        )

    def named(self, model: str, provider: str | None) -> str:
        """The id under which the service knows a model: what `models` says, else the provider's id with its owner."""
        return (self.terms.models or {}).get(model) or owned(model, provider)

    def meter_unknown(self, call: Call, output: str, response_id: str | None) -> None:
        """An estimate, if those are wanted; else a problem."""
        if self.terms.estimate:
            estimate = Usage(response_id, call.model, usage.rough_tokens(call.request), usage.rough_tokens(output))
            call.used(estimate, "estimated")
            return
        self.outbox.counters.usage_missing += 1
        self.outbox.tell(Problem("usage_missing", f"the provider did not say what a call of {call.model} used"))

    def check(self, call: Call) -> None:
        """Raises GateClosed if the customer's pool does not pay for the call. A service that does not answer lets it pass."""
        if self.terms.gate:
            assert isinstance(self.tallybook, Tallybook)
            tallybook = self.tallybook
            self._judge(call, lambda question: tallybook.send_once(question, _GATE_TIMEOUT_S))

    async def check_async(self, call: Call) -> None:
        """`check` without keeping the loop from its other work."""
        if not self.terms.gate:
            return
        if isinstance(self.tallybook, Tallybook):
            await asyncio.to_thread(self.check, call)
            return
        try:
            answer: Any = await self.tallybook.send_once(_question(call), _GATE_TIMEOUT_S)
        except errors.TallybookError as error:
            answer = error
        self._judge(call, lambda _question: _returned(answer))

    def _judge(self, call: Call, ask: Callable[[Request[Any]], Any]) -> None:
        who = call.who
        try:
            answer = ask(_question(call))
        except (errors.ConnectionFailed, errors.ServiceError, errors.RateLimited, errors.Unauthorized, errors.Forbidden) as error:
            self.outbox.tell(Problem("unreachable", f"the gate let a call pass: {error}", error=error))
            return
        except errors.APIError as error:
            raise errors.GateClosed(error.code, str(error.args[0]), customer_id=who.customer_id, feature=who.feature) from error
        if not answer.allowed:
            raise errors.GateClosed(
                answer.reason or "refused", answer.message or "", customer_id=who.customer_id, feature=who.feature
            )


def _returned(answer: Any) -> Any:
    if isinstance(answer, errors.TallybookError):
        raise answer
    return answer


def _question(call: Call) -> Request[Any]:
    """At least what the call costs to ask: its prompt, and one token of an answer."""
    who = call.who
    if not who.customer_id or not who.feature:
        missing = "customer" if not who.customer_id else "feature"
        raise errors.GateClosed("unattributed", f"the call has no {missing}", customer_id=who.customer_id, feature=who.feature)
    tokens = max(1, usage.rough_tokens(call.request))
    model = call.tracker.named(call.model or "", call.provider)
    return usage_resource.check(who.customer_id, who.feature, model=model, input_tokens=tokens, output_tokens=1)


def owned(model: str, provider: str | None) -> str:
    """The model id with its owner, unless it names one, or none is known. Bedrock's spelling is taken off."""
    if provider is None or "/" in model:
        return model
    bedrock = _OF_BEDROCK.fullmatch(model) if provider == "anthropic" and "anthropic." in model else None
    return f"{provider}/{bedrock[1] if bedrock else model}"


def _event_id(response_id: str | None) -> str:
    if response_id is None or not _ID_CHARACTERS_MIN <= len(response_id) <= _ID_CHARACTERS_MAX:
        return event.new_id()
    return response_id
