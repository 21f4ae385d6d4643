"""How the libraries around the SDKs are used in the provider tests, and all cases."""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.client.fake_provider import FakeProvider
from tests.client.provider_cases import (
    ASK,
    TOOL,
    AnthropicMessages,
    AzureChat,
    BedrockMessages,
    Case,
    Gemini,
    Json,
    OpenAIChat,
    OpenAIResponses,
    package,
)


async def in_loop_of_its_own(do: Callable[[], Any]) -> Any:
    """The result of a sync function that runs an event loop, which can't be done inside the test's."""

    def run() -> Any:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            return do()
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    return await asyncio.to_thread(run)


class LiteLLM(OpenAIChat):
    """The module itself is the client; where it sends to is an argument of each call."""

    name = "litellm openai"
    model = "openai/gpt-4o"

    def client(self, fake: FakeProvider, *, is_async: bool) -> Any:
        for needed in ("mcp", "tenacity"):  # litellm imports them for calls with tools, and to try again
            package(needed)
        os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
        module = package("litellm")
        vars(module)["suppress_debug_info"] = True
        self.target = {"api_base": f"{fake.url}/v1", "api_key": "x", "num_retries": 2}
        self.is_async = is_async
        return module

    def create(self, client: Any, messages: list[Json] | None = None, **more: Any) -> Any:
        function = client.acompletion if self.is_async else client.completion
        return function(model=self.model, messages=messages or [{"role": "user", "content": ASK}], **self.target, **more)

    def seen(self, item: Any) -> Any:
        return type(item).__name__, without_time(item.model_dump(mode="json"))


class LiteLLMAnthropic(LiteLLM):
    name = "litellm anthropic"
    model = "anthropic/claude-sonnet-4-6"

    def client(self, fake: FakeProvider, *, is_async: bool) -> Any:
        module = super().client(fake, is_async=is_async)
        self.target["api_base"] = fake.url
        return module


class PydanticAI:
    """The agent is the client; it runs the loop with the tool by itself."""

    name = "pydantic-ai openai"
    events_of_two_texts = 3
    """So many events of the provider have come when the caller has two pieces of text."""

    def model(self, fake: FakeProvider) -> Any:
        sdk = package("openai").AsyncOpenAI(api_key="x", base_url=f"{fake.url}/v1")
        provider = package("pydantic_ai.providers.openai").OpenAIProvider(openai_client=sdk)
        return package("pydantic_ai.models.openai").OpenAIChatModel("gpt-4o", provider=provider)

    def client(self, fake: FakeProvider, *, is_async: bool) -> Any:
        self.is_async = is_async
        return package("pydantic_ai").Agent(self.model(fake))

    async def call(self, client: Any) -> Any:
        if self.is_async:
            return (await client.run(ASK)).output
        return await in_loop_of_its_own(lambda: client.run_sync(ASK).output)

    async def stream(self, client: Any) -> Any:
        return pydantic_texts(client) if self.is_async else InThread(lambda: pydantic_texts_sync(client))

    async def loop(self, client: Any) -> list[Any]:
        def look_up(what: str) -> str:
            return f"{what} jumps"

        toolset = package("pydantic_ai.toolsets").FunctionToolset([look_up])
        if self.is_async:
            return [(await client.run(ASK, toolsets=[toolset])).output]
        return [await in_loop_of_its_own(lambda: client.run_sync(ASK, toolsets=[toolset]).output)]

    def seen(self, item: Any) -> Any:
        return item


def pydantic_texts_sync(agent: Any) -> Generator[str]:
    with agent.run_stream_sync(ASK) as result:
        yield from result.stream_text(delta=True, debounce_by=None)


