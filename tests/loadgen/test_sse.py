"""Answers are collected whatever the network does to the bytes, and broken ones are not taken for whole."""

from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.sse import Answer, BrokenAnswerError, SseReader, read_json_answer


def event(*choices: dict[str, Any], **fields: Any) -> bytes:
    return b"data: " + msgspec.json.encode({"choices": choices} | fields) + b"\n\n"


def called(**call: Any) -> dict[str, Any]:
    return {"tool_calls": [{"index": 0} | call]}


STREAM = b"".join(
    [
        b": keep-alive\r\n\r\n",
        b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\r\n\r\n',
        b'data:{"choices":[{"delta":{"content":"h\xc3\xa9"}}],"usage":null}\n\n',
        b"event: ping\n\n",
        event({"delta": called(id="c1", function={"name": "bash", "arguments": "{"})}),
        event({"delta": called(function={"arguments": "}"}), "finish_reason": "tool_calls"}),
        event(
            usage={
                "prompt_tokens": 9,
                "completion_tokens": 3,
                "prompt_tokens_details": {"cached_tokens": 4},
            }
        ),
        b"data: [DONE]\n\n",
    ]
)


def read(chunks: list[bytes]) -> Answer:
    reader = SseReader()
    for chunk in chunks:
        reader.feed(chunk)
    return reader.finish()


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_a_stream_reads_the_same_however_it_is_split(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    answer = read([STREAM[a:b] for a, b in pairwise(edges)])
    assert "".join(answer.text) == "hé"
    assert [(call.id, call.name, "".join(call.arguments)) for call in answer.tools] == [("c1", "bash", "{}")]
    assert (answer.outputs, answer.is_done, answer.finish_reason) == (3, True, "tool_calls")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None
    assert (answer.usage.prompt_tokens, answer.usage.prompt_tokens_details.cached_tokens) == (9, 4)


def test_a_stream_without_its_end_marker_or_usage_is_whole_if_it_was_finished() -> None:
    answer = read([b'data: {"choices":[{"delta":{"content":"x"},"finish_reason":"stop"}]}'])
    assert (answer.finish_reason, answer.is_done, answer.usage) == ("stop", False, None)


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"x"}}]}\n\ndata: [DONE]\n\n',
        b'data: {"choices":[{"del',
        b"data: nonsense\n\n",
        b'data: {"error":{"message":"died"}}\n\n',
        b'data: {"choices":[{"delta":{"content":"\xff"}}]}\n\n',
    ],
)
def test_a_broken_stream_is_no_answer(stream: bytes) -> None:
    with pytest.raises(BrokenAnswerError):
        read([stream])


def test_a_whole_answer() -> None:
    body = {
        "choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1},
    }
    answer = read_json_answer(msgspec.json.encode(body))
    assert (answer.text, answer.finish_reason) == (["hi"], "stop")


@pytest.mark.parametrize(
    ("comment", "held_ms"), [(b": held_ms=1250.5", 1250.5), (b": held", None), (b": held_ms=soon", None)]
)
def test_a_held_stream_says_how_long(comment: bytes, held_ms: float | None) -> None:
    assert read([comment + b"\n\n", STREAM]).held_ms == held_ms


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'{"error":{}}', b'{"choices":[{"message":{}}]}'])
def test_a_broken_body_is_no_answer(body: bytes) -> None:
    with pytest.raises(BrokenAnswerError):
        read_json_answer(body)
