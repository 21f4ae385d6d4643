"""Clients around the SDKs: a Router of litellm, and models of pydantic-ai and LangChain that use no SDK that is known."""

import asyncio
import types
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any

import pytest

from tallybook.client import GateClosed, MeterSettings, Problem, Tallybook, tracked
from tests.client import fake_provider
from tests.client.fake_provider import FakeProvider
from tests.client.framework_cases import LiteLLM, PydanticAI
from tests.client.provider_cases import ASK, package
from tests.client.quiet import SDKS_ARE_QUIET
from tests.client.stub_service import Reply, StubService

pytestmark = SDKS_ARE_QUIET


@pytest.fixture
def fake() -> Generator[FakeProvider]:
    with fake_provider.running() as running:
        yield running


@pytest.fixture
def tallybook(stub: StubService) -> Generator[Tallybook]:
    problems: list[Problem] = []
    with Tallybook("ck_test", url=stub.url, meter=MeterSettings(linger_s=0.005), on_error=problems.append) as client:
        yield client
    assert problems == []


def sent(stub: StubService) -> list[tuple[Any, ...]]:
    """What arrived: model, tokens, and whether it is the whole."""
    names = ("model", "inputTokens", "outputTokens", "cacheReadTokens")
    return [(*(event.get(name) for name in names), event["properties"]["usageStatus"]) for event in stub.recorded.values()]


def test_a_router_is_metered(fake: FakeProvider, stub: StubService, tallybook: Tallybook) -> None:
    litellm = LiteLLM().client(fake, is_async=False)
    target = {"model": "openai/gpt-4o", "api_base": f"{fake.url}/v1", "api_key": "x"}
    router = litellm.Router(model_list=[{"model_name": "chat", "litellm_params": target}])
    client = tracked(router, tallybook=tallybook, feature="ai_chat", customer_id="user_1")
    assert isinstance(client, litellm.Router)
    client.completion(model="chat", messages=[{"role": "user", "content": ASK}])
    router.completion(model="chat", messages=[{"role": "user", "content": ASK}])
    tallybook.flush(10)
    assert sent(stub) == [("openai/gpt-4o-2024-08-06", 1037, 61, 301, "final")]


def test_the_tracked_module_is_litellm_in_all_else(fake: FakeProvider, tallybook: Tallybook) -> None:
    litellm = LiteLLM().client(fake, is_async=False)
    client: Any = tracked(litellm, tallybook=tallybook, feature="ai_chat", customer_id="user_1")
    assert isinstance(client, types.ModuleType)
    assert client.ModelResponse is litellm.ModelResponse
    setattr(client, "drop_params", True)  # noqa: B010 - a module has no such attribute in the eyes of a type checker
    assert litellm.drop_params is True
    litellm.drop_params = False


def test_litellm_embeddings_and_a_closed_gate(fake: FakeProvider, stub: StubService, tallybook: Tallybook) -> None:
    case = LiteLLM()
    client = tracked(case.client(fake, is_async=False), tallybook=tallybook, feature="ai_chat", customer_id="user_1")
    client.embedding(model="openai/text-embedding-3-small", input=["a"], api_base=f"{fake.url}/v1", api_key="x")
    tallybook.flush(10)
    assert sent(stub) == [("openai/text-embedding-3-small", 1037, 0, None, "final")]
    stub.decide = lambda _request, _number: Reply(404, {"error": {"code": "model_not_found", "message": "No such model."}})
    gated = tracked(client, tallybook=tallybook, feature="ai_chat", customer_id="user_1", gate=True)
    with pytest.raises(GateClosed):
        gated.completion(model="openai/gpt-9", messages=[{"role": "user", "content": ASK}], **case.target)
    assert len(fake.asked) == 1


async def test_a_pydantic_ai_model_of_another_kind_is_asked_for_its_usage(stub: StubService, tallybook: Tallybook) -> None:
    agents, function = package("pydantic_ai"), package("pydantic_ai.models.function")
    messages = package("pydantic_ai.messages")
    usage = package("pydantic_ai.usage").RequestUsage(input_tokens=100, output_tokens=20, cache_read_tokens=30)

    def answer(_messages: Any, _info: Any) -> Any:
        return messages.ModelResponse(parts=[messages.TextPart("over")], usage=usage, model_name="deepseek/deepseek-v3.2")

    agent = tracked(agents.Agent(function.FunctionModel(answer)), tallybook=tallybook, feature="ai_chat", customer_id="user_1")
    assert (await agent.run(ASK)).output == "over"
    await asyncio.to_thread(tallybook.flush, 10)
    [(_model, *counts)] = sent(stub)
    assert counts == [100, 20, 30, "final"]


