"""The many forms of one call, and the arguments of tracked(): against the fake provider and a scripted service."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from tallybook.client import Tallybook, tracked
from tests.client import fake_provider
from tests.client.comparing import counts, served
from tests.client.fake_provider import FakeProvider
from tests.client.provider_cases import (
    ASK,
    AnthropicMessages,
    OpenAIChat,
    OpenAIResponses,
    anyhow,
    package,
    shut,
    take,
)
from tests.client.quiet import SDKS_ARE_QUIET
from tests.client.stub_service import StubService

pytestmark = SDKS_ARE_QUIET
Json = dict[str, Any]
CHAT: Json = {"model": "gpt-4o", "messages": [{"role": "user", "content": ASK}]}
MESSAGE: Json = {"model": "claude-sonnet-4-6", "max_tokens": 100, "messages": [{"role": "user", "content": ASK}]}
SCHEMA: Json = {
    "type": "object",
    "properties": {"answer": {"type": "string"}},
    "required": ["answer"],
    "additionalProperties": False,
}
FORMAT: Json = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}
TEXT_FORMAT: Json = {"format": {"type": "json_schema", "name": "answer", "schema": SCHEMA, "strict": True}}


def plain_value(value: Any) -> Any:
    """What a form gave the caller, as values that can be compared."""
    if hasattr(value, "to_dict"):
        return value.to_dict()
    return [plain_value(each) for each in cast("list[Any]", value)] if isinstance(value, list) else value


# Each form is a way to make one call and returns what the caller saw.


async def chat_raw(client: Any) -> Any:
    raw = await anyhow(client.chat.completions.with_raw_response.create(**CHAT))
    return [raw.status_code, raw.parse(), raw.text if isinstance(raw.text, str) else None]


async def chat_raw_streamed(client: Any) -> Any:
    raw = await anyhow(client.chat.completions.with_raw_response.create(**CHAT, stream=True))
    return await take(raw.parse())


async def chat_unread(client: Any) -> Any:
    manager = client.chat.completions.with_streaming_response.create(**CHAT)
    async with contextlib.AsyncExitStack() as stack:
        response = await entered(stack, manager)
        return [await anyhow(response.json())]


async def chat_lines(client: Any) -> Any:
    manager = client.chat.completions.with_streaming_response.create(**CHAT, stream=True)
    async with contextlib.AsyncExitStack() as stack:
        response = await entered(stack, manager)
        return await take(response.iter_lines())


async def chat_lines_broken_off(client: Any) -> Any:
    manager = client.chat.completions.with_streaming_response.create(**CHAT, stream=True)
    async with contextlib.AsyncExitStack() as stack:
        response = await entered(stack, manager)
        return await take(response.iter_lines(), 3)


async def chat_parse(client: Any) -> Any:
    return await anyhow(client.chat.completions.parse(**CHAT, response_format=FORMAT))


async def chat_helper(client: Any) -> Any:
    async with contextlib.AsyncExitStack() as stack:
        stream = await entered(stack, client.chat.completions.stream(**CHAT))
        events = [event.type for event in await take(stream)]
        return [events, await anyhow(stream.get_final_completion())]


async def chat_helper_broken_off(client: Any) -> Any:
    async with contextlib.AsyncExitStack() as stack:
        stream = await entered(stack, client.chat.completions.stream(**CHAT))
        return [event.type for event in await take(stream, 2)]


async def chat_with_usage_asked_for(client: Any) -> Any:
    stream = await anyhow(client.chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True}))
    return await take(stream)


async def chat_closed_before_the_first_chunk(client: Any) -> Any:
    stream = await anyhow(client.chat.completions.create(**CHAT, stream=True))
    await anyhow(stream.close())
    with pytest.raises(Exception) as after:  # noqa: PT011 - which one it is, is what is compared
        await take(stream)
    return type(after.value).__name__


async def chat_read_on_after_closing(client: Any) -> Any:
    stream = await anyhow(client.chat.completions.create(**CHAT, stream=True))
    await take(stream, 1)
    await anyhow(stream.close())
    with pytest.raises(Exception) as after:  # noqa: PT011 - which one it is, is what is compared
        await take(stream)
    return [type(after.value).__name__, stream.response.is_closed]


async def chat_with_other_options(client: Any) -> Any:
    return await anyhow(client.with_options(max_retries=5).chat.completions.create(**CHAT))


async def embeddings(client: Any) -> Any:
    return await anyhow(client.embeddings.create(model="text-embedding-3-small", input=["a", "b"], encoding_format="float"))


async def responses_raw(client: Any) -> Any:
    raw = await anyhow(client.responses.with_raw_response.create(model="gpt-4o", input=ASK))
    return raw.parse()


async def responses_helper(client: Any) -> Any:
    async with contextlib.AsyncExitStack() as stack:
        stream = await entered(stack, client.responses.stream(model="gpt-4o", input=ASK))
        events = [event.type for event in await take(stream)]
        return [events, await anyhow(stream.get_final_response())]


async def responses_parse(client: Any) -> Any:
    return await anyhow(client.responses.parse(model="gpt-4o", input=ASK, text=TEXT_FORMAT))


async def messages_raw(client: Any) -> Any:
    raw = await anyhow(client.messages.with_raw_response.create(**MESSAGE))
    return await anyhow(raw.parse())


async def messages_lines(client: Any) -> Any:
    manager = client.messages.with_streaming_response.create(**MESSAGE, stream=True)
    async with contextlib.AsyncExitStack() as stack:
        response = await entered(stack, manager)
        return await take(response.iter_lines())


async def messages_helper(client: Any) -> Any:
    async with contextlib.AsyncExitStack() as stack:
        stream = await entered(stack, client.messages.stream(**MESSAGE))
        text = await take(stream.text_stream)
        return [text, await anyhow(stream.get_final_message())]


async def messages_helper_broken_off(client: Any) -> Any:
    async with contextlib.AsyncExitStack() as stack:
        stream = await entered(stack, client.messages.stream(**MESSAGE))
        return await take(stream.text_stream, 2)


async def messages_tool_runner(client: Any) -> Any:
    sdk = package("anthropic")
    is_async = "Async" in type(client).__name__

    def look_up(what: str) -> str:
        """Look something up."""
        return f"{what} jumps"

    async def look_up_async(what: str) -> str:
        """Look something up."""
        return look_up(what)

    tool = sdk.beta_async_tool(name="look_up")(look_up_async) if is_async else sdk.beta_tool(name="look_up")(look_up)
    return await take(client.beta.messages.tool_runner(**MESSAGE, tools=[tool]))


async def entered(stack: contextlib.AsyncExitStack, manager: Any) -> Any:
    """Enter a manager of either kind."""
    return await stack.enter_async_context(manager) if hasattr(manager, "__aenter__") else stack.enter_context(manager)


CHAT_FORMS = (
    chat_raw,
    chat_raw_streamed,
    chat_unread,
    chat_lines,
    chat_lines_broken_off,
    chat_parse,
    chat_helper,
    chat_helper_broken_off,
    chat_with_usage_asked_for,
    chat_closed_before_the_first_chunk,
    chat_read_on_after_closing,
    chat_with_other_options,
    embeddings,
)
FORMS = (
    *((OpenAIChat(), form) for form in CHAT_FORMS),
    *((OpenAIResponses(), form) for form in (responses_raw, responses_helper, responses_parse)),
    *(
        (AnthropicMessages(), form)
        for form in (messages_raw, messages_lines, messages_helper, messages_helper_broken_off, messages_tool_runner)
    ),
)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(("case", "form"), FORMS, ids=[form.__name__ for _, form in FORMS])
async def test_every_form_of_a_call_is_metered_and_looks_the_same(
    case: Any,
    form: Callable[[Any], Awaitable[Any]],
    fake: FakeProvider,
    stub: StubService,
    tallybook: Tallybook,
    *,
    is_async: bool,
) -> None:
    with fake_provider.running() as other:
        plain = case.client(other, is_async=is_async)
        without = plain_value(await form(plain))
        await shut(plain)
    original = case.client(fake, is_async=is_async)
    client = tracked(original, tallybook=tallybook, feature="ai_chat", customer_id="user_1")
    seen = plain_value(await form(client))
    assert await asyncio.to_thread(tallybook.flush, 10)
    await shut(client)
    assert seen == without
    assert sorted(counts(event) for event in stub.recorded.values()) == sorted(served(line) for line in fake.ledger)
