"""The arguments of tracked(), who pays, what happens when something is amiss, and the gate."""

import asyncio
import gc
import itertools
import threading
from dataclasses import replace
from typing import Any

import pytest

from tallybook.client import AsyncTallybook, GateClosed, MeterSettings, Problem, Tallybook, attribution, tracked
from tallybook.client.tracking import tracker
from tests.client import fake_formats
from tests.client.comparing import counts, served
from tests.client.fake_formats import Answer, Tokens
from tests.client.fake_provider import FakeProvider, Trouble
from tests.client.provider_cases import ASK, AnthropicMessages, AzureChat, OpenAIChat, OpenAIResponses, package, shut, take
from tests.client.quiet import SDKS_ARE_QUIET
from tests.client.stub_service import Reply, StubService

pytestmark = SDKS_ARE_QUIET
Json = dict[str, Any]
CHAT: Json = {"model": "gpt-4o", "messages": [{"role": "user", "content": ASK}]}
MESSAGE: Json = {"model": "claude-sonnet-4-6", "max_tokens": 100, "messages": [{"role": "user", "content": ASK}]}


def openai_client(fake: FakeProvider) -> Any:
    return OpenAIChat().client(fake, is_async=False)


def test_the_original_client_is_not_metered(fake: FakeProvider, stub: StubService, tallybook: Tallybook) -> None:
    with openai_client(fake) as original:
        client = tracked(original, tallybook=tallybook, feature="ai_chat", customer_id="user_1")
        original.chat.completions.create(**CHAT)
        assert type(client) is type(original)
        tallybook.flush(10)
    assert stub.recorded == {}


def test_a_client_tracked_twice_counts_once_as_the_outer_one_says(
    fake: FakeProvider, stub: StubService, tallybook: Tallybook
) -> None:
    with openai_client(fake) as original:
        inner = tracked(original, tallybook=tallybook, feature="inner", customer_id="inner")
        outer = tracked(inner.with_options(timeout=5), tallybook=tallybook, feature="ai_chat", customer_id="user_1")
        outer.chat.completions.create(**CHAT)
        tallybook.flush(10)
    assert [(event["customerId"], event["featureCode"]) for event in stub.recorded.values()] == [("user_1", "ai_chat")]


def test_customer_and_feature_come_from_the_context_the_arguments_or_callables(
    fake: FakeProvider, stub: StubService, tallybook: Tallybook
) -> None:
    users = iter(["asked_1", "asked_2"])
    with openai_client(fake) as original:
        client = tracked(
            original, tallybook=tallybook, feature="ai_chat", customer_id=lambda: next(users), properties={"app": "web"}
        )
        client.chat.completions.create(**CHAT)
        client.chat.completions.create(**CHAT)
        with attribution(customer_id="named", properties={"project": "apollo"}), attribution(feature="drafts"):
            client.chat.completions.create(**CHAT)
        tallybook.flush(10)
    found = [(event["customerId"], event["featureCode"], event["properties"]) for event in stub.recorded.values()]
    final = {"app": "web", "usageStatus": "final"}
    assert found == [
        ("asked_1", "ai_chat", final),
        ("asked_2", "ai_chat", final),
        ("named", "drafts", {**final, "project": "apollo"}),
    ]


async def test_the_context_is_each_tasks_own(fake: FakeProvider, stub: StubService, tallybook: Tallybook) -> None:
    client = tracked(OpenAIChat().client(fake, is_async=True), tallybook=tallybook, feature="ai_chat")

    async def one(customer: str) -> None:
        with attribution(customer_id=customer):
            await take(await client.chat.completions.create(**CHAT, stream=True))

    await asyncio.gather(*(one(f"user_{number}") for number in range(5)))
    await shut(client)
    assert await asyncio.to_thread(tallybook.flush, 10)
    assert sorted(event["customerId"] for event in stub.recorded.values()) == [f"user_{number}" for number in range(5)]


def test_a_call_without_a_customer_is_made_and_reported(
    fake: FakeProvider, stub: StubService, tallybook: Tallybook, problems: list[Problem]
) -> None:
    with openai_client(fake) as original:
        client = tracked(original, tallybook=tallybook, feature="ai_chat")
        assert client.chat.completions.create(**CHAT).usage.total_tokens > 0
    assert ([problem.kind for problem in problems], tallybook.meter.outbox.counters.unattributed) == (["unattributed"], 1)
    assert (problems[0].events[0]["inputTokens"], stub.recorded) == (1037, {})


