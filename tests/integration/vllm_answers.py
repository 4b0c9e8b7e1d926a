"""Answers in the very bytes of vLLM 0.32, and some that only its worst day would bring.

Numbers with exponents, spaces, unknown members and non-ASCII text are there on purpose: whoever parses and
writes again what passes through does not get them right.
"""

import json
from typing import Any

UNKNOWN = '"x_new_member":{"deep":[1.0,1e2,-0,"\\u00e9\\/"],"é":null}'
"""A member of a future version, as no serialiser writes it twice."""

SSE = "content-type: text/event-stream; charset=utf-8"
JSON = "content-type: application/json"


def event(data: dict[str, Any] | str, name: str | None = None) -> bytes:
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()


DONE = b"data: [DONE]\n\n"

# -- chat ------------------------------------------------------------------------------------------

CHAT = (
    '{"id":"chatcmpl-9f1","object":"chat.completion","created":1760000000,"model":"tiny","choices":'
    '[{"index":0,"message":{"role":"assistant","content":"h\\u00e9llo – wörld 🙂","refusal":null,'
    '"annotations":null,"audio":null,"function_call":null,"reasoning":null},"logprobs":null,'
    '"finish_reason":"stop","stop_reason":null,"token_ids":null,"routed_experts":null}],'
    '"service_tier":null,"system_fingerprint":"vllm-0.32.0-tp1-0a1b2c3d","usage":{"prompt_tokens":31,'
    '"total_tokens":40,"completion_tokens":9,"prompt_tokens_details":{"cached_tokens":16}},'
    f'"prompt_logprobs":null,"prompt_token_ids":null,"kv_transfer_params":null, {UNKNOWN} }}'
).encode()

CHAT_TOOLS = (
    b'{"id":"chatcmpl-9f2","object":"chat.completion","created":1760000000,"model":"tiny","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":null,"refusal":null,"annotations":null,"audio":null,'
    b'"function_call":null,"tool_calls":[{"id":"chatcmpl-tool-0a1b2c3d4e5f60718293a4b5c6d7e8f9",'
    b'"type":"function","function":{"name":"bash","arguments":"{\\"command\\": \\"ls -la /tmp/\\u00e9\\"}"}},'
    b'{"id":"chatcmpl-tool-1a1b2c3d4e5f60718293a4b5c6d7e8f9","type":"function","function":{"name":"read",'
    b'"arguments":"{}"}}],"reasoning":"think"},"logprobs":null,"finish_reason":"tool_calls","stop_reason":null}],'
    b'"usage":{"prompt_tokens":31,"total_tokens":40,"completion_tokens":9,"prompt_tokens_details":null}}'
)

CHAT_SAMPLES = (
    b'{"id":"chatcmpl-9f3","object":"chat.completion","created":1760000000,"model":"tiny","choices":['
    b'{"index":1,"message":{"role":"assistant","content":"b"},"logprobs":{"content":[{"token":"b","logprob":'
    b'-1.1920928955078125e-07,"bytes":[98],"top_logprobs":[{"token":"b","logprob":-0.0,"bytes":[98]}]}]},'
    b'"finish_reason":"stop"},{"index":0,"message":{"role":"assistant","content":"a"},"logprobs":{"content":'
    b'[{"token":"a","logprob":-9999.0,"bytes":[97],"top_logprobs":[]}]},"finish_reason":"length"}],'
    b'"usage":{"prompt_tokens":3,"total_tokens":5,"completion_tokens":2}}'
)

_CHUNK = {"id": "chatcmpl-9f4", "object": "chat.completion.chunk", "created": 1760000000, "model": "tiny"}
FINGERPRINT = {"system_fingerprint": "vllm-0.32.0-tp1-0a1b2c3d"}
CHAT_USAGE = {"prompt_tokens": 31, "total_tokens": 40, "completion_tokens": 9}


