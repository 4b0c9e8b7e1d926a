"""Answers of ``/v1/responses``.

A stream says everything twice: item by item, and whole in its last event. Clients take one or the other
(Codex the items, the OpenAI SDKs the whole), so both are digested where they differ.
"""

from typing import Any

import msgspec
from msgspec import Raw

from marsproxy.core.evidence import Digest
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
from marsproxy.wire.normal import UNREADABLE, joined_digest, read_json, responses_form

_FINAL_EVENTS = frozenset({"response.completed", "response.incomplete", "response.failed"})
_FIRST_EVENTS = frozenset({"response.created", "response.in_progress", "response.queued"})
_FINAL_STATES = frozenset({"completed", "incomplete", "failed", "cancelled"})
_CALL_TYPES = frozenset({"function_call", "custom_tool_call"})


class _Event(msgspec.Struct):
    """Deltas, which are most of a stream, cost no more than finding out that they are deltas."""

    type: Any = None
    output_index: Any = None
    item: Raw = Raw()
    response: Raw = Raw()


_DECODER = msgspec.json.Decoder(_Event)


class ResponsesAnswer:
    def __init__(self) -> None:
        self._items: dict[int, dict[str, Any]] = {}
        self._response: dict[str, Any] = {}
        self._response_id: str | None = None
        self._has_error = False
        self._is_forgetful = False

    def add_events(self, events: bytes) -> bool:
        return add_each(events, self._add_event)

    def _add_event(self, payload: bytes) -> None:
        try:
            event = _DECODER.decode(payload)
        except UNREADABLE:
            return
        if event.type in _FINAL_EVENTS:
            self.add_body(bytes(event.response))
        elif event.type in _FIRST_EVENTS:
            self._response_id = text(member(_object(event.response), "id")) or self._response_id
        elif event.type == "response.output_item.done":
            self._add_item(event.output_index, _object(event.item))
        elif event.type == "error" or event.type is None:
            self._has_error |= event.type == "error" or "error" in _object(Raw(payload))

    def add_body(self, body: bytes) -> None:
        self._response = _object(Raw(body))
        self._response_id = text(self._response.get("id")) or self._response_id
        if self._response.get("error") is not None or self._response.get("status") == "failed":
            self._has_error = True
        if self._is_forgetful:
            self._response.pop("output", None)

    def forget(self) -> None:
        self._is_forgetful = True
        self._items.clear()
        self._response.pop("output", None)

    def parts(self) -> AnswerParts:
        streamed = [self._items[index] for index in sorted(self._items)]
        whole = list(items(self._response.get("output")))
        calls = [item for item in whole or streamed if item.get("type") in _CALL_TYPES]
        all_calls = [item for item in [*whole, *streamed] if item.get("type") in _CALL_TYPES]
        usage = self._response.get("usage")
        status = text(self._response.get("status"))
        return AnswerParts(
            digests=tuple(dict.fromkeys(filter(None, (_digest(whole), _digest(streamed))))),
            call_ids=tuple(dict.fromkeys(text(item.get("call_id")) for item in all_calls)),
            tool_calls=tuple(map(_tool_call, calls)),
            response_id=self._response_id,
            usage=Usage(
                prompt_tokens=count(member(usage, "input_tokens")),
                cached_tokens=count(member(usage, "input_tokens_details", "cached_tokens")),
                completion_tokens=count(member(usage, "output_tokens")),
            ),
            finish_reason=self._finish_reason(status, bool(calls)),
            is_complete=status in _FINAL_STATES,
            has_error=self._has_error,
        )

    def _finish_reason(self, status: str, has_calls: bool) -> str | None:
        if status == "completed":
            return "tool_calls" if has_calls else "stop"
        if status == "incomplete":
            reason = member(self._response, "incomplete_details", "reason")
            return "length" if reason in (None, "max_output_tokens") else text(reason) or None
        return None

    def _add_item(self, index: object, item: dict[str, Any]) -> None:
        if not self._is_forgetful and len(self._items) < MAX_CALLS:
            self._items[index if type(index) is int else len(self._items)] = item


def _digest(output: list[dict[str, Any]]) -> Digest | None:
    digests = [digest for item in output if (digest := try_digest(responses_form, item))]
    return joined_digest(digests) if digests else None


def _tool_call(item: dict[str, Any]) -> ToolCall:
    return tool_call(item.get("call_id"), item.get("name"), item.get("arguments", item.get("input")))


def _object(raw: Raw) -> dict[str, Any]:
    try:
        value = read_json(raw)
    except UNREADABLE:
        return {}
    return value if isinstance(value, dict) else {}