def test_a_callable_that_raises_does_not_fail_the_call(fake: FakeProvider, tallybook: Tallybook, problems: list[Problem]) -> None:
    def broken() -> str:
        raise LookupError("who is it?")

    with openai_client(fake) as original:
        client = tracked(original, tallybook=tallybook, feature="ai_chat", customer_id=broken)
        assert client.chat.completions.create(**CHAT).usage.total_tokens > 0
    assert [problem.kind for problem in problems] == ["internal", "unattributed"]


def test_a_full_meter_that_raises_does_not_fail_the_call(fake: FakeProvider, stub: StubService, problems: list[Problem]) -> None:
    stub.decide = lambda _request, _number: Reply(503)
    meter = MeterSettings(linger_s=0.005, events_max=1, when_full="raise")
    tallybook = Tallybook("ck_test", url=stub.url, meter=meter, on_error=problems.append)
    with openai_client(fake) as original:
        client = tracked(original, tallybook=tallybook, feature="ai_chat", customer_id="user_1")
        for _ in range(3):
            assert client.chat.completions.create(**CHAT).usage.total_tokens > 0
    tallybook.close(0)
    assert [problem.kind for problem in problems].count("dropped") == 3
    assert (tallybook.meter.counters["tracked"], tallybook.meter.counters["dropped"]) == (3, 3)


def test_a_server_that_does_not_know_the_usage_option_is_asked_as_the_caller_did(
    fake: FakeProvider, tallybook: Tallybook, problems: list[Problem]
) -> None:
    fake.trouble = Trouble(refuses_stream_options=True)
    with openai_client(fake) as original:
        client = tracked(original, tallybook=tallybook, feature="ai_chat", customer_id="user_1")
        for _ in range(2):
            assert len(list(client.chat.completions.create(**CHAT, stream=True))) == 8
    assert ["stream_options" in body for body in fake.asked] == [False, False]
    assert ([problem.kind for problem in problems], tallybook.meter.outbox.counters.usage_missing) == (["usage_missing"] * 2, 2)


def test_usage_that_is_not_told_can_be_estimated(fake: FakeProvider, stub: StubService, tallybook: Tallybook) -> None:
    fake.trouble = Trouble(refuses_stream_options=True)
    with openai_client(fake) as original:
        client = tracked(original, tallybook=tallybook, feature="ai_chat", customer_id="user_1", provider="openai", estimate=True)
        list(client.chat.completions.create(**CHAT, stream=True))
        tallybook.flush(10)
    [event] = stub.recorded.values()
    text = "".join(fake_formats.PIECES)
    assert (event["model"], event["outputTokens"], event["properties"]["usageStatus"]) == (
        "openai/gpt-4o",
        -(-len(text) // 4),
        "estimated",
    )
    assert event["inputTokens"] >= len(ASK) // 4


def test_of_a_response_that_broke_the_text_that_came_is_estimated(
    fake: FakeProvider, stub: StubService, tallybook: Tallybook
) -> None:
    with OpenAIResponses().client(fake, is_async=False) as original:
        client = tracked(original, tallybook=tallybook, feature="ai_chat", customer_id="user_1", estimate=True, on_break="stop")
        with client.responses.create(model="gpt-4o", input=ASK, stream=True) as stream:
            text = "".join(event.delta for event in itertools.islice(stream, 6) if event.type == "response.output_text.delta")
        tallybook.flush(10)
    [event] = stub.recorded.values()
    assert event["properties"]["usageStatus"] == "estimated"
    assert event["outputTokens"] >= -(-len(text) // 4) > 0


def test_own_names_of_models_are_given_their_ids_in_the_catalog(
    fake: FakeProvider, stub: StubService, tallybook: Tallybook
) -> None:
    with AzureChat().client(fake, is_async=False) as original:
        client = tracked(
            original,
            tallybook=tallybook,
            feature="ai_chat",
            customer_id="user_1",
            gate=True,
            models={"our-own-deployment": "openai/gpt-4o"},
        )
        stub.decide = opened
        AzureChat().create(client)
        tallybook.flush(10)
    assert [request.body["model"] for request in stub.requests if request.path.endswith("/check")] == ["openai/gpt-4o"]
    assert [event["model"] for event in stub.recorded.values()] == ["openai/gpt-4o-2024-08-06"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("eu.anthropic.claude-sonnet-4-20250514-v1:0", "anthropic/claude-sonnet-4-20250514"),
        ("anthropic.claude-opus-4-6", "anthropic/claude-opus-4-6"),
        ("claude-sonnet-4-6", "anthropic/claude-sonnet-4-6"),
        ("anthropic/claude-sonnet-4.6", "anthropic/claude-sonnet-4.6"),
    ],
)
def test_the_spelling_of_bedrock_is_taken_off(name: str, meant: str) -> None:
    assert tracker.owned(name, "anthropic") == meant


@pytest.mark.parametrize("kind", ["AnthropicVertex", "AsyncAnthropicVertex"])
def test_the_resources_that_a_client_made_at_its_start_call_the_tracked_one(kind: str, tallybook: Tallybook) -> None:
    original = getattr(package("anthropic"), kind)(region="europe-west1", project_id="x", access_token="x")
    client = tracked(original, tallybook=tallybook, feature="ai_chat", customer_id="user_1")
    assert (client.messages._client, client.beta._client) == (client, client)
    assert original.messages._client is original


def test_a_response_that_is_forgotten_while_an_event_is_put_in_stops_nothing(
    fake: FakeProvider, stub: StubService, tallybook: Tallybook
) -> None:
    with openai_client(fake) as original:
        client = tracked(original, tallybook=tallybook, feature="ai_chat", customer_id="user_1", estimate=True, on_break="stop")
        kept = [client.chat.completions.create(**CHAT, stream=True)]

        def collect_inside() -> None:
            with tallybook.meter.outbox._store._lock:  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue, reportUnknownMemberType]
                kept.clear()
                gc.collect()

        thread = threading.Thread(target=collect_inside, daemon=True)
        thread.start()
        thread.join(30)
        assert not thread.is_alive()
        assert tallybook.flush(10)
    assert [event["properties"]["usageStatus"] for event in stub.recorded.values()] == ["estimated"]


