"""One answer of a model in the words of three APIs, whole and as a stream.

Owns the shapes only, as vLLM and the APIs' owners write them. It must not know requests or what an
answer is good for.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

ARGUMENTS = '{"command": "true"}'

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    id: str
    text: str
    """May be empty, as a model's words before a tool call often are."""
    call_ids: tuple[str, ...] = ()


def body(path: str, answer: Answer) -> dict[str, Any]:
    return {"/v1/chat/completions": _chat, "/v1/responses": _responses, "/v1/messages": _messages}[path](
        answer
    )


def stream(path: str, answer: Answer) -> bytes:
    """All of it in one piece; who sends it may cut it anywhere."""
    if path == "/v1/chat/completions":
        return b"".join(map(_data, _chat_chunks(answer))) + b"data: [DONE]\n\n"
    events = _responses_events(answer) if path == "/v1/responses" else _messages_events(answer)
    return b"".join(b"event: " + event["type"].encode() + b"\n" + _data(event) for event in events)


def _data(event: Event) -> bytes:
    return b"data: " + msgspec.json.encode(event) + b"\n\n"


def _chat(answer: Answer) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text or None, "refusal": None}
    message |= {"reasoning": None, "tool_calls": [_chat_call(call) for call in answer.call_ids]}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish_reason(answer)}
    return {"id": answer.id, "object": "chat.completion", "choices": [choice], "usage": _USAGE}


def _chat_call(call_id: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": "bash", "arguments": ARGUMENTS}}


def _finish_reason(answer: Answer) -> str:
    return "tool_calls" if answer.call_ids else "stop"


def _chat_chunks(answer: Answer) -> Iterator[Event]:
    yield _chunk(answer, {"role": "assistant", "content": ""})
    for word in answer.text.splitlines(keepends=True):
        yield _chunk(answer, {"content": word})
    for index, call_id in enumerate(answer.call_ids):
        for_call = {"index": index, "id": call_id, "type": "function"}
        yield _chunk(answer, {"tool_calls": [for_call | {"function": {"name": "bash", "arguments": ""}}]})
        for piece in (ARGUMENTS[:7], ARGUMENTS[7:]):
            yield _chunk(answer, {"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    yield _chunk(answer, {}, _finish_reason(answer))
    yield {"id": answer.id, "object": "chat.completion.chunk", "choices": [], "usage": _USAGE}


def _chunk(answer: Answer, delta: dict[str, Any], finish_reason: str | None = None) -> Event:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {"id": answer.id, "object": "chat.completion.chunk", "choices": [choice]}


def _responses(answer: Answer, status: str = "completed") -> dict[str, Any]:
    output = list(_items(answer)) if status == "completed" else []
    usage = {"input_tokens": 9, "output_tokens": 9, "total_tokens": 18}
    return {"id": answer.id, "object": "response", "status": status, "output": output, "usage": usage}


def _items(answer: Answer) -> Iterator[Event]:
    yield {"type": "reasoning", "id": f"rs_{answer.id}", "summary": [], "encrypted_content": "gAAA"}
    if answer.text:
        content = [{"type": "output_text", "text": answer.text, "annotations": [], "logprobs": None}]
        yield {
            "type": "message",
            "id": f"msg_{answer.id}",
            "role": "assistant",
            "status": "completed",
            "content": content,
        }
    for call_id in answer.call_ids:
        call = {"type": "function_call", "id": f"fc_{call_id}", "status": "completed", "call_id": call_id}
        yield call | {"name": "bash", "arguments": ARGUMENTS}


def _responses_events(answer: Answer) -> Iterator[Event]:
    yield {"type": "response.created", "response": _responses(answer, "in_progress")}
    for index, item in enumerate(_items(answer)):
        yield {"type": "response.output_item.added", "output_index": index, "item": item | {"content": []}}
        if item["type"] == "message":
            yield {"type": "response.output_text.delta", "output_index": index, "delta": answer.text}
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    yield {"type": "response.completed", "response": _responses(answer)}


def _messages(answer: Answer) -> dict[str, Any]:
    reason = "tool_use" if answer.call_ids else "end_turn"
    usage = {"input_tokens": 9, "output_tokens": 9}
    message = {"id": answer.id, "type": "message", "role": "assistant", "content": list(_blocks(answer))}
    return message | {"stop_reason": reason, "usage": usage}


def _blocks(answer: Answer) -> Iterator[Event]:
    if answer.text:
        yield {"type": "text", "text": answer.text}
    for call_id in answer.call_ids:
        yield {"type": "tool_use", "id": call_id, "name": "bash", "input": {"command": "true"}}


def _messages_events(answer: Answer) -> Iterator[Event]:
    message = _messages(answer)
    yield {"type": "message_start", "message": message | {"content": [], "stop_reason": None}}
    for index, block in enumerate(message["content"]):
        at = {"index": index}
        if block["type"] == "text":
            empty, delta = block | {"text": ""}, {"type": "text_delta", "text": block["text"]}
        else:
            empty, delta = block | {"input": {}}, {"type": "input_json_delta", "partial_json": ARGUMENTS}
        yield {"type": "content_block_start", "content_block": empty} | at
        yield {"type": "content_block_delta", "delta": delta} | at
        yield {"type": "content_block_stop"} | at
    delta = {"stop_reason": message["stop_reason"]}
    yield {"type": "message_delta", "delta": delta, "usage": message["usage"]}
    yield {"type": "message_stop"}


_USAGE = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
