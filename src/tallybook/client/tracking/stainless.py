"""Clients of the openai and anthropic packages, which are built alike.

Every form of every call (plain, parsed, raw, streamed, helpers, tool runners) goes through two methods of the client: `request`, which
tries until it has an answer, and `_process_response`, which makes of the answer what the caller gets. A twin has its own of both.
"""

import inspect
import json
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast
from urllib.parse import urlsplit

from tallybook.client.tracking import taps, twins, usage
from tallybook.client.tracking.shapes import ChatShape, EmbeddingsShape, MessagesShape, ResponsesShape, Shape
from tallybook.client.tracking.tracker import Call, Tracker
from tallybook.client.tracking.usage import Usage
from tallybook.client.tracking.wire import FRAMES, BodyObservation, ChatObservation, FrameObservation, Observation

T = TypeVar("T")
_OWNERS_BY_HOST: Final = {
    "api.openai.com": "openai",
    "api.anthropic.com": "anthropic",
    "api.deepseek.com": "deepseek",
    "api.mistral.ai": "mistral",
    "api.x.ai": "xai",
    "api.cohere.ai": "cohere",
    "api.moonshot.ai": "moonshotai",
    "generativelanguage.googleapis.com": "google",
}
_WITHOUT_USAGE_OPTION: Final = (400, 422)


@dataclass(frozen=True, slots=True)
class Route:
    """A call that uses tokens: how its answer is read, whole and as a stream."""

    read: Callable[[Any], Usage | None]
    shape: Callable[[bool], Shape]
    """Made from: whether to keep the output for an estimate."""
    has_usage_option: bool = False


_CHAT: Final = Route(usage.of_openai_chat, ChatShape, has_usage_option=True)
_EMBEDDINGS: Final = Route(usage.of_openai_chat, EmbeddingsShape)
_RESPONSES: Final = Route(usage.of_openai_responses, ResponsesShape)
_MESSAGES: Final = Route(usage.of_anthropic, MessagesShape)
_OPENAI_ROUTES: Final = {"/chat/completions": _CHAT, "/completions": _CHAT, "/embeddings": _EMBEDDINGS, "/responses": _RESPONSES}
_ANTHROPIC_ROUTES: Final = {"/v1/messages": _MESSAGES, "/v1/complete": _MESSAGES}


@dataclass(slots=True)
class _Underway:
    """The call that a client's `request` is making."""

    call: Call
    route: Route
    is_injected: bool = False


_underway: ContextVar[_Underway | None] = ContextVar("tallybook_underway", default=None)


def track_openai(client: T, tracker: Tracker) -> T:
    """A twin of an OpenAI client (sync, async, Azure, any base URL)."""
    return _track(client, tracker, _OPENAI_ROUTES, "openai")


def track_anthropic(client: T, tracker: Tracker) -> T:
    """A twin of an Anthropic client (sync, async)."""
    return _track(client, tracker, _ANTHROPIC_ROUTES, "anthropic")


def _track(client: T, tracker: Tracker, routes: Mapping[str, Route], sdk: str) -> T:
    made: Any = twins.twin(client)
    original: Any = twins.original_of(client)
    _own_resources(made, original)
    hooks = _Hooks(made, tracker, routes, _owner(original, sdk))
    kind = cast("Any", type(original))
    is_async = inspect.iscoroutinefunction(kind.request)
    if not is_async:
        tracker.require_sync_gate()

    def copied(*given: Any, **named: Any) -> Any:
        return _track(original.copy(*given, **named), tracker, routes, sdk)

    twins.override(
        made,
        request=hooks.request_async if is_async else hooks.request,
        _process_response=hooks.process_async if is_async else hooks.process,
        copy=copied,
        with_options=copied,
    )
    if getattr(made, "_middleware_chain", None) is not None:
        made._middleware_chain = made._build_middleware_chain()  # noqa: SLF001 - the chain holds the client it was built for
    return cast("T", made)


def _own_resources(made: Any, original: Any) -> None:
    """Make those resources anew that a client made at its start; Bedrock's and Vertex' do, and they call the client they were made for."""
    for name, value in twins.state(made).items():
        if getattr(value, "_client", None) is original:
            twins.override(made, **{name: type(value)(made)})


def _owner(client: Any, sdk: str) -> str | None:
    """Who owns the model ids that this client's server names without their owner."""
    if type(client).__name__.endswith(("Azure", "AzureOpenAI")) or sdk == "anthropic":
        return sdk
    host = urlsplit(str(client.base_url)).hostname or ""
    return _OWNERS_BY_HOST.get(host)


