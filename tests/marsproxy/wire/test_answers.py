"""Answers of the four APIs as vLLM 0.32 writes them, whole and in pieces."""

import gzip
import json
import zlib
from collections.abc import Iterable
from hashlib import sha256
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marsproxy.core.evidence import AnswerEvidence, Digest, Schema
from marsproxy.wire.answers import AnswerRead, AnswerReader, ToolCall
from marsproxy.wire.forms import NormalForms
from marsproxy.wire.requests import read_request

CALL_ID = "chatcmpl-tool-9f86d081884c7d659a2feaa0c55ad015"
HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
CHAT_USAGE = {
    "prompt_tokens": 100,
    "total_tokens": 107,
    "completion_tokens": 7,
    "prompt_tokens_details": {"cached_tokens": 96},
}
CALLS = [(CALL_ID, "bash", {"command": "ls -l"})]


def sse(events: Iterable[dict[str, Any] | str], *, named: bool = False) -> bytes:
    out = []
    for event in events:
        if named and isinstance(event, dict):
            out.append(f"event: {event['type']}\n")
        data = event if isinstance(event, str) else json.dumps(event, separators=(",", ":"))
        out.append(f"data: {data}\n\n")
    return "".join(out).encode()


def read(
    schema: Schema,
    data: bytes,
    *,
    is_streaming: bool = True,
    cuts: Iterable[int] = (),
    status: int = 200,
    encoding: str | None = None,
    max_bytes: int = 1 << 24,
) -> AnswerRead:
    reader = AnswerReader(schema, is_streaming=is_streaming, content_encoding=encoding, max_bytes=max_bytes)
    ends = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    for start, end in pairwise(ends):
        reader.feed(data[start:end])
    return reader.finish(status)


def pieces(text: str, size: int = 5) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


