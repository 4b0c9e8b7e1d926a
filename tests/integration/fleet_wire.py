"""How agents of different frameworks write their histories, and read answers, in three APIs.

Owns what a framework changes in a history between two turns; the changes are those that were seen in
captures of OpenHands SDK 1.58, SWE-agent 1.1, LangChain 1.x, the ai-sdk of opencode 1.18, Codex 0.169 and
Claude Code. It must not know sessions.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from tests.integration.fleet_answers import ARGUMENTS
from tests.marsproxy.core.agent_fleet import Message

Json = dict[str, Any]
TOOL = {"name": "bash", "description": "Run a command.", "parameters": {"type": "object"}}


@dataclass(frozen=True, slots=True)
class Wire:
    """One API as one framework speaks it."""

    name: str
    path: str
    history: Callable[[tuple[Message, ...]], Json]
    """The members of the body that carry it."""
    tool: Json
    read_body: Callable[[Json], Message]
    read_events: Callable[[list[Json]], Message]
    last_event: str
    """Type of the event after which clients know that there is no more; chat has ``[DONE]`` for it."""


# -- chat completions ----------------------------------------------------------------------------------


def chat_message(message: Message) -> Json:
    """As plain as the API allows: no words beside a call are no content at all."""
    plain: Json = {"role": message.role, "content": message.text}
    if message.role == "tool":
        return plain | {"tool_call_id": message.call_ids[0]}
    if message.call_ids:
        plain["tool_calls"] = [chat_call(call, ARGUMENTS) for call in message.call_ids]
        if not message.text:
            del plain["content"]
    return plain


def chat_call(call_id: str, arguments: str) -> Json:
    return {"id": call_id, "type": "function", "function": {"name": "bash", "arguments": arguments}}


def plain_chat(messages: tuple[Message, ...]) -> Json:
    return {"messages": [chat_message(each) for each in messages]}


def openhands_chat(messages: tuple[Message, ...]) -> Json:
    """Everything in blocks, the tool's name beside its result, litellm's fields beside the rest."""
    return {"messages": [_openhands_message(each) for each in messages]}


def _openhands_message(message: Message) -> Json:
    sent = chat_message(message) | {"content": _text_blocks(message.text)}
    if message.role == "tool":
        sent["name"] = "bash"
    if message.role == "assistant":
        sent |= {"provider_specific_fields": {"refusal": None}, "function_call": None}
    return sent


def _text_blocks(text: str) -> list[Json]:
    return [{"type": "text", "text": text}] if text else []


def swe_agent_chat(messages: tuple[Message, ...]) -> Json:
    """The two latest of the user's messages and results carry a cache mark, which moves on every turn."""
    sent = [chat_message(each) for each in messages]
    for each in [each for each in sent if each["role"] in ("user", "tool")][-2:]:
        each["content"] = _text_blocks(each["content"])
        each["cache_control"] = {"type": "ephemeral"}
    for number, call in enumerate(call for each in sent for call in each.get("tool_calls", [])):
        call["index"] = number
    return {"messages": sent}


def langchain_chat(messages: tuple[Message, ...]) -> Json:
    """Arguments written anew, answers trimmed, null where there were no words."""
    return {"messages": [_langchain_message(each) for each in messages]}


def _langchain_message(message: Message) -> Json:
    sent = chat_message(message)
    if message.role == "assistant":
        sent["content"] = message.text.strip() or None
        for call in sent.get("tool_calls", []):
            call["function"]["arguments"] = json.dumps(json.loads(ARGUMENTS), indent=1)
    return sent


def read_chat_body(answer: Json) -> Message:
    message = answer["choices"][0]["message"]
    return Message("assistant", message["content"] or "", tuple(call["id"] for call in message["tool_calls"]))


def read_chat_events(chunks: list[Json]) -> Message:
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    calls = [call for delta in deltas for call in delta.get("tool_calls", [])]
    return Message(
        "assistant",
        "".join(delta.get("content") or "" for delta in deltas),
        tuple(call["id"] for call in calls if "id" in call),
    )


# -- responses -----------------------------------------------------------------------------------------


def codex_responses(messages: tuple[Message, ...]) -> Json:
    """Every item typed, with an id of the client's; reasoning kept before what it led to."""
    items = [item for number, each in enumerate(messages) for item in _codex_items(number, each)]
    return {"input": items, "store": False}


