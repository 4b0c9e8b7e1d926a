"""Answers of ``/v1/chat/completions`` and ``/v1/completions``."""

from dataclasses import dataclass, field
from typing import Any

import msgspec

from marsproxy.core.evidence import Digest
from marsproxy.wire import sse
from marsproxy.wire.answer_parts import (
    MAX_CALLS,
    AnswerParts,
    ToolCall,
    Usage,
    add_each,
    count,
    items,
    member,
    text,
    tool_call,
    try_digest,
)
from marsproxy.wire.normal import UNREADABLE, chat_form

MAX_SAMPLES = 1024


class _Choice(msgspec.Struct):
    """Log probabilities and token ids are skipped unread."""

    index: Any = 0
    delta: Any = None
    message: Any = None
    finish_reason: Any = None


class _Answer(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None
    object: Any = None


_DECODER = msgspec.json.Decoder(_Answer)


@dataclass(slots=True)
class _Call:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Sample:
    texts: list[str] = field(default_factory=list)
    calls: dict[int, _Call] = field(default_factory=dict)
    message: dict[str, Any] | None = None
    """Set when the answer was not streamed."""
    finish_reason: str | None = None


class ChatAnswer:
    def __init__(self) -> None:
        self._samples: dict[int, _Sample] = {}
        self._usage: object = None
        self._is_done = False
        self._has_error = False
        self._is_forgetful = False

    def add_events(self, events: bytes) -> bool:
        lines = sse.plain_lines(events)
        if lines is None:
            return add_each(events, self._add_event)
        answers = lines.removesuffix(sse.DONE)
        try:
            for answer in _DECODER.decode_lines(answers):
                self._add_answer(answer)
        except UNREADABLE:
            return add_each(events, self._add_event)
        self._is_done |= len(answers) < len(lines)
        return True

    def _add_event(self, payload: bytes) -> None:
        if payload == sse.DONE:
            self._is_done = True
        else:
            self._add(payload)

    def add_body(self, body: bytes) -> None:
        self._is_done = self._add(body)

    def forget(self) -> None:
        self._is_forgetful = True
        for sample in self._samples.values():
            sample.texts.clear()
            sample.calls.clear()

    def parts(self) -> AnswerParts:
        samples = [self._samples[index] for index in sorted(self._samples)]
        messages = [_message(sample) for sample in samples]
        calls = [call for message in messages for call in items(message.get("tool_calls"))]
        return AnswerParts(
            digests=() if self._is_forgetful else tuple(self._digest(message) for message in messages),
            call_ids=tuple(text(call.get("id")) for call in calls),
            tool_calls=tuple(map(_tool_call, items(messages[0].get("tool_calls")))) if messages else (),
            usage=Usage(
                prompt_tokens=count(member(self._usage, "prompt_tokens")),
                cached_tokens=count(member(self._usage, "prompt_tokens_details", "cached_tokens")),
                completion_tokens=count(member(self._usage, "completion_tokens")),
            ),
            finish_reason=samples[0].finish_reason if samples else None,
            is_complete=self._is_done or bool(samples and all(sample.finish_reason for sample in samples)),
            has_error=self._has_error,
        )

    def _digest(self, message: dict[str, Any]) -> Digest | None:
        return try_digest(chat_form, message)

    def _add(self, payload: bytes) -> bool:
        try:
            answer = _DECODER.decode(payload)
        except UNREADABLE:
            return False
        self._add_answer(answer)
        return True

    def _add_answer(self, answer: _Answer) -> None:
        if answer.error is not None or answer.object == "error":
            self._has_error = True
        if answer.usage is not None:
            self._usage = answer.usage
        for choice in answer.choices or ():
            self._add_choice(choice)

    def _add_choice(self, choice: _Choice) -> None:
        index = choice.index if type(choice.index) is int else 0
        sample = self._samples.get(index)
        if sample is None:
            if len(self._samples) >= MAX_SAMPLES:
                return
            sample = self._samples[index] = _Sample()
        if isinstance(choice.finish_reason, str):
            sample.finish_reason = choice.finish_reason
        if self._is_forgetful:
            return
        if isinstance(choice.message, dict):
            sample.message = choice.message
        if isinstance(choice.delta, dict):
            _add_delta(sample, choice.delta)


class CompletionAnswer(ChatAnswer):
    """Without digest: the next prompt contains the answer as text, and is recognised by what is before it."""

    def _digest(self, message: dict[str, Any]) -> Digest | None:
        return None


def _add_delta(sample: _Sample, delta: dict[str, Any]) -> None:
    content = delta.get("content")
    if content and isinstance(content, str):
        sample.texts.append(content)
    for piece in items(delta.get("tool_calls")):
        _add_call(sample.calls, piece.get("index"), piece.get("id"), piece.get("function"))
    if "function_call" in delta:
        _add_call(sample.calls, -1, None, delta["function_call"])


def _add_call(calls: dict[int, _Call], index: object, call_id: object, function: object) -> None:
    index = index if type(index) is int else 0
    if index not in calls and len(calls) >= MAX_CALLS:
        return
    call = calls.setdefault(index, _Call())
    # Some backends repeat id and name in every piece: they are set, not joined.
    call.id = text(call_id) or call.id
    call.name = text(member(function, "name")) or call.name
    if arguments := text(member(function, "arguments")):
        call.arguments.append(arguments)


def _message(sample: _Sample) -> dict[str, Any]:
    if sample.message is not None:
        return sample.message
    calls = [
        {"id": call.id, "function": {"name": call.name, "arguments": "".join(call.arguments)}}
        for _, call in sorted(sample.calls.items())
    ]
    return {"role": "assistant", "content": "".join(sample.texts), "tool_calls": calls}


def _tool_call(call: dict[str, Any]) -> ToolCall:
    return tool_call(call.get("id"), member(call, "function", "name"), member(call, "function", "arguments"))