class Answer:
    """One answer, in the shapes of each API, and in those in which a client sends it back."""

    def __init__(self, text: str, calls: list[tuple[str, str, dict[str, Any]]], thought: str = "hm") -> None:
        self.text, self.calls, self.thought = text, calls, thought

    def stream(self, schema: Schema) -> bytes:
        match schema:
            case Schema.CHAT:
                return sse(self._chat())
            case Schema.MESSAGES:
                return sse(self._messages(), named=True)
            case _:
                return sse(self._responses(), named=True)

    def body(self, schema: Schema) -> bytes:
        whole = {
            Schema.CHAT: {
                **HEAD,
                "choices": [
                    {
                        "index": 0,
                        "message": self._chat_message(),
                        "finish_reason": self._finish("tool_calls", "stop"),
                    }
                ],
                "usage": CHAT_USAGE,
            },
            Schema.RESPONSES: self._response(),
            Schema.MESSAGES: {
                "id": "m1",
                "type": "message",
                "role": "assistant",
                "content": self._blocks(),
                "stop_reason": self._finish("tool_use", "end_turn"),
                "usage": {"input_tokens": 4, "output_tokens": 7, "cache_read_input_tokens": 96},
            },
        }
        return json.dumps(whole[schema]).encode()

    def echo(self, schema: Schema) -> dict[str, Any]:
        """The next request, written by a client that keeps little and writes arguments its own way."""
        user = {"role": "user", "content": "fix"}
        match schema:
            case Schema.CHAT:
                message = {"role": "assistant", "content": self.text or None}
                if self.calls:
                    message["tool_calls"] = [
                        {
                            "id": id_,
                            "type": "function",
                            "function": {"name": name, "arguments": packed(arguments)},
                        }
                        for id_, name, arguments in self.calls
                    ]
                return {"messages": [user, message]}
            case Schema.MESSAGES:
                blocks = [block for block in self._blocks() if block["type"] != "thinking"]
                return {"messages": [user, {"role": "assistant", "content": blocks}]}
            case _:
                items: list[dict[str, Any]] = []
                if self.text:
                    items.append({"role": "assistant", "content": self.text})
                items += [
                    {"type": "function_call", "call_id": id_, "name": name, "arguments": packed(arguments)}
                    for id_, name, arguments in self.calls
                ]
                return {"input": [user, *items]}

    def _finish(self, with_calls: str, without: str) -> str:
        return with_calls if self.calls else without

    def _chat_message(self) -> dict[str, Any]:
        calls = [
            {"id": id_, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
            for id_, name, arguments in self.calls
        ]
        message = {"role": "assistant", "content": self.text, "refusal": None, "reasoning": self.thought}
        return message | ({"tool_calls": calls} if calls else {})

    def _chat(self) -> list[Any]:
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}, {"reasoning": self.thought}]
        deltas += [{"content": piece} for piece in pieces(self.text)]
        for index, (id_, name, arguments) in enumerate(self.calls):
            first = {
                "index": index,
                "id": id_,
                "type": "function",
                "function": {"name": name, "arguments": ""},
            }
            deltas.append({"tool_calls": [first]})
            for piece in pieces(json.dumps(arguments)):
                deltas.append({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
        events: list[Any] = [
            {**HEAD, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}]}
            for delta in deltas
        ]
        last = {
            "index": 0,
            "delta": {},
            "finish_reason": self._finish("tool_calls", "stop"),
            "stop_reason": None,
        }
        return [*events, {**HEAD, "choices": [last]}, {**HEAD, "choices": [], "usage": CHAT_USAGE}, "[DONE]"]

    def _items(self) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = [{"type": "reasoning", "id": "rs_1", "summary": [], "content": None}]
        if self.text:
            content = [{"type": "output_text", "text": self.text, "annotations": [], "logprobs": None}]
            items.append(
                {
                    "type": "message",
                    "id": "msg_1",
                    "role": "assistant",
                    "status": "completed",
                    "content": content,
                }
            )
        for id_, name, arguments in self.calls:
            call = {"type": "function_call", "id": "fc_1", "call_id": id_, "status": "completed"}
            items.append({**call, "name": name, "arguments": json.dumps(arguments)})
        return items

    def _response(self) -> dict[str, Any]:
        usage = {
            "input_tokens": 100,
            "input_tokens_details": {"cached_tokens": 96},
            "output_tokens": 7,
            "total_tokens": 107,
        }
        return {
            "id": "resp_1",
            "object": "response",
            "status": "completed",
            "output": self._items(),
            "usage": usage,
        }

    def _responses(self) -> list[Any]:
        started = {**self._response(), "status": "in_progress", "output": [], "usage": None}
        events: list[Any] = [
            {"type": "response.created", "response": started},
            {"type": "response.in_progress", "response": started},
        ]
        for index, item in enumerate(self._items()):
            events.append({"type": "response.output_item.added", "output_index": index, "item": item})
            events.append({"type": "response.output_text.delta", "output_index": index, "delta": "x"})
            events.append({"type": "response.output_item.done", "output_index": index, "item": item})
        return [*events, {"type": "response.completed", "response": self._response()}]

    def _blocks(self) -> list[dict[str, Any]]:
        blocks: list[dict[str, Any]] = [{"type": "thinking", "thinking": self.thought, "signature": "s"}]
        if self.text:
            blocks.append({"type": "text", "text": self.text})
        return blocks + [
            {"type": "tool_use", "id": id_, "name": name, "input": arguments}
            for id_, name, arguments in self.calls
        ]

    def _messages(self) -> list[Any]:
        message = {"id": "m1", "type": "message", "role": "assistant", "content": []}
        events: list[Any] = [
            {
                "type": "message_start",
                "message": {**message, "usage": {"input_tokens": 0, "output_tokens": 0}},
            }
        ]
        for index, block in enumerate(self._blocks()):
            start, deltas = block_pieces(block)
            events.append({"type": "content_block_start", "index": index, "content_block": start})
            events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
            events.append({"type": "content_block_stop", "index": index})
        usage = {"input_tokens": 4, "output_tokens": 7, "cache_read_input_tokens": 96}
        stop = {"stop_reason": self._finish("tool_use", "end_turn"), "stop_sequence": None}
        return [*events, {"type": "message_delta", "delta": stop, "usage": usage}, {"type": "message_stop"}]