class InThread(Iterator[Any]):
    """A generator that runs in a thread with an event loop of its own, which is not running between its items."""

    def __init__(self, make: Callable[[], Generator[Any]]) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = ThreadPoolExecutor(1, initializer=lambda: asyncio.set_event_loop(self._loop))
        self._source = make()

    def __next__(self) -> Any:
        item = self._thread.submit(next, self._source, self).result()
        if item is self:
            raise StopIteration
        return item

    def close(self) -> None:
        self._thread.submit(self._source.close).result()
        self._thread.submit(self._loop.close).result()
        self._thread.shutdown()


async def pydantic_texts(agent: Any) -> AsyncGenerator[str]:
    async with agent.run_stream(ASK) as result:
        async for text in result.stream_text(delta=True, debounce_by=None):
            yield text


class PydanticAIAnthropic(PydanticAI):
    name = "pydantic-ai anthropic"
    events_of_two_texts = 4

    def model(self, fake: FakeProvider) -> Any:
        sdk = package("anthropic").AsyncAnthropic(api_key="x", base_url=fake.url)
        provider = package("pydantic_ai.providers.anthropic").AnthropicProvider(anthropic_client=sdk)
        return package("pydantic_ai.models.anthropic").AnthropicModel("claude-sonnet-4-6", provider=provider)


class PydanticAIGoogle(PydanticAI):
    name = "pydantic-ai google"
    events_of_two_texts = 2

    def model(self, fake: FakeProvider) -> Any:
        provider = package("pydantic_ai.providers.google").GoogleProvider(client=Gemini().client(fake, is_async=True))
        return package("pydantic_ai.models.google").GoogleModel("gemini-flash-latest", provider=provider)


class LangChain:
    name = "langchain openai"

    def client(self, fake: FakeProvider, *, is_async: bool) -> Any:
        self.is_async = is_async
        return package("langchain_openai").ChatOpenAI(model="gpt-4o", api_key="x", base_url=f"{fake.url}/v1", max_retries=2)

    async def call(self, client: Any) -> Any:
        return await client.ainvoke(ASK) if self.is_async else client.invoke(ASK)

    async def stream(self, client: Any) -> Any:
        return client.astream(ASK) if self.is_async else client.stream(ASK)

    async def loop(self, client: Any) -> list[Any]:
        core = package("langchain_core.messages")
        bound = client.bind_tools([{"name": "look_up", "description": "Look something up.", "parameters": TOOL}])
        messages: list[Any] = [core.HumanMessage(ASK)]
        while True:
            answer = await bound.ainvoke(messages) if self.is_async else bound.invoke(messages)
            messages.append(answer)
            if not answer.tool_calls:
                return [each for each in messages if each.type == "ai"]
            messages += [core.ToolMessage("jumps", tool_call_id=call["id"]) for call in answer.tool_calls]

    def seen(self, item: Any) -> Any:
        return type(item).__name__, without_run_id(item.model_dump(mode="json"))


class LangChainAnthropic(LangChain):
    name = "langchain anthropic"

    def client(self, fake: FakeProvider, *, is_async: bool) -> Any:
        self.is_async = is_async
        return package("langchain_anthropic").ChatAnthropic(
            model="claude-sonnet-4-6", api_key="x", base_url=fake.url, max_retries=2
        )


def without_run_id(message: Json) -> Json:
    """A message without the id that LangChain gives each run."""
    return {**message, "id": str(message["id"]).startswith("lc_run-") or message["id"]}


def without_time(answer: Json) -> Json:
    """An answer without the id and the times that litellm makes up."""
    own = ("id", "created") if str(answer["id"]).count("-") > 1 else ("created",)
    return {name: value for name, value in answer.items() if name not in own}


CASES: tuple[Case, ...] = (
    OpenAIChat(),
    AzureChat(),
    OpenAIResponses(),
    AnthropicMessages(),
    BedrockMessages(),
    Gemini(),
    LiteLLM(),
    LiteLLMAnthropic(),
    PydanticAI(),
    PydanticAIAnthropic(),
    PydanticAIGoogle(),
    LangChain(),
    LangChainAnthropic(),
)
