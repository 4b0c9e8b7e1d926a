"""The client sees what it would have seen, had nobody asked for usage.

The oracle is a server that writes a stream as vLLM 0.32 does, asked and not asked.
"""

import json
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marsproxy.wire.splice import UsageStripper


@dataclass(frozen=True)
class Server:
    texts: tuple[str, ...] = ("Hel", "lo")
    fingerprint: str | None = "vllm-0.32.0-tp1-abcd"
    line_end: str = "\n"
    comments: bool = False
    says_null: bool = False
    """OpenAI's way: when asked, other events have ``"usage": null``."""
    finish_reason: str = "stop"
    ends: bool = True
    ending_has_text: bool = False

    def stream(self, *, asked: bool) -> bytes:
        events = [self._choice({"role": "assistant", "content": ""}, None, asked)]
        events += [self._choice({"content": text}, None, asked) for text in self.texts]
        last = {"content": "!"} if self.ending_has_text else {}
        events.append(self._choice(last, self.finish_reason, asked))
        if asked:
            usage = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}
            stamp = {"system_fingerprint": self.fingerprint} if self.fingerprint else {}
            events.append(self._event({**HEAD, "choices": [], "usage": usage, **stamp}))
        if self.ends:
            events.append("data: [DONE]")
        if self.comments:
            events.insert(1, ": ping")
        return "".join(event + self.line_end * 2 for event in events).encode()

    def _choice(self, delta: dict[str, str], finish_reason: str | None, asked: bool) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        value: dict[str, object] = {**HEAD, "choices": [choice]}
        if asked and self.says_null:
            value["usage"] = None
        if finish_reason and not asked and self.fingerprint:
            value["system_fingerprint"] = self.fingerprint
        return self._event(value)

    def _event(self, value: dict[str, object]) -> str:
        return "data: " + json.dumps(value, separators=(",", ":"))


HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
SERVERS = st.builds(
    Server,
    texts=st.lists(
        st.text(max_size=8) | st.sampled_from(['"usage":null', '"finish_reason":"stop"', "a\r\n\r\nb", "é✓"]),
        max_size=4,
    ).map(tuple),
    fingerprint=st.none() | st.just('vllm-"0.32"'),
    line_end=st.sampled_from(["\n", "\r\n"]),
    comments=st.booleans(),
    says_null=st.booleans(),
    finish_reason=st.sampled_from(["stop", "tool_calls", "length"]),
    ends=st.booleans(),
    ending_has_text=st.booleans(),
)


def stripped(stream: bytes, cuts: list[int] | None = None, **options: int) -> bytes:
    stripper = UsageStripper(**options)
    ends = sorted({min(cut, len(stream)) for cut in cuts or []} | {0, len(stream)})
    pieces = [stripper.feed(stream[start:end]) for start, end in pairwise(ends)]
    return b"".join(pieces) + stripper.flush()


@given(SERVERS, st.lists(st.integers(0, 1500), max_size=12))
def test_the_client_sees_what_it_would_have_seen(server: Server, cuts: list[int]) -> None:
    assert stripped(server.stream(asked=True), cuts) == server.stream(asked=False)


@given(SERVERS)
def test_byte_by_byte(server: Server) -> None:
    stream = server.stream(asked=True)
    assert stripped(stream, list(range(len(stream)))) == server.stream(asked=False)


@given(SERVERS, st.lists(st.integers(0, 1500), max_size=12))
def test_a_stream_without_traces_of_asking_is_left_as_it_is(server: Server, cuts: list[int]) -> None:
    stream = server.stream(asked=False)
    assert stripped(stream, cuts) == stream


@given(SERVERS, st.integers(0, 1500), st.lists(st.integers(0, 1500), max_size=5))
def test_a_stream_that_breaks_off_loses_nothing(server: Server, length: int, cuts: list[int]) -> None:
    server = replace(server, says_null=False)
    asked, plain = server.stream(asked=True), server.stream(asked=False)
    usage_end = asked.index((server.line_end * 2).encode(), asked.index(b'"choices":[],'))
    usage_start = asked.rindex(b"data: ", 0, usage_end)
    length = min(length, len(asked))
    seen = stripped(asked[:length], cuts)
    assert b'"choices":[],' not in seen
    if length < usage_end + len(server.line_end * 2):
        assert asked[:length].startswith(seen)
        assert len(seen) >= min(length, usage_start)
    else:
        assert plain.startswith(seen)
        assert len(seen) >= len(plain) - (len(asked) - length)


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=8))
def test_other_bytes_pass(stream: bytes, cuts: list[int]) -> None:
    assert stripped(stream, cuts) == stream


def test_events_are_not_held_back() -> None:
    server = Server()
    stripper = UsageStripper()
    asked = server.stream(asked=True).split(b"\n\n")
    events = [event + b"\n\n" for event in asked if event]
    seen = [stripper.feed(event) for event in events]
    assert seen[:3] == events[:3]
    # The event that ends the choice waits for the next one.
    assert seen[3] == b""
    assert seen[4].endswith(b'"system_fingerprint":"vllm-0.32.0-tp1-abcd"}\n\n')
    assert seen[5] == b"data: [DONE]\n\n"


def test_usage_that_a_backend_gives_unasked_is_left() -> None:
    """vLLM with --enable-force-include-usage: on every event, whether asked or not."""
    usage = {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11}
    events = [
        {**HEAD, "choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}], "usage": usage},
        {**HEAD, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage},
        {**HEAD, "choices": [], "usage": usage},
    ]
    stream = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    assert stripped(stream + b"data: [DONE]\n\n") == stream + b"data: [DONE]\n\n"


def test_usage_below_the_top_of_an_event_is_left() -> None:
    inner = {"index": 0, "delta": {"usage": None}, "finish_reason": None}
    stream = b"data: " + json.dumps({**HEAD, "choices": [inner]}, separators=(",", ":")).encode() + b"\n\n"
    assert stripped(stream) == stream


def test_an_overlong_event_passes_and_the_next_one_is_read_again() -> None:
    server = Server(texts=("x" * 5000, "y"))
    asked = server.stream(asked=True)
    stripper = UsageStripper(max_event_bytes=1000)
    most_held = 0
    seen = b""
    for at in range(0, len(asked), 100):
        seen += stripper.feed(asked[at : at + 100])
        most_held = max(most_held, at + 100 - len(seen))
    assert most_held <= 1000 + 100 + 600
    assert seen + stripper.flush() == server.stream(asked=False)


@pytest.mark.parametrize(
    "event", [b"data: {", b"data: [1]", b'data: {"usage":', b'data: {"usage":{}}', b'"usage"']
)
def test_malformed_events_pass(event: bytes) -> None:
    stream = event + b"\n\ndata: [DONE]\n\n"
    assert stripped(stream) == stream