def block_pieces(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    match block:
        case {"type": "text", "text": text}:
            return {"type": "text", "text": ""}, [{"type": "text_delta", "text": p} for p in pieces(text)]
        case {"type": "tool_use", "input": arguments}:
            deltas = [{"type": "input_json_delta", "partial_json": p} for p in pieces(json.dumps(arguments))]
            return {**block, "input": {}}, deltas
        case _:
            return {**block, "thinking": ""}, [{"type": "thinking_delta", "thinking": block["thinking"]}]


def packed(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def echoed_digest(schema: Schema, answer: Answer) -> Digest:
    body = json.dumps(answer.echo(schema)).encode()
    parsed = read_request(schema, [], body, tenant="", url_session=None, normal_forms=NormalForms(seed=1))
    assert parsed is not None
    assert len(parsed.evidence.message_digests) == 2
    return parsed.evidence.message_digests[-1]


TRACKED = [Schema.CHAT, Schema.RESPONSES, Schema.MESSAGES]
TEXTS = st.text(max_size=30)
ARGUMENTS = st.dictionaries(
    st.sampled_from(["command", "path", "é"]),
    st.text(max_size=12) | st.integers(0, 9) | st.booleans() | st.none(),
)
CALL_LISTS = st.lists(
    st.tuples(st.uuids().map(lambda u: f"call_{u.hex}"), st.sampled_from(["bash", "edit"]), ARGUMENTS),
    max_size=3,
)


@given(st.sampled_from(TRACKED), TEXTS, CALL_LISTS, st.lists(st.integers(0, 3000), max_size=8))
def test_an_answer_is_recognised_when_it_comes_back(
    schema: Schema, text: str, calls: list[tuple[str, str, dict[str, Any]]], cuts: list[int]
) -> None:
    if not text.strip() and not calls:
        text = "x"
    answer = Answer(text, calls)
    expected = echoed_digest(schema, answer)
    streamed = read(schema, answer.stream(schema), cuts=cuts)
    whole = read(schema, answer.body(schema), is_streaming=False, cuts=cuts)
    assert streamed.evidence.digest == whole.evidence.digest == expected
    assert streamed == whole


@pytest.mark.parametrize("schema", TRACKED)
@pytest.mark.parametrize("is_streaming", [True, False])
def test_what_is_read(schema: Schema, is_streaming: bool) -> None:
    answer = Answer("I look", CALLS)
    data = answer.stream(schema) if is_streaming else answer.body(schema)
    result = read(schema, data, is_streaming=is_streaming)
    command = sha256(b"ls -l").hexdigest()
    assert result == AnswerRead(
        evidence=AnswerEvidence(
            digest=echoed_digest(schema, answer),
            call_ids=(CALL_ID,),
            response_id="resp_1" if schema is Schema.RESPONSES else None,
        ),
        prompt_tokens=100,
        cached_tokens=96,
        completion_tokens=7,
        finish_reason="tool_calls",
        tool_calls=(ToolCall(CALL_ID, "bash", command),),
        is_complete=True,
    )


@pytest.mark.parametrize("schema", TRACKED)
def test_an_answer_without_calls_stops(schema: Schema) -> None:
    result = read(schema, Answer("done", []).stream(schema))
    assert (result.finish_reason, result.tool_calls) == ("stop", ())


def test_completions_give_usage_and_no_digest() -> None:
    head = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m"}
    stream = sse(
        [
            {**head, "choices": [{"index": 0, "text": "a", "finish_reason": None}]},
            {**head, "choices": [{"index": 0, "text": "b", "finish_reason": "length"}]},
            {**head, "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}},
            "[DONE]",
        ]
    )
    result = read(Schema.COMPLETIONS, stream)
    assert (result.prompt_tokens, result.cached_tokens, result.completion_tokens) == (3, None, 2)
    assert (result.finish_reason, result.is_complete, result.evidence.digest) == ("length", True, None)


def test_each_sample_may_be_the_one_that_comes_back() -> None:
    messages = [{"role": "assistant", "content": text} for text in ("a", "b", "c")]
    choices = [
        {"index": n, "message": message, "finish_reason": "stop"}
        for n, message in reversed([*enumerate(messages)])
    ]
    result = read(Schema.CHAT, json.dumps({"choices": choices}).encode(), is_streaming=False)
    expected = tuple(echoed_digest(Schema.CHAT, Answer(text, [])) for text in ("a", "b", "c"))
    assert (result.evidence.digest, *result.others) == expected


def test_a_responses_stream_whose_items_differ_from_its_whole_has_both() -> None:
    item = {"type": "function_call", "call_id": CALL_ID, "name": "sh", "arguments": "{}"}
    other_id = CALL_ID.replace("9f86", "0b1c")
    response = {"id": "resp_1", "status": "completed", "output": [{**item, "call_id": other_id}]}
    stream = sse(
        [
            {"type": "response.output_item.done", "output_index": 0, "item": item},
            {"type": "response.completed", "response": response},
        ]
    )
    result = read(Schema.RESPONSES, stream)
    assert len({result.evidence.digest, *result.others}) == 2
    assert set(result.evidence.call_ids) == {CALL_ID, other_id}


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        ({"command": "ls"}, "ls"),
        ({"cmd": "ls"}, "ls"),
        ({"command": ["bash", "-lc", "ls | wc"]}, "ls | wc"),
        ({"command": ["git", "status"]}, "git status"),
        ({"path": "x"}, None),
        ({"command": 3}, None),
        ({"command": ""}, None),
        ({"command": ["a", 1]}, None),
    ],
)
def test_commands_are_known_by_their_digest(arguments: dict[str, Any], command: str | None) -> None:
    result = read(Schema.CHAT, Answer("", [(CALL_ID, "shell", arguments)]).stream(Schema.CHAT))
    expected = None if command is None else sha256(command.encode()).hexdigest()
    assert result.tool_calls[0].command_digest == expected


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("identity", bytes), (" GZIP ", gzip.compress)],
)
@pytest.mark.parametrize("is_streaming", [True, False])
def test_compressed_answers(encoding: str, compress: Any, is_streaming: bool) -> None:
    answer = Answer("I look", CALLS)
    data = answer.stream(Schema.CHAT) if is_streaming else answer.body(Schema.CHAT)
    result = read(Schema.CHAT, compress(data), is_streaming=is_streaming, encoding=encoding, cuts=[3, 50, 51])
    assert result.evidence.digest == echoed_digest(Schema.CHAT, answer)
    assert result.is_complete