def chat_delta(
    delta: dict[str, Any], *, index: int = 0, finish: str | None = None, **more: Any
) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "logprobs": more.pop("logprobs", None), "finish_reason": finish}
    if finish is not None:
        choice["stop_reason"] = None
        choice["token_ids"] = None
    return _CHUNK | {"choices": [choice]} | more


def chat_stream(
    *middle: dict[str, Any], finish: str = "stop", asked: bool = False, samples: int = 1
) -> list[bytes]:
    """vLLM moves the fingerprint from the choice's last event to the usage's event, if there is one."""
    opening = [
        event(chat_delta({"role": "assistant", "content": ""}, index=index, prompt_token_ids=None))
        for index in range(samples)
    ]
    last = {} if asked else FINGERPRINT
    ends = [event(chat_delta({}, index=index, finish=finish, **last)) for index in range(samples)]
    usage = [event(_CHUNK | {"choices": [], "usage": CHAT_USAGE} | FINGERPRINT)] if asked else []
    return [*opening, *map(event, middle), *ends, *usage, DONE]


CHAT_DELTAS = (
    chat_delta({"content": "hé"}, x_new_member={"deep": [1, None]}),
    chat_delta({"content": 'llo\n\n"usage":null data: '}),
    chat_delta({"content": "🙂", "reasoning": "…"}),
)
CHAT_TOOL_DELTAS = (
    chat_delta(
        {
            "tool_calls": [
                {
                    "id": "chatcmpl-tool-0a1b2c3d4e5f60718293a4b5c6d7e8f9",
                    "type": "function",
                    "index": 0,
                    "function": {"name": "bash", "arguments": ""},
                }
            ]
        }
    ),
    chat_delta({"tool_calls": [{"index": 0, "function": {"arguments": '{"command":'}}]}),
    chat_delta({"tool_calls": [{"index": 0, "function": {"arguments": ' "ls é"}'}}]}),
)
CHAT_SAMPLE_DELTAS = (
    chat_delta({"content": "b"}, index=1, logprobs={"content": [{"token": "b", "logprob": -1e-07}]}),
    chat_delta({"content": "a"}, index=0, logprobs={"content": [{"token": "a", "logprob": -9999.0}]}),
)

# -- completions -----------------------------------------------------------------------------------

COMPLETION = (
    '{"id":"cmpl-5","object":"text_completion","created":1760000000,"model":"tiny","choices":[{"index":0,'
    '"text":" w\\u00f6rld","logprobs":{"text_offset":[0],"token_logprobs":[-2.5],"tokens":[" w"],'
    '"top_logprobs":[{" w":-2.5}]},"finish_reason":"length","stop_reason":null,"token_ids":null,'
    '"prompt_logprobs":null,"prompt_token_ids":null}],"service_tier":null,"system_fingerprint":null,'
    f'"usage":{{"prompt_tokens":5,"total_tokens":6,"completion_tokens":1}}, {UNKNOWN}}}'
).encode()


def completion_stream(*texts: str, asked: bool = False) -> list[bytes]:
    heading = {"id": "cmpl-6", "object": "text_completion", "created": 1760000000, "model": "tiny"}
    events = []
    for number, text in enumerate(texts, 1):
        finish = "length" if number == len(texts) else None
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish, "stop_reason": None}
        moved = FINGERPRINT if finish and not asked else {}
        events.append(event(heading | {"choices": [choice]} | moved))
    if asked:
        events.append(event(heading | {"choices": [], "usage": CHAT_USAGE} | FINGERPRINT))
    return [*events, DONE]


# -- responses -------------------------------------------------------------------------------------