def test_the_rest_of_a_stream_can_be_left_unread(fake: FakeProvider, stub: StubService, tallybook: Tallybook) -> None:
    fake.trouble = Trouble(pause_s=0.05)
    with AnthropicMessages().client(fake, is_async=False) as original:
        client = tracked(original, tallybook=tallybook, feature="ai_chat", customer_id="user_1", on_break="stop")
        with client.messages.create(**MESSAGE, stream=True) as stream:
            next(iter(stream))
        tallybook.flush(10)
    [event] = stub.recorded.values()
    assert (event["inputTokens"], event["outputTokens"], event["properties"]["usageStatus"]) == (1037, 1, "partial")


def test_a_stream_that_was_broken_off_and_forgotten_is_metered_too(
    fake: FakeProvider, stub: StubService, tallybook: Tallybook
) -> None:
    with openai_client(fake) as original:
        client = tracked(original, tallybook=tallybook, feature="ai_chat", customer_id="user_1")
        for _chunk in client.chat.completions.create(**CHAT, stream=True):
            break
        assert tallybook.flush(10)
    assert [counts(event) for event in stub.recorded.values()] == [served(line) for line in fake.ledger]


async def test_an_async_stream_that_was_broken_off_and_forgotten_is_metered_too(fake: FakeProvider, stub: StubService) -> None:
    async with AsyncTallybook("ck_test", url=stub.url) as tallybook:
        client = tracked(OpenAIChat().client(fake, is_async=True), tallybook=tallybook, feature="ai_chat", customer_id="user_1")
        async for _chunk in await client.chat.completions.create(**CHAT, stream=True):
            break
        assert await tallybook.flush(10)
        await shut(client)
    assert [counts(event) for event in stub.recorded.values()] == [served(line) for line in fake.ledger]


def test_closing_books_what_is_known_of_streams_that_are_still_read(fake: FakeProvider, stub: StubService) -> None:
    fake.trouble = Trouble(pause_s=0.3)
    tallybook = Tallybook("ck_test", url=stub.url, meter=MeterSettings(linger_s=0.005))
    with AnthropicMessages().client(fake, is_async=False) as original:
        client = tracked(original, tallybook=tallybook, feature="ai_chat", customer_id="user_1")
        stream = client.messages.create(**MESSAGE, stream=True)
        next(iter(stream))
        stream.close()
        tallybook.close(0.3)
    [event] = stub.recorded.values()
    assert event["properties"]["usageStatus"] == "partial"