@pytest.mark.parametrize(("encoding", "data"), [("br", b"\x0b\x02"), ("zstd", b"x"), ("gzip", b"not gzip")])
def test_what_cannot_be_unpacked_is_unknown(encoding: str, data: bytes) -> None:
    result = read(Schema.CHAT, data, encoding=encoding)
    assert result == AnswerRead(AnswerEvidence(None))
    assert result.is_complete is None


def test_a_compression_bomb_is_not_unpacked() -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    assert read(Schema.CHAT, bomb, is_streaming=False, encoding="gzip", max_bytes=100_000).is_complete is None


@pytest.mark.parametrize("schema", list(Schema))
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"Internal Server Error",
        b'{"error": {"message": "boom", "type": "InternalServerError", "code": 500}}',
        b'{"type": "error", "error": {"type": "x", "message": "boom"}}',
        b"<html>",
        b"[]",
    ],
)
@pytest.mark.parametrize("is_streaming", [True, False])
def test_errors(schema: Schema, data: bytes, is_streaming: bool) -> None:
    result = read(schema, data, is_streaming=is_streaming, status=500)
    assert result.has_error
    assert result.evidence == AnswerEvidence(None)


@pytest.mark.parametrize(
    ("schema", "event"),
    [
        (Schema.CHAT, {"error": {"message": "boom"}}),
        (Schema.COMPLETIONS, {"object": "error", "message": "boom"}),
        (
            Schema.RESPONSES,
            {"type": "response.failed", "response": {"status": "failed", "error": {"code": "x"}}},
        ),
        (Schema.RESPONSES, {"type": "error", "message": "boom"}),
        (Schema.MESSAGES, {"type": "error", "error": {"type": "internal_error"}}),
    ],
)
def test_an_error_in_the_middle_of_a_stream(schema: Schema, event: dict[str, Any]) -> None:
    start = b"" if schema is Schema.COMPLETIONS else Answer("abc", []).stream(schema)[:200]
    start = start[: start.rfind(b"\n\n") + 2]
    result = read(schema, start + sse([event]))
    assert result.has_error
    assert result.evidence.digest is None


