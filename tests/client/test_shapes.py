"""What the shapes of streams take for the last word."""

import json
from typing import Any

import pytest

from tallybook.client import MeterSettings, Tallybook, tracked
from tallybook.client.tracking.shapes import ResponsesShape
from tests.client import fake_formats
from tests.client.comparing import counts, served
from tests.client.fake_formats import sse
from tests.client.fake_provider import FakeProvider
from tests.client.provider_cases import OpenAIResponses
from tests.client.quiet import SDKS_ARE_QUIET
from tests.client.stub_service import StubService

pytestmark = SDKS_ARE_QUIET
NAMES = ("response.completed", "response.incomplete", "response.failed")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.output_text.delta", "delta": "NAME"},
        {"type": "response.refusal.delta", "item_id": "msg_1", "delta": "It says NAME at its end."},
        {"type": "response.created", "response": {"id": "resp_1", "metadata": {"wait_for": "NAME"}, "usage": None}},
    ],
    ids=lambda event: event["type"],
)
def test_text_that_names_the_last_event_is_not_the_last_event(name: str, event: dict[str, Any]) -> None:
    """Mutant: the name is looked for in the first bytes of an event, whatever holds it."""
    shape = ResponsesShape(False)  # noqa: FBT003 - a factory that routes call by place
    shape.events(sse(json.dumps(event).replace("NAME", name), event["type"]))
    assert not shape.is_over
    shape.events(sse({"type": name, "response": {"id": "resp_1", "usage": {"input_tokens": 7, "output_tokens": 3}}}))
    assert shape.is_over
    assert shape.found is not None
    assert (shape.found.input, shape.found.output) == (7, 3)


def test_the_rest_is_read_of_a_stream_whose_text_names_the_last_event(
    fake: FakeProvider, stub: StubService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_formats, "PIECES", ("response.completed", " comes", " last"))
    case = OpenAIResponses()
    with (
        case.client(fake, is_async=False) as original,
        Tallybook("ck_test", url=stub.url, meter=MeterSettings(linger_s=0.005)) as tallybook,
    ):
        client = tracked(original, tallybook=tallybook, feature="ai_chat", customer_id="user_1")
        with case.create(client, stream=True) as stream:
            next(event for event in stream if event.type == "response.output_text.delta")
        assert tallybook.flush(10)
    [event] = stub.recorded.values()
    assert (*counts(event), event["properties"]["usageStatus"]) == (*served(fake.ledger[0]), "final")