def _codex_items(number: int, message: Message) -> Iterator[Json]:
    match message.role:
        case "tool":
            yield _call_output(message) | {"id": f"fco_{number}"}
            return
        case "assistant":
            yield {"type": "reasoning", "summary": [], "encrypted_content": "gAAA"}
            kind = "output_text"
        case _:
            kind = "input_text"
    if message.text:
        role = "developer" if message.role == "system" else message.role
        content = [{"type": kind, "text": message.text}]
        yield {"type": "message", "id": f"msg_{number}", "role": role, "content": content}
    for call in message.call_ids:
        yield _function_call(call) | {"status": "completed", "id": f"fc_{call}"}


def plain_responses(messages: tuple[Message, ...]) -> Json:
    """Instructions apart, texts as strings, reasoning and item ids dropped."""
    system, *rest = messages
    return {"instructions": system.text, "input": [item for each in rest for item in _plain_items(each)]}


def _plain_items(message: Message) -> Iterator[Json]:
    if message.role == "tool":
        yield _call_output(message)
        return
    if message.text:
        yield {"role": message.role, "content": message.text}
    yield from map(_function_call, message.call_ids)


def _function_call(call_id: str) -> Json:
    return {"type": "function_call", "call_id": call_id, "name": "bash", "arguments": ARGUMENTS}


def _call_output(message: Message) -> Json:
    return {"type": "function_call_output", "call_id": message.call_ids[0], "output": message.text}


def read_responses_body(answer: Json) -> Message:
    output = answer["output"]
    texts = [part["text"] for item in output if item["type"] == "message" for part in item["content"]]
    calls = tuple(item["call_id"] for item in output if item["type"] == "function_call")
    return Message("assistant", "".join(texts), calls)


def read_responses_events(events: list[Json]) -> Message:
    return read_responses_body(events[-1]["response"])


# -- messages ------------------------------------------------------------------------------------------


def claude_messages(messages: tuple[Message, ...]) -> Json:
    """System apart and with a block that is never the same, results of one turn together, the cache mark
    on the latest block."""
    system, *rest = messages
    grouped = groupby(rest, key=lambda each: "assistant" if each.role == "assistant" else "user")
    sent = [
        {"role": role, "content": [block for each in group for block in _claude_blocks(each)]}
        for role, group in grouped
    ]
    sent[-1]["content"][-1]["cache_control"] = {"type": "ephemeral"}
    billing = {"type": "text", "text": f"x-anthropic-billing-header: cch={len(messages)};"}
    return {"system": [billing, *_text_blocks(system.text)], "messages": sent, "max_tokens": 99}


def _claude_blocks(message: Message) -> Iterable[Json]:
    if message.role == "tool":
        result = {"type": "tool_result", "tool_use_id": message.call_ids[0]}
        return [result | {"content": _text_blocks(message.text)}]
    arguments = json.loads(ARGUMENTS)
    calls = [{"type": "tool_use", "id": c, "name": "bash", "input": arguments} for c in message.call_ids]
    return [*_text_blocks(message.text), *calls]


def read_messages_body(answer: Json) -> Message:
    blocks = answer["content"]
    calls = tuple(block["id"] for block in blocks if block["type"] == "tool_use")
    return Message("assistant", "".join(block.get("text", "") for block in blocks), calls)


def read_messages_events(events: list[Json]) -> Message:
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    starts = [event["content_block"] for event in events if event["type"] == "content_block_start"]
    calls = tuple(block["id"] for block in starts if block["type"] == "tool_use")
    return Message("assistant", "".join(delta.get("text", "") for delta in deltas), calls)


def _chat_wire(name: str, history: Callable[[tuple[Message, ...]], Json]) -> Wire:
    tool = {"type": "function", "function": TOOL}
    return Wire(name, "/v1/chat/completions", history, tool, read_chat_body, read_chat_events, "[DONE]")


def _responses_wire(name: str, history: Callable[[tuple[Message, ...]], Json]) -> Wire:
    tool = {"type": "function"} | TOOL
    last = "response.completed"
    return Wire(name, "/v1/responses", history, tool, read_responses_body, read_responses_events, last)


PLAIN = _chat_wire("plain", plain_chat)
OPENHANDS = _chat_wire("openhands", openhands_chat)
SWE_AGENT = _chat_wire("swe-agent", swe_agent_chat)
LANGCHAIN = _chat_wire("langchain", langchain_chat)
CODEX = _responses_wire("codex", codex_responses)
RESPONSES = _responses_wire("responses", plain_responses)
CLAUDE = Wire(
    "claude",
    "/v1/messages",
    claude_messages,
    {"name": "bash", "input_schema": {"type": "object"}},
    read_messages_body,
    read_messages_events,
    "message_stop",
)