@pytest.mark.parametrize("schema", TRACKED)
def test_a_stream_that_breaks_off_is_incomplete(schema: Schema) -> None:
    stream = Answer("I look at the file", []).stream(schema)
    result = read(schema, stream[: len(stream) // 3])
    assert result.is_complete is False
    assert not result.has_error
    assert result.prompt_tokens is None


def test_no_done_and_no_usage() -> None:
    stream = Answer("x", []).stream(Schema.CHAT)
    until_finish = stream[: stream.index(b'"choices":[],')].rpartition(b"data: ")[0]
    result = read(Schema.CHAT, until_finish)
    assert (result.is_complete, result.finish_reason, result.completion_tokens) == (True, "stop", None)


def test_a_whole_answer_where_a_stream_was_asked_for() -> None:
    answer = Answer("x", [])
    result = read(Schema.CHAT, answer.body(Schema.CHAT), is_streaming=True)
    assert result.evidence.digest == echoed_digest(Schema.CHAT, answer)


def test_long_answers_are_read_as_they_come() -> None:
    answer = Answer("word " * 20_000, [])
    stream = answer.stream(Schema.CHAT)
    result = read(Schema.CHAT, stream, cuts=range(0, len(stream), 4096))
    assert result.evidence.digest == echoed_digest(Schema.CHAT, answer)
    assert result.completion_tokens == 7


@pytest.mark.parametrize("schema", TRACKED)
def test_of_an_answer_too_large_the_counts_remain(schema: Schema) -> None:
    stream = Answer("word " * 8_000, []).stream(schema)
    result = read(schema, stream, cuts=range(0, len(stream), 4096), max_bytes=50_000)
    assert result.evidence.digest is None
    assert (result.completion_tokens, result.finish_reason, result.is_complete) == (7, "stop", True)


def test_a_whole_answer_too_large_is_unknown() -> None:
    body = Answer("word " * 2_000, []).body(Schema.CHAT)
    result = read(Schema.CHAT, body, is_streaming=False, cuts=range(0, len(body), 1000), max_bytes=5_000)
    assert result == AnswerRead(AnswerEvidence(None))


@pytest.mark.parametrize("schema", TRACKED)
def test_the_first_token_is_seen_when_it_comes(schema: Schema) -> None:
    reader = AnswerReader(schema, is_streaming=True)
    seen = []
    for event in Answer("I look", [], thought="").stream(schema).split(b"\n\n"):
        seen.append(reader.saw_first_token)
        reader.feed(event + b"\n\n")
    assert reader.saw_first_token
    assert seen.index(True) > {Schema.CHAT: 1, Schema.RESPONSES: 2, Schema.MESSAGES: 1}[schema]


@pytest.mark.parametrize("delta", [{"tool_calls": [{"index": 0, "id": "x"}]}, {"reasoning": "hm"}])
def test_thought_and_calls_are_tokens_too(delta: dict[str, Any]) -> None:
    reader = AnswerReader(Schema.CHAT, is_streaming=True)
    reader.feed(b": waiting\n\n")
    reader.feed(sse([{**HEAD, "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}]))
    assert not reader.saw_first_token
    reader.feed(sse([{**HEAD, "choices": [{"index": 0, "delta": delta}]}]))
    assert reader.saw_first_token


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
EVENTS = st.sampled_from(
    ["content_block_start", "content_block_delta", "message_start", "message_delta", "response.completed"]
)
NAMES = st.sampled_from(
    [
        "choices",
        "usage",
        "error",
        "item",
        "response",
        "index",
        "delta",
        "content_block",
        "message",
        "output_index",
    ]
)


@given(
    st.sampled_from(list(Schema)),
    st.lists(st.tuples(EVENTS, st.dictionaries(NAMES, JSON, max_size=5)), max_size=4),
    st.booleans(),
)
def test_no_shape_raises(
    schema: Schema, events: list[tuple[str, dict[str, Any]]], is_streaming: bool
) -> None:
    values = [{"type": kind, **members} for kind, members in events]
    data = sse(values) if is_streaming else json.dumps(values[0] if values else None).encode()
    assert read(schema, data, is_streaming=is_streaming).evidence.call_ids == ()


@given(
    st.sampled_from(list(Schema)),
    st.binary(max_size=200),
    st.booleans(),
    st.integers(0, 3000),
    st.integers(0, 9),
)
def test_no_damage_raises(schema: Schema, put: bytes, is_streaming: bool, at: int, length: int) -> None:
    answer = Answer("I look", CALLS)
    source = Schema.CHAT if schema is Schema.COMPLETIONS else schema
    data = answer.stream(source) if is_streaming else answer.body(source)
    result = read(schema, data[:at] + put + data[at + length :], is_streaming=is_streaming)
    assert result.is_complete in (True, False)
