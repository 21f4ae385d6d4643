"""How each AI client is used in the provider tests: once in words that fit its sync and its async form.

A case makes a client for a fake provider, calls it, streams from it, and runs a loop of three calls with a tool. What the caller gets
is turned into plain values, so that a tracked client and a plain one can be compared.
"""

import inspect
from typing import Any, Protocol

import pytest

from tests.client.fake_formats import Served, Tokens
from tests.client.fake_provider import FakeProvider

Json = dict[str, Any]
ASK = "What does the fox do?"
TOOL = {"type": "object", "properties": {"what": {"type": "string"}}, "required": ["what"]}

NANO_PER_TOKEN = {
    "openai/gpt-4o": Tokens(2500, 10_000, 1250),
    "openai/text-embedding-3-small": Tokens(20, 0),
    "anthropic/claude-sonnet-4.6": Tokens(3000, 15_000, 300, 3750, 6000),
    "google/gemini-2.5-flash": Tokens(300, 2500, 30),
}
"""Prices in nano-USD, typed in from the providers' pages, not read from the catalog."""
CATALOG_NAMES = {
    "gpt-4o-2024-08-06": "openai/gpt-4o",
    "text-embedding-3-small": "openai/text-embedding-3-small",
    "claude-sonnet-4-6-20260217": "anthropic/claude-sonnet-4.6",
    "gemini-2.5-flash": "google/gemini-2.5-flash",
}
MARGIN_PERCENT = 20


def charge_nano(served: Served) -> int:
    """What the customer pays for an answer: the price of the model that served, and the margin."""
    used, price = served.tokens, NANO_PER_TOKEN[CATALOG_NAMES[served.model]]
    plain = used.input - used.cache_read - used.cache_write
    cost = plain * price.input + used.output * price.output + used.cache_read * price.cache_read
    cost += (used.cache_write - used.cache_write_1h) * price.cache_write + used.cache_write_1h * price.cache_write_1h
    return cost * (100 + MARGIN_PERCENT) // 100


def package(name: str) -> Any:
    """An SDK, or a skip that says what is missing."""
    return pytest.importorskip(name, reason=f"the package {name} can't be installed here (extra dev)")


async def anyhow(value: Any) -> Any:
    """A value, awaited if it can be."""
    return await value if inspect.isawaitable(value) else value


async def take(stream: Any, most: int | None = None, *, is_async: bool = True) -> list[Any]:
    """The items of a stream, or the first of them. `is_async` says how to read one that can be read in both ways."""
    items: list[Any] = []
    if hasattr(stream, "__aiter__") and (is_async or not hasattr(stream, "__iter__")):
        async for item in stream:
            items.append(item)
            if len(items) == most:
                break
    else:
        for item in stream:
            items.append(item)
            if len(items) == most:
                break
    return items


async def close(stream: Any) -> None:
    """Close a stream the way it has; forget one that has none."""
    method = (getattr(stream, "aclose", None) if hasattr(stream, "__anext__") else None) or getattr(stream, "close", None)
    if method is not None:
        await anyhow(method())


async def shut(client: Any) -> None:
    """Close a client that can be closed."""
    if hasattr(client, "aio"):
        await client.aio.aclose()
    method = getattr(client, "close", None)
    if method is not None:
        await anyhow(method())


class Case(Protocol):
    """One client."""

    name: str

    def client(self, fake: FakeProvider, *, is_async: bool) -> Any:
        """A new client for a fake provider."""
        ...

    async def call(self, client: Any) -> Any:
        """One plain call."""
        ...

    async def stream(self, client: Any) -> Any:
        """One streamed call, not read yet."""
        ...

    async def loop(self, client: Any) -> list[Any]:
        """Three calls: the model asks for a tool twice, then answers."""
        ...

    def seen(self, item: Any) -> Any:
        """An answer or a part of a stream as plain values."""
        ...


class OpenAIChat:
    name = "openai chat"
    tools = ({"type": "function", "function": {"name": "look_up", "parameters": TOOL}},)

    def client(self, fake: FakeProvider, *, is_async: bool) -> Any:
        sdk = package("openai")
        return (sdk.AsyncOpenAI if is_async else sdk.OpenAI)(api_key="x", base_url=f"{fake.url}/v1")

    def create(self, client: Any, messages: list[Json] | None = None, **more: Any) -> Any:
        return client.chat.completions.create(model="gpt-4o", messages=messages or [{"role": "user", "content": ASK}], **more)

    async def call(self, client: Any) -> Any:
        return await anyhow(self.create(client))

    async def stream(self, client: Any) -> Any:
        return await anyhow(self.create(client, stream=True))

    async def loop(self, client: Any) -> list[Any]:
        messages: list[Json] = [{"role": "user", "content": ASK}]
        answers: list[Any] = []
        while True:
            answers.append(await anyhow(self.create(client, messages, tools=self.tools)))
            message = answers[-1].choices[0].message
            messages.append(message.to_dict() if hasattr(message, "to_dict") else message.model_dump())
            if not message.tool_calls:
                return answers
            messages += [{"role": "tool", "tool_call_id": call.id, "content": "jumps"} for call in message.tool_calls]

    def seen(self, item: Any) -> Any:
        return type(item).__name__, item.to_dict(), sorted(item.model_fields_set)