async def test_models_inside_wrappers_and_fallbacks_are_tracked(
    fake: FakeProvider, stub: StubService, tallybook: Tallybook
) -> None:
    agents, case = package("pydantic_ai"), PydanticAI()
    fallback = package("pydantic_ai.models.fallback").FallbackModel(case.model(fake), case.model(fake))
    wrapped = package("pydantic_ai.models.wrapper").WrapperModel(fallback)
    model = tracked(wrapped, tallybook=tallybook, feature="ai_chat", customer_id="user_1")
    await agents.Agent(model).run(ASK)
    await asyncio.to_thread(tallybook.flush, 10)
    assert sent(stub) == [("gpt-4o-2024-08-06", 1037, 61, 301, "final")]


def test_an_agent_without_a_model_is_refused(tallybook: Tallybook) -> None:
    with pytest.raises(TypeError, match="no model"):
        tracked(package("pydantic_ai").Agent(), tallybook=tallybook)


def other_langchain_model() -> Any:
    """A chat model that uses no SDK and tells its usage the way LangChain does."""
    core, chat, outputs = (
        package("langchain_core.messages"),
        package("langchain_core.language_models"),
        package("langchain_core.outputs"),
    )
    whole = {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120, "input_token_details": {"cache_read": 30}}
    first = {"input_tokens": 100, "output_tokens": 0, "total_tokens": 100, "input_token_details": {"cache_read": 30}}
    more = {"input_tokens": 0, "output_tokens": 10, "total_tokens": 10}
    named = {"model_name": "deepseek/deepseek-v3.2"}

    def generate(_self: Any, _messages: Any, *_more: Any, **_named: Any) -> Any:
        message = core.AIMessage("over", usage_metadata=whole, response_metadata=named)
        return outputs.ChatResult(generations=[outputs.ChatGeneration(message=message)])

    def stream(_self: Any, _messages: Any, *_more: Any, **_named: Any) -> Iterator[Any]:
        for text, usage in (("", first), ("ov", more), ("er", more)):
            yield outputs.ChatGenerationChunk(message=core.AIMessageChunk(text, usage_metadata=usage, response_metadata={}))

    async def astream(self: Any, messages: Any, *_more: Any, **_named: Any) -> AsyncIterator[Any]:
        for chunk in stream(self, messages):
            yield chunk

    members = {"_generate": generate, "_stream": stream, "_astream": astream, "_llm_type": property(lambda _self: "other")}
    return type("OtherModel", (chat.BaseChatModel,), {"__module__": __name__, **members})()


async def test_a_langchain_model_of_another_kind_is_asked_for_its_usage(stub: StubService, tallybook: Tallybook) -> None:
    model = tracked(other_langchain_model(), tallybook=tallybook, feature="ai_chat", customer_id="user_1")
    assert model.invoke(ASK).content == "over"
    assert (await model.ainvoke(ASK)).content == "over"
    assert "".join(chunk.content for chunk in model.stream(ASK)) == "over"
    assert "".join([chunk.content async for chunk in model.astream(ASK)]) == "over"
    await asyncio.to_thread(tallybook.flush, 10)
    assert [event[1:] for event in sent(stub)] == [(100, 20, 30, "final")] * 4


def test_embeddings_of_langchain_are_metered(fake: FakeProvider, stub: StubService, tallybook: Tallybook) -> None:
    kind = package("langchain_openai").OpenAIEmbeddings
    plain = kind(model="text-embedding-3-small", api_key="x", base_url=f"{fake.url}/v1", check_embedding_ctx_length=False)
    tracked(plain, tallybook=tallybook, feature="ai_chat", customer_id="user_1", provider="openai").embed_query("fox")
    tallybook.flush(10)
    assert sent(stub) == [("openai/text-embedding-3-small", 1037, 0, None, "final")]