def test_short_response_ids_are_not_trusted(
    fake: FakeProvider, stub: StubService, tallybook: Tallybook, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fake_formats.chat

    def with_a_short_id(body: Json, number: int, tokens: Tokens) -> Answer:
        answer = real(body, number, tokens)
        return replace(answer, body={**answer.body, "id": "chatcmpl-7"})

    monkeypatch.setattr(fake_formats, "chat", with_a_short_id)
    with openai_client(fake) as original:
        client = tracked(original, tallybook=tallybook, feature="ai_chat", customer_id="user_1")
        client.chat.completions.create(**CHAT)
        client.chat.completions.create(**CHAT)
        tallybook.flush(10)
    assert len(stub.recorded) == 2
    assert "chatcmpl-7" not in stub.recorded


def test_an_unknown_client_is_refused(tallybook: Tallybook) -> None:
    with pytest.raises(TypeError, match=r"builtins\.dict"):
        tracked(dict[str, str](), tallybook=tallybook)


def closed(request: Any, _number: int) -> Reply | None:
    """A service that says no to every check."""
    refusal = {"allowed": False, "reason": "insufficient_balance", "message": "The balance is used up."}
    rest = {"featureCode": "ai_chat", "quantity": 1, "consumptionModel": "balance", "subscriptionStatus": "active"}
    return Reply(200, {**refusal, **rest}) if request.path.endswith("/usage/check") else None


def opened(request: Any, _number: int) -> Reply | None:
    """A service that says yes to every check."""
    rest = {"featureCode": "ai_chat", "quantity": 1, "consumptionModel": "balance", "subscriptionStatus": "active"}
    return Reply(200, {"allowed": True, **rest}) if request.path.endswith("/usage/check") else None


def test_a_closed_gate_makes_no_call(fake: FakeProvider, stub: StubService, tallybook: Tallybook) -> None:
    stub.decide = closed
    with openai_client(fake) as original:
        client = tracked(original, tallybook=tallybook, feature="ai_chat", customer_id="user_1", provider="openai", gate=True)
        with pytest.raises(GateClosed, match=r"user_1.*insufficient_balance: The balance is used up") as stopped:
            client.chat.completions.create(**CHAT)
    assert (stopped.value.code, stopped.value.customer_id, stopped.value.feature) == ("insufficient_balance", "user_1", "ai_chat")
    [asked] = stub.requests
    assert (asked.body["model"], asked.body["customerId"], fake.asked) == ("openai/gpt-4o", "user_1", [])


@pytest.mark.parametrize("kind", [Tallybook, AsyncTallybook])
async def test_a_closed_gate_stops_async_calls_too(fake: FakeProvider, stub: StubService, kind: Any) -> None:
    stub.decide = closed
    tallybook = kind("ck_test", url=stub.url)
    client = tracked(
        OpenAIChat().client(fake, is_async=True), tallybook=tallybook, feature="ai_chat", customer_id="user_1", gate=True
    )
    with pytest.raises(GateClosed):
        await client.chat.completions.create(**CHAT)
    await shut(client)
    await shut(tallybook)
    assert fake.asked == []


def test_a_gate_stops_calls_of_models_that_have_no_price(fake: FakeProvider, stub: StubService, tallybook: Tallybook) -> None:
    stub.decide = lambda _request, _number: Reply(404, {"error": {"code": "model_not_found", "message": "No model gpt-9."}})
    with openai_client(fake) as original:
        client = tracked(original, tallybook=tallybook, feature="ai_chat", customer_id="user_1", gate=True)
        with pytest.raises(GateClosed, match="model_not_found"):
            client.chat.completions.create(**CHAT)


def test_a_gate_that_gets_no_answer_lets_the_call_pass_and_says_so(
    fake: FakeProvider, stub: StubService, tallybook: Tallybook, problems: list[Problem]
) -> None:
    stub.decide = lambda request, _number: Reply(0) if request.path.endswith("/usage/check") else None
    with openai_client(fake) as original:
        client = tracked(original, tallybook=tallybook, feature="ai_chat", customer_id="user_1", gate=True)
        assert client.chat.completions.create(**CHAT).usage.total_tokens > 0
    assert [problem.kind for problem in problems] == ["unreachable"]


def test_a_gate_needs_a_customer(fake: FakeProvider, tallybook: Tallybook) -> None:
    with openai_client(fake) as original:
        client = tracked(original, tallybook=tallybook, feature="ai_chat", gate=True)
        with pytest.raises(GateClosed, match="no customer"):
            client.chat.completions.create(**CHAT)


def test_a_sync_client_cannot_ask_an_async_gate(fake: FakeProvider) -> None:
    with openai_client(fake) as original, pytest.raises(TypeError, match="gate"):
        tracked(original, tallybook=AsyncTallybook("ck_test"), gate=True)


def test_what_was_tracked_is_forgotten(fake: FakeProvider, tallybook: Tallybook) -> None:
    with openai_client(fake) as original:
        client = tracked(original, tallybook=tallybook, feature="ai_chat", customer_id="user_1")
        for _ in range(3):
            list(client.chat.completions.create(**CHAT, stream=True))
            client.chat.completions.create(**CHAT)
        gc.collect()
    assert tallybook.meter.outbox._open == {}  # pyright: ignore[reportPrivateUsage]
    assert tallybook.meter.outbox._underway == {}  # pyright: ignore[reportPrivateUsage]
