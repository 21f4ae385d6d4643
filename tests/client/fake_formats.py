"""The wire formats of OpenAI, Anthropic and Gemini: what the fake provider answers, and what each event of a stream tells of the tokens.

The model that serves is another one than the alias that was asked for. A request with tools gets a call of one until it has brought
the results of two.
"""

import base64
import binascii
import json
import struct
from dataclasses import dataclass
from typing import Any, cast

Json = dict[str, Any]
TOOL_STEPS = 3
PIECES = ("The ", "quick ", "brown ", "fox ", "jumps ", "over.")
SERVED_BY = {
    "gpt-4o": "gpt-4o-2024-08-06",
    "our-own-deployment": "gpt-4o-2024-08-06",
    "eu.anthropic.claude-sonnet-4-6-v1:0": "claude-sonnet-4-6-20260217",
    "claude-sonnet-4-6": "claude-sonnet-4-6-20260217",
    "gemini-flash-latest": "gemini-2.5-flash",
}


@dataclass(frozen=True, slots=True)
class Tokens:
    """What one answer used. The input is the whole prompt, cache included."""

    input: int
    output: int
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0


@dataclass(frozen=True, slots=True)
class Served:
    """An answer as far as it told its tokens: the ledger's line."""

    id: str
    model: str
    tokens: Tokens
    is_whole: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request gets: a body, or the events of a stream with what each tells to the ledger."""

    body: Json
    served: Served
    events: list[tuple[bytes, Served | None]]
    error: bytes


def served_by(asked: str) -> str:
    """The model behind a name."""
    return SERVED_BY.get(asked, asked)


def sse(data: Json | str, event: str = "") -> bytes:
    text = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"))
    named = f"event: {event}\n" if event else ""
    return f"{named}data: {text}\n\n".encode()


def wants_tool(body: Json, results: int) -> bool:
    return bool(body.get("tools")) and results < TOOL_STEPS - 1


def chat(body: Json, number: int, tokens: Tokens) -> Answer:
    response_id, model = f"chatcmpl-{number:024d}", served_by(body["model"])
    base = {"id": response_id, "created": 1_790_000_000, "model": model, "service_tier": "default"}
    usage = {
        "prompt_tokens": tokens.input,
        "completion_tokens": tokens.output,
        "total_tokens": tokens.input + tokens.output,
        "prompt_tokens_details": {"cached_tokens": tokens.cache_read, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 7},
    }
    served = Served(response_id, model, Tokens(tokens.input, tokens.output, tokens.cache_read))
    text = json.dumps({"answer": "".join(PIECES)}) if body.get("response_format") else "".join(PIECES)
    call = {"id": f"call_{number}", "type": "function", "function": {"name": "look_up", "arguments": '{"what":"fox"}'}}
    is_tool = wants_tool(body, sum(1 for message in body["messages"] if message["role"] == "tool"))
    message: Json = {"role": "assistant", "content": None if is_tool else text} | ({"tool_calls": [call]} if is_tool else {})
    reason = "tool_calls" if is_tool else "stop"
    whole = {
        **base,
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": usage,
    }
    options: Json = body.get("stream_options") or {}
    asks = options.get("include_usage")
    extra: Json = {"usage": None} if asks else {}
    pieces: list[Json] = [{"role": "assistant", "content": ""}]
    pieces += (
        [{"tool_calls": [{"index": 0, **call}]}]
        if is_tool
        else [{"content": piece} for piece in (PIECES if text[0] != "{" else [text])]
    )
    chunk = {**base, "object": "chat.completion.chunk"}
    events: list[tuple[bytes, Served | None]] = [
        (sse({**chunk, "choices": [{"index": 0, "delta": piece, "finish_reason": None}], **extra}), None) for piece in pieces
    ]
    events.append((sse({**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}], **extra}), None))
    if asks:
        events.append((sse({**chunk, "choices": [], "usage": usage}), served))
    events.append((sse("[DONE]"), None))
    return Answer(whole, served, events, sse({"error": {"message": "overloaded", "type": "server_error", "code": 500}}))


def embeddings(body: Json, tokens: Tokens) -> Answer:
    data = [{"object": "embedding", "index": index, "embedding": [0.1, 0.2]} for index, _ in enumerate(body["input"])]
    usage = {"prompt_tokens": tokens.input, "total_tokens": tokens.input}
    served = Served("", body["model"], Tokens(tokens.input, 0))
    return Answer({"object": "list", "data": data, "model": body["model"], "usage": usage}, served, [], b"")


def responses(body: Json, number: int, tokens: Tokens) -> Answer:
    response_id, model = f"resp_{number:024d}", served_by(body["model"])
    usage = {
        "input_tokens": tokens.input,
        "input_tokens_details": {"cached_tokens": tokens.cache_read, "cache_write_tokens": 0},
        "output_tokens": tokens.output,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": tokens.input + tokens.output,
    }
    item = response_item(body, number)
    whole: Json = {
        "id": response_id,
        "object": "response",
        "created_at": 1_790_000_000,
        "status": "completed",
        "model": model,
        "output": [item],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": usage,
        "metadata": {"usage": "of the caller's own"},
    }
    started: Json = {**whole, "status": "in_progress", "output": [], "usage": None}
    steps: list[Json] = [
        {"type": "response.created", "response": started},
        *item_steps(item),
        {"type": "response.completed", "response": whole},
    ]
    served = Served(response_id, model, Tokens(tokens.input, tokens.output, tokens.cache_read))
    events: list[tuple[bytes, Served | None]] = [
        (sse({**step, "sequence_number": place}, str(step["type"])), served if step["type"] == "response.completed" else None)
        for place, step in enumerate(steps)
    ]
    failed = {"type": "error", "code": "server_error", "message": "overloaded", "param": None, "sequence_number": 99}
    return Answer(whole, served, events, sse(failed, "error"))


def response_item(body: Json, number: int) -> Json:
    """What the model puts out: a message, or a call of a tool."""
    asked: str | list[Json] = body["input"]
    given: list[Json] = [] if isinstance(asked, str) else asked
    if wants_tool(body, sum(1 for item in given if item.get("type") == "function_call_output")):
        call = {"type": "function_call", "call_id": f"call_{number}", "name": "look_up", "arguments": '{"what":"fox"}'}
        return {"id": f"fc_{number}", "status": "completed", **call}
    is_json = cast("Json", body.get("text") or {}).get("format")
    text = json.dumps({"answer": "".join(PIECES)}) if is_json else "".join(PIECES)
    content = [{"type": "output_text", "text": text, "annotations": list[Json]()}]
    return {"id": f"msg_{number}", "type": "message", "role": "assistant", "status": "completed", "content": content}


def item_steps(item: Json) -> list[Json]:
    """How an item is streamed."""
    done = {"type": "response.output_item.done", "output_index": 0, "item": item}
    added = {"type": "response.output_item.added", "output_index": 0}
    if item["type"] == "function_call":
        delta = {"item_id": item["id"], "output_index": 0, "delta": item["arguments"]}
        begun = {**added, "item": {**item, "arguments": "", "status": "in_progress"}}
        return [begun, {"type": "response.function_call_arguments.delta", **delta}, done]
    text: str = item["content"][0]["text"]
    place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    pieces = [text] if text.startswith("{") else PIECES
    return [
        {**added, "item": {**item, "content": list[Json](), "status": "in_progress"}},
        {
            "type": "response.content_part.added",
            **place,
            "part": {"type": "output_text", "text": "", "annotations": list[Json]()},
        },
        *({"type": "response.output_text.delta", **place, "delta": piece, "logprobs": list[Json]()} for piece in pieces),
        {"type": "response.output_text.done", **place, "text": text, "logprobs": list[Json]()},
        done,
    ]


def messages(body: Json, number: int, tokens: Tokens) -> Answer:
    response_id, model = f"msg_{number:024d}", served_by(body["model"])
    usage = {
        "input_tokens": tokens.input - tokens.cache_read - tokens.cache_write,
        "cache_read_input_tokens": tokens.cache_read,
        "cache_creation_input_tokens": tokens.cache_write,
        "cache_creation": {
            "ephemeral_5m_input_tokens": tokens.cache_write - tokens.cache_write_1h,
            "ephemeral_1h_input_tokens": tokens.cache_write_1h,
        },
        "output_tokens": tokens.output,
        "service_tier": "standard",
    }
    results = [part for each in body["messages"] if isinstance(each["content"], list) for part in each["content"]]
    is_tool = wants_tool(body, sum(1 for part in results if part.get("type") == "tool_result"))
    call = {"type": "tool_use", "id": f"toolu_{number}", "name": "look_up", "input": {"what": "fox"}}
    content = [call] if is_tool else [{"type": "text", "text": "".join(PIECES)}]
    reason = "tool_use" if is_tool else "end_turn"
    base: Json = {"id": response_id, "type": "message", "role": "assistant", "model": model, "stop_sequence": None}
    whole = {**base, "content": content, "stop_reason": reason, "usage": usage}
    start: Json = {**base, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    begun = Served(
        response_id, model, Tokens(tokens.input, 1, tokens.cache_read, tokens.cache_write, tokens.cache_write_1h), is_whole=False
    )
    served = Served(response_id, model, tokens)
    block: Json = {**call, "input": {}} if is_tool else {"type": "text", "text": ""}
    deltas: list[Json] = (
        [{"type": "input_json_delta", "partial_json": '{"what":"fox"}'}]
        if is_tool
        else [{"type": "text_delta", "text": piece} for piece in PIECES]
    )
    steps: list[tuple[Json, Served | None]] = [
        ({"type": "message_start", "message": start}, begun),
        ({"type": "content_block_start", "index": 0, "content_block": block}, None),
        *(({"type": "content_block_delta", "index": 0, "delta": delta}, None) for delta in deltas),
        ({"type": "content_block_stop", "index": 0}, None),
        (
            {
                "type": "message_delta",
                "delta": {"stop_reason": reason, "stop_sequence": None},
                "usage": {"output_tokens": tokens.output},
            },
            served,
        ),
        ({"type": "message_stop"}, None),
    ]
    events = [(sse(step, step["type"]), told) for step, told in steps]
    error = sse({"type": "error", "error": {"type": "overloaded_error", "message": "overloaded"}}, "error")
    return Answer(whole, served, events, error)


def gemini(body: Json, model_asked: str, number: int, tokens: Tokens) -> Answer:
    response_id, model = f"gemini-response-{number:012d}", served_by(model_asked)
    parts = [part for content in body["contents"] for part in content.get("parts", [])]
    is_tool = wants_tool(body, sum(1 for part in parts if "functionResponse" in part))
    call = {"functionCall": {"name": "look_up", "args": {"what": "fox"}}}

    def chunk(parts: list[Json], output: int, reason: str | None) -> Json:
        usage = {
            "promptTokenCount": tokens.input,
            "cachedContentTokenCount": tokens.cache_read,
            "candidatesTokenCount": output - 5,
            "thoughtsTokenCount": 5,
            "totalTokenCount": tokens.input + output,
        }
        candidate = {"content": {"role": "model", "parts": parts}, "index": 0} | ({"finishReason": reason} if reason else {})
        return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": model, "responseId": response_id}

    def told(output: int, *, is_whole: bool) -> Served:
        return Served(response_id, model, Tokens(tokens.input, output, tokens.cache_read), is_whole=is_whole)

    whole = chunk([call] if is_tool else [{"text": "".join(PIECES)}], tokens.output, "STOP")
    pieces: list[list[Json]] = [[call]] if is_tool else [[{"text": piece}] for piece in PIECES]
    events: list[tuple[bytes, Served | None]] = []
    for place, piece in enumerate(pieces):
        is_last = place == len(pieces) - 1
        output = tokens.output if is_last else 10 + place
        events.append((sse(chunk(piece, output, "STOP" if is_last else None)), told(output, is_whole=is_last)))
    error = sse({"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}})
    return Answer(whole, told(tokens.output, is_whole=True), events, error)


def answer_to(path: str, body: Json, number: int, tokens: Tokens) -> Answer:
    if path.endswith("/chat/completions"):
        return chat(body, number, tokens)
    if path.endswith("/responses"):
        return responses(body, number, tokens)
    if path.endswith("/embeddings"):
        return embeddings(body, tokens)
    if path.endswith("/messages"):
        return messages(body, number, tokens)
    model = path.rpartition("/models/")[2].partition(":")[0]
    return gemini(body, model, number, tokens)


FRAMES = "application/vnd.amazon.eventstream"


def bedrock_of(path: str) -> Json:
    """What the path of a Bedrock call says, as the body of Anthropic's own does; empty for other paths."""
    parts = path.split("/")
    if parts[1] != "model":
        return {}
    return {"model": parts[2], "stream": parts[3] == "invoke-with-response-stream"}


def framed(answer: Answer) -> Answer:
    """The events of an answer as AWS wraps them."""
    events = [(frame(chunk_of(event), "event", "chunk"), told) for event, told in answer.events]
    error = frame(json.dumps({"message": "overloaded"}).encode(), "exception", "throttlingException")
    return Answer(answer.body, answer.served, events, error)


def chunk_of(event: bytes) -> bytes:
    data = event.partition(b"data: ")[2].rstrip()
    return json.dumps({"bytes": base64.b64encode(data).decode()}).encode()


def frame(payload: bytes, kind: str, name: str) -> bytes:
    """A frame: lengths and their checksum, headers, the payload, and a checksum of all."""
    named = {":message-type": kind, f":{kind}-type": name, ":content-type": "application/json"}
    headers = b"".join(
        struct.pack("!B", len(key)) + key.encode() + struct.pack("!BH", 7, len(value)) + value.encode()
        for key, value in named.items()
    )
    lengths = struct.pack("!II", 16 + len(headers) + len(payload), len(headers))
    checked = lengths + struct.pack("!I", binascii.crc32(lengths)) + headers + payload
    return checked + struct.pack("!I", binascii.crc32(checked))