_RESPONSE = {
    "id": "resp_1",
    "created_at": 1760000000,
    "object": "response",
    "model": "tiny",
    "output": [],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "status": "in_progress",
    "metadata": {"k": "é"},
    "x_new_member": [1.5],
}
_MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "hé 🙂", "annotations": [], "logprobs": None}],
}
_CALL = {
    "id": "fc_1",
    "type": "function_call",
    "call_id": "call_0a1b2c3d4e5f60718293a4b5",
    "name": "bash",
    "arguments": '{"command": "ls é"}',
    "status": "completed",
}
_RESPONSE_USAGE = {
    "input_tokens": 31,
    "input_tokens_details": {"cached_tokens": 16},
    "output_tokens": 9,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 40,
}


def response(**changes: Any) -> dict[str, Any]:
    done = {"status": "completed", "output": [_MESSAGE, _CALL], "usage": _RESPONSE_USAGE}
    return _RESPONSE | done | changes


RESPONSE = json.dumps(response(), ensure_ascii=True, indent=1).encode()


def responses_stream() -> list[bytes]:
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    call = {"item_id": "fc_1", "output_index": 1}
    part = {"type": "output_text", "text": "", "annotations": []}
    steps: list[dict[str, Any]] = [
        {"type": "response.created", "response": _RESPONSE},
        {"type": "response.in_progress", "response": _RESPONSE},
        {"type": "response.output_item.added", "output_index": 0, "item": _MESSAGE | {"content": []}},
        {"type": "response.content_part.added", "part": part} | place,
        {"type": "response.output_text.delta", "delta": "hé", "logprobs": []} | place,
        {"type": "response.output_text.delta", "delta": " 🙂", "logprobs": []} | place,
        {"type": "response.output_text.done", "text": "hé 🙂", "logprobs": []} | place,
        {"type": "response.content_part.done", "part": part | {"text": "hé 🙂"}} | place,
        {"type": "response.output_item.done", "output_index": 0, "item": _MESSAGE},
        {"type": "response.output_item.added", "output_index": 1, "item": _CALL | {"arguments": ""}},
        {"type": "response.function_call_arguments.delta", "delta": _CALL["arguments"]} | call,
        {"type": "response.function_call_arguments.done", "arguments": _CALL["arguments"]} | call,
        {"type": "response.output_item.done", "output_index": 1, "item": _CALL},
        {"type": "response.completed", "response": response()},
    ]
    return [event({"sequence_number": n} | step, step["type"]) for n, step in enumerate(steps)]


# -- messages --------------------------------------------------------------------------------------

_MESSAGES_USAGE = {"input_tokens": 15, "output_tokens": 9, "cache_read_input_tokens": 16}
MESSAGE = (
    '{"id":"chatcmpl-9f7","type":"message","role":"assistant","content":['
    '{"type":"text","text":"h\\u00e9 🙂"},'
    '{"type":"tool_use","id":"chatcmpl-tool-0a1b2c3d4e5f60718293a4b5c6d7e8f9","name":"bash",'
    '"input":{"command":"ls","n":1.50}}],"model":"tiny","stop_reason":"tool_use","stop_sequence":null,'
    f'"usage":{json.dumps(_MESSAGES_USAGE)}, {UNKNOWN}}}'
).encode()


def messages_stream() -> list[bytes]:
    message = {"id": "chatcmpl-9f8", "type": "message", "role": "assistant", "content": [], "model": "tiny"}
    message |= {"stop_reason": None, "stop_sequence": None, "usage": _MESSAGES_USAGE | {"output_tokens": 0}}
    call = {"type": "tool_use", "id": "chatcmpl-tool-1a1b2c3d4e5f60718293a4b5c6d7e8f9", "name": "bash"}
    steps: list[dict[str, Any]] = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hé 🙂"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "ping"},
        {"type": "content_block_start", "index": 1, "content_block": call | {"input": {}}},
        {"type": "content_block_delta", "index": 1}
        | {"delta": {"type": "input_json_delta", "partial_json": '{"command": "ls é"}'}},
        {"type": "content_block_stop", "index": 1},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": None}}
        | {"usage": _MESSAGES_USAGE},
        {"type": "message_stop"},
    ]
    return [event(step, step["type"]) for step in steps]