class _Hooks:
    """The methods of a twin. Those of the class do the work; these look on."""

    def __init__(self, client: Any, tracker: Tracker, routes: Mapping[str, Route], owner: str | None) -> None:
        kind = cast("Any", type(client))
        self._request: Callable[..., Any] = kind.request.__get__(client)
        self._process: Callable[..., Any] = kind._process_response.__get__(client)  # noqa: SLF001 - where every answer passes
        self._tracker = tracker
        self._routes = routes
        self._owner = owner
        self._refuses_option = False

    def _begin(self, options: Any) -> _Underway | None:
        if options.method.lower() != "post":
            return None
        route = self._routes.get(str(options.url).partition("?")[0])
        if route is None:
            return None
        body = options.json_data
        return _Underway(self._tracker.begin(usage.get(body, "model"), body, self._owner), route)

    def _with_usage_option(self, options: Any, underway: _Underway) -> Any:
        """The options of a stream, asking for usage. The caller's own are not touched."""
        body = options.json_data
        if not underway.route.has_usage_option or self._refuses_option or not isinstance(body, Mapping):
            return options
        given = cast("Mapping[str, Any]", body)
        asked = given.get("stream_options")
        asked_for: Mapping[str, Any] = cast("Mapping[str, Any]", asked) if isinstance(asked, Mapping) else {}
        if given.get("stream") is not True or asked_for.get("include_usage"):
            return options
        underway.is_injected = True
        changed = options.model_copy() if hasattr(options, "model_copy") else options.copy()
        changed.json_data = {**given, "stream_options": {**asked_for, "include_usage": True}}
        return changed

    def request(self, cast_to: Any, options: Any, **more: Any) -> Any:
        """`request` of a sync client."""
        underway = self._tracker.guarded(self._begin, options)
        if underway is None:
            return self._request(cast_to, options, **more)
        self._tracker.check(underway.call)
        asking = self._tracker.guarded(self._with_usage_option, options, underway) or options
        token = _underway.set(underway)
        try:
            return self._request(cast_to, asking, **more)
        except Exception as error:
            if not self._may_be_the_option(error, underway):
                raise
        finally:
            _underway.reset(token)
        return self._again(cast_to, options, underway, more)

    def _again(self, cast_to: Any, options: Any, underway: _Underway, more: Mapping[str, Any]) -> Any:
        token = _underway.set(underway)
        try:
            answer = self._request(cast_to, options, **more)
        finally:
            _underway.reset(token)
        self._refuses_option = True
        return answer

    async def request_async(self, cast_to: Any, options: Any, **more: Any) -> Any:
        """`request` of an async client."""
        underway = self._tracker.guarded(self._begin, options)
        if underway is None:
            return await self._request(cast_to, options, **more)
        await self._tracker.check_async(underway.call)
        asking = self._tracker.guarded(self._with_usage_option, options, underway) or options
        token = _underway.set(underway)
        try:
            return await self._request(cast_to, asking, **more)
        except Exception as error:
            if not self._may_be_the_option(error, underway):
                raise
        finally:
            _underway.reset(token)
        return await self._again_async(cast_to, options, underway, more)

    async def _again_async(self, cast_to: Any, options: Any, underway: _Underway, more: Mapping[str, Any]) -> Any:
        token = _underway.set(underway)
        try:
            answer = await self._request(cast_to, options, **more)
        finally:
            _underway.reset(token)
        self._refuses_option = True
        return answer

    def _may_be_the_option(self, error: Exception, underway: _Underway) -> bool:
        """Whether the server may have refused a request for what we put in. Then it is sent as the caller wrote it."""
        if not underway.is_injected or getattr(error, "status_code", None) not in _WITHOUT_USAGE_OPTION:
            return False
        underway.is_injected = False
        return True

    def process(self, *, response: Any, **more: Any) -> Any:
        """`_process_response` of a sync client."""
        underway = _underway.get()
        if underway is None or not response.is_success:
            return self._process(response=response, **more)
        if more["stream"] or not taps.is_read(response):
            self._tracker.guarded(_tap, taps.SyncTap, response, underway)
            return self._process(response=response, **more)
        try:
            result = self._process(response=response, **more)
        except BaseException:
            self._meter(underway, response, None)
            raise
        self._meter(underway, response, result)
        return result

    async def process_async(self, *, response: Any, **more: Any) -> Any:
        """`_process_response` of an async client."""
        underway = _underway.get()
        if underway is None or not response.is_success:
            return await self._process(response=response, **more)
        if more["stream"] or not taps.is_read(response):
            self._tracker.guarded(_tap, taps.AsyncTap, response, underway)
            return await self._process(response=response, **more)
        try:
            result = await self._process(response=response, **more)
        except BaseException:
            self._meter(underway, response, None)
            raise
        self._meter(underway, response, result)
        return result

    def _meter(self, underway: _Underway, response: Any, result: Any) -> None:
        self._tracker.guarded(_meter_whole, underway, response, result)


def _tap(kind: Callable[[Any, Observation, Tracker], object], response: Any, underway: _Underway) -> None:
    kind(response, _observation(response, underway), underway.call.tracker)


def _observation(response: Any, underway: _Underway) -> Observation:
    shape = underway.route.shape(underway.call.tracker.terms.estimate)
    kind = response.headers.get("content-type", "")
    if "text/event-stream" in kind:
        return ChatObservation(underway.call, shape) if underway.is_injected else Observation(underway.call, shape)
    return FrameObservation(underway.call, shape) if FRAMES in kind else BodyObservation(underway.call, shape)


def _meter_whole(underway: _Underway, response: Any, result: Any) -> None:
    """The usage of an answer that is there as a whole: from the SDK's object if that has it, else from the JSON."""
    found = underway.route.read(result)
    if found is None:
        found = underway.route.read(_json(response.content))
    if found is None:
        underway.call.unknown()
    else:
        underway.call.used(found, "final")


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None
