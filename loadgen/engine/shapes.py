"""The JSON of answers as vLLM 0.32 writes it: chunk by chunk, or whole.

A stream writes thousands of chunks a second, so the parts of a chunk that do not change are encoded
once per request and the rest is put between them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import uuid4

import msgspec

from loadgen.engine.generation import Choice, Generation
from loadgen.engine.reader import ArgumentsDelta, CallDelta, Delta, TextDelta

json = msgspec.json.encode

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Heading:
    """What every object of one response repeats."""

    response_id: str
    created: int
    model: str

    def fields(self, kind: str) -> dict[str, Any]:
        return {"id": self.response_id, "object": kind, "created": self.created, "model": self.model}


class StreamShape(Protocol):
    """How one route writes its stream."""

    def opening(self, choices: Sequence[Choice]) -> bytes: ...
    def chunks(self, choice: Choice, deltas: Sequence[Delta], usage: dict[str, Any] | None) -> bytes: ...
    def usage(self, usage: dict[str, Any]) -> bytes: ...


class ChatStream:
    def __init__(self, heading: Heading) -> None:
        self._fields = heading.fields("chat.completion.chunk")
        self._head = b"data: " + json(self._fields)[:-1] + b',"choices":[{"index":'

    def opening(self, choices: Sequence[Choice]) -> bytes:
        """The role, before any token."""
        role = b',"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]'
        return b"".join(
            b"%s%d%s%s" % (self._head, choice.index, role, b',"prompt_token_ids":null}\n\n')
            for choice in choices
        )

    def chunks(self, choice: Choice, deltas: Sequence[Delta], usage: dict[str, Any] | None) -> bytes:
        if not choice.is_complete:
            return b"".join(self._chunk(choice, _delta(each), b"null", usage) for each in deltas)
        # The last delta carries the finish reason; tokens that show nothing still need a chunk for it.
        *before, last = [_delta(each) for each in deltas] or [b"{}"]
        chunks = [self._chunk(choice, each, b"null", usage) for each in before]
        finish = b'"%s","stop_reason":%s' % (
            choice.answer.finish_reason.encode(),
            json(choice.answer.stop_reason),
        )
        return b"".join([*chunks, self._chunk(choice, last, finish, usage)])

    def usage(self, usage: dict[str, Any]) -> bytes:
        return b"data: %s\n\n" % json(self._fields | {"choices": [], "usage": usage})

    def _chunk(self, choice: Choice, delta: bytes, finish: bytes, usage: dict[str, Any] | None) -> bytes:
        tail = b"}\n\n" if usage is None else b',"usage":%s}\n\n' % json(usage)
        return b'%s%d,"delta":%s,"logprobs":null,"finish_reason":%s,"token_ids":null}]%s' % (
            self._head,
            choice.index,
            delta,
            finish,
            tail,
        )


class CompletionStream:
    def __init__(self, heading: Heading) -> None:
        self._fields = heading.fields("text_completion")
        self._head = b"data: " + json(self._fields)[:-1] + b',"choices":[{"index":'

    def opening(self, choices: Sequence[Choice]) -> bytes:
        return b""

    def chunks(self, choice: Choice, deltas: Sequence[Delta], usage: dict[str, Any] | None) -> bytes:
        if not deltas and not choice.is_complete:
            return b""
        text = "".join(each.text for each in deltas if isinstance(each, TextDelta))
        reasons: tuple[str | None, str | None] = (None, None)
        if choice.is_complete:
            reasons = (choice.answer.finish_reason, choice.answer.stop_reason)
        return b'%s%d,"text":%s,"logprobs":null,"finish_reason":%s,"stop_reason":%s,%s' % (
            self._head,
            choice.index,
            json(text),
            json(reasons[0]),
            json(reasons[1]),
            b'"prompt_token_ids":null,"token_ids":null}]%s}\n\n'
            % (b"" if usage is None else b',"usage":' + json(usage)),
        )

    def usage(self, usage: dict[str, Any]) -> bytes:
        return b"data: %s\n\n" % json(self._fields | {"choices": [], "usage": usage})


def chat_response(heading: Heading, generation: Generation) -> bytes:
    choices = [_chat_choice(choice) for choice in generation.choices]
    return _response(heading, "chat.completion", choices, generation)


def completion_response(heading: Heading, generation: Generation) -> bytes:
    choices = [
        {
            "index": choice.index,
            "text": choice.answer.text,
            "logprobs": None,
            "finish_reason": choice.answer.finish_reason,
            "stop_reason": choice.answer.stop_reason,
            "token_ids": None,
            "prompt_logprobs": None,
            "prompt_token_ids": None,
        }
        for choice in generation.choices
    ]
    return _response(heading, "text_completion", choices, generation)


def usage_of(generation: Generation) -> dict[str, Any]:
    prompt, completion = generation.prompt_tokens, generation.completion_tokens
    return {
        "prompt_tokens": prompt,
        "total_tokens": prompt + completion,
        "completion_tokens": completion,
        "prompt_tokens_details": {"cached_tokens": generation.cached_tokens},
    }


def model_list(model: str, max_model_len: int, created: int) -> bytes:
    card = {
        "id": model,
        "object": "model",
        "created": created,
        "owned_by": "vllm",
        "root": model,
        "parent": None,
        "max_model_len": max_model_len,
        "permission": [],
    }
    return json({"object": "list", "data": [card]})


def _response(heading: Heading, kind: str, choices: list[Any], generation: Generation) -> bytes:
    rest = {
        "choices": choices,
        "service_tier": None,
        "system_fingerprint": None,
        "usage": usage_of(generation),
        "prompt_logprobs": None,
        "kv_transfer_params": None,
    }
    return json(heading.fields(kind) | rest)


def _chat_choice(choice: Choice) -> dict[str, Any]:
    calls = [
        {
            "id": call_id(),
            "type": "function",
            "function": {"name": call.use.name, "arguments": call.use.arguments},
        }
        for call in choice.answer.complete_calls
    ]
    message = {
        "role": "assistant",
        "content": choice.answer.text or (None if calls else ""),
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
        "reasoning": None,
    }
    return {
        "index": choice.index,
        "message": message | ({"tool_calls": calls} if calls else {}),
        "logprobs": None,
        "finish_reason": choice.answer.finish_reason,
        "stop_reason": choice.answer.stop_reason,
        "token_ids": None,
    }


def _delta(delta: Delta) -> bytes:
    match delta:
        case TextDelta(text):
            return b'{"content":%s}' % json(text)
        case CallDelta(index, name):
            return b'{"tool_calls":[{"id":"%s","type":"function","index":%d,"function":{"name":%s}}]}' % (
                call_id().encode(),
                index,
                json(name),
            )
        case ArgumentsDelta(index, text):
            return b'{"tool_calls":[{"index":%d,"function":{"arguments":%s}}]}' % (index, json(text))


def call_id() -> str:
    """Unique over all engines, as vLLM's are: proxies tell sessions apart by it."""
    return f"chatcmpl-tool-{uuid4().hex}"