class AzureChat(OpenAIChat):
    """The model that is asked for is the name of a deployment; the answer says which model served."""

    name = "openai azure"

    def client(self, fake: FakeProvider, *, is_async: bool) -> Any:
        sdk = package("openai")
        kind = sdk.AsyncAzureOpenAI if is_async else sdk.AzureOpenAI
        return kind(api_key="x", azure_endpoint=fake.url, api_version="2024-10-21")

    def create(self, client: Any, messages: list[Json] | None = None, **more: Any) -> Any:
        given = messages or [{"role": "user", "content": ASK}]
        return client.chat.completions.create(model="our-own-deployment", messages=given, **more)


class OpenAIResponses(OpenAIChat):
    name = "openai responses"
    tools = ({"type": "function", "name": "look_up", "parameters": TOOL, "strict": False},)

    def create(self, client: Any, messages: list[Json] | None = None, **more: Any) -> Any:
        return client.responses.create(model="gpt-4o", input=messages or ASK, **more)

    async def loop(self, client: Any) -> list[Any]:
        given: list[Json] = [{"role": "user", "content": ASK}]
        answers: list[Any] = []
        while True:
            answers.append(await anyhow(self.create(client, given, tools=self.tools)))
            calls = [item for item in answers[-1].output if item.type == "function_call"]
            if not calls:
                return answers
            given += [call.to_dict() for call in calls]
            given += [{"type": "function_call_output", "call_id": call.call_id, "output": "jumps"} for call in calls]


class AnthropicMessages(OpenAIChat):
    name = "anthropic"
    model = "claude-sonnet-4-6"

    def client(self, fake: FakeProvider, *, is_async: bool) -> Any:
        sdk = package("anthropic")
        return (sdk.AsyncAnthropic if is_async else sdk.Anthropic)(api_key="x", base_url=fake.url)

    def create(self, client: Any, messages: list[Json] | None = None, **more: Any) -> Any:
        given = messages or [{"role": "user", "content": ASK}]
        return client.messages.create(model=self.model, max_tokens=100, messages=given, **more)

    async def loop(self, client: Any) -> list[Any]:
        tools = [{"name": "look_up", "input_schema": TOOL}]
        messages: list[Json] = [{"role": "user", "content": ASK}]
        answers: list[Any] = []
        while True:
            answers.append(await anyhow(self.create(client, messages, tools=tools)))
            calls = [block for block in answers[-1].content if block.type == "tool_use"]
            if not calls:
                return answers
            messages.append({"role": "assistant", "content": [call.to_dict() for call in calls]})
            messages.append(
                {
                    "role": "user",
                    "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "jumps"} for call in calls],
                }
            )


class BedrockMessages(AnthropicMessages):
    """Streams come in the frames of AWS."""

    name = "anthropic bedrock"
    model = "eu.anthropic.claude-sonnet-4-6-v1:0"

    def client(self, fake: FakeProvider, *, is_async: bool) -> Any:
        sdk, _ = package("anthropic"), package("botocore")
        kind = sdk.AsyncAnthropicBedrock if is_async else sdk.AnthropicBedrock
        return kind(aws_access_key="x", aws_secret_key="x", aws_region="eu-central-1", base_url=fake.url)


class Gemini:
    """The SDK runs the loop with the tool by itself, so the caller sees its end only."""

    name = "google-genai"

    def client(self, fake: FakeProvider, *, is_async: bool) -> Any:
        sdk = package("google.genai")
        again = {"attempts": 3, "initial_delay": 0.01, "max_delay": 0.01, "jitter": 0.01}
        client = sdk.Client(api_key="x", vertexai=False, http_options={"base_url": fake.url, "retry_options": again})
        client.tallybook_test_is_async = is_async
        return client

    def models(self, client: Any) -> Any:
        return client.aio.models if client.tallybook_test_is_async else client.models

    async def call(self, client: Any) -> Any:
        return await anyhow(self.models(client).generate_content(model="gemini-flash-latest", contents=ASK))

    async def stream(self, client: Any) -> Any:
        return await anyhow(self.models(client).generate_content_stream(model="gemini-flash-latest", contents=ASK))

    async def loop(self, client: Any) -> list[Any]:
        def look_up(what: str) -> str:
            """Look something up."""
            return f"{what} jumps"

        config = {"tools": [look_up]}
        return [await anyhow(self.models(client).generate_content(model="gemini-flash-latest", contents=ASK, config=config))]

    def seen(self, item: Any) -> Any:
        return type(item).__name__, item.model_dump(mode="json", exclude={"sdk_http_response"})
