"""Answers of ``/v1/messages``."""

from dataclasses import dataclass, field
from typing import Any

from marsproxy.wire.answer_parts import (
    MAX_CALLS,
    AnswerParts,
    Usage,
    add_each,
    count,
    items,
    member,
    text,
    tool_call,
    try_digest,
)
from marsproxy.wire.normal import UNREADABLE, messages_form, read_json

_FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_USAGE_FIELDS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


@dataclass(slots=True)
class _Block:
    start: dict[str, Any]
    texts: list[str] = field(default_factory=list)
    json_pieces: list[str] = field(default_factory=list)


class MessagesAnswer:
    def __init__(self) -> None:
        self._blocks: dict[int, _Block] = {}
        self._content: list[dict[str, Any]] | None = None
        """Set when the answer was not streamed."""
        self._usage: dict[str, int | None] = {}
        self._stop_reason: str | None = None
        self._is_done = False
        self._has_error = False
        self._is_forgetful = False

    def add_events(self, events: bytes) -> bool:
        return add_each(events, self._add_event)

    def _add_event(self, payload: bytes) -> None:
        match event := _object(payload):
            case {"type": "content_block_delta", "delta": dict(delta)}:
                self._add_delta(event.get("index"), delta)
            case {"type": "content_block_start", "content_block": dict(block)}:
                self._add_block(event.get("index"), block)
            case {"type": "message_start", "message": dict(message)}:
                self._add_usage(message.get("usage"), is_zero_unknown=True)
            case {"type": "message_delta"}:
                self._add_usage(event.get("usage"))
                self._stop_reason = text(member(event, "delta", "stop_reason")) or self._stop_reason
            case {"type": "message_stop"}:
                self._is_done = True
            case {"type": "error"}:
                self._has_error = True

    def add_body(self, body: bytes) -> None:
        message = _object(body)
        if message.get("type") == "error" or "error" in message:
            self._has_error = True
        self._is_done = bool(message)
        self._add_usage(message.get("usage"))
        self._stop_reason = text(message.get("stop_reason")) or None
        if not self._is_forgetful and isinstance(message.get("content"), list):
            self._content = list(items(message["content"]))

    def forget(self) -> None:
        self._is_forgetful = True
        self._blocks.clear()

    def parts(self) -> AnswerParts:
        content = self._content
        if content is None:
            content = [_content_block(self._blocks[index]) for index in sorted(self._blocks)]
        calls = [block for block in content if block.get("type") == "tool_use"]
        digest = None
        if not self._is_forgetful and (self._content is not None or self._blocks):
            digest = try_digest(messages_form, {"role": "assistant", "content": content})
        return AnswerParts(
            digests=(digest,),
            call_ids=tuple(text(call.get("id")) for call in calls),
            tool_calls=tuple(
                tool_call(call.get("id"), call.get("name"), call.get("input")) for call in calls
            ),
            usage=self._totals(),
            finish_reason=_FINISH_REASONS.get(self._stop_reason or "", self._stop_reason),
            is_complete=self._is_done,
            has_error=self._has_error,
        )

    def _totals(self) -> Usage:
        """The prompt is the sum of three counts: ``input_tokens`` leaves out what the cache had."""
        fresh, cached = self._usage.get("input_tokens"), self._usage.get("cache_read_input_tokens")
        created = self._usage.get("cache_creation_input_tokens")
        return Usage(
            prompt_tokens=None if fresh is None else fresh + (cached or 0) + (created or 0),
            cached_tokens=cached,
            completion_tokens=self._usage.get("output_tokens"),
        )

    def _add_usage(self, usage: object, *, is_zero_unknown: bool = False) -> None:
        """The last word counts. vLLM opens its streams with zeros for what it will know at the end."""
        for name in _USAGE_FIELDS:
            tokens = count(member(usage, name))
            if tokens is not None and (tokens or not is_zero_unknown):
                self._usage[name] = tokens

    def _add_block(self, index: object, block: dict[str, Any]) -> None:
        if not self._is_forgetful and type(index) is int and len(self._blocks) < MAX_CALLS:
            self._blocks[index] = _Block(block)

    def _add_delta(self, index: object, delta: dict[str, Any]) -> None:
        block = self._blocks.get(index) if type(index) is int else None
        if block is None:
            return
        if delta.get("type") == "text_delta":
            block.texts.append(text(delta.get("text")))
        elif delta.get("type") == "input_json_delta":
            block.json_pieces.append(text(delta.get("partial_json")))


def _content_block(block: _Block) -> dict[str, Any]:
    whole = dict(block.start)
    if block.texts:
        whole["text"] = text(whole.get("text")) + "".join(block.texts)
    if block.json_pieces:
        whole["input"] = "".join(block.json_pieces)
    return whole


def _object(payload: bytes) -> dict[str, Any]:
    try:
        value = read_json(payload)
    except UNREADABLE:
        return {}
    return value if isinstance(value, dict) else {}
