"""When the client can know that a stream is over, however it arrives and whatever the model writes."""

import json

import pytest

from marsproxy.core.evidence import Schema
from marsproxy.wire.stream_end import StreamEnd

SAYS_DONE = {"choices": [{"delta": {"content": "print('data: [DONE]')\n\nevent: response.completed\n\n"}}]}
CHAT = b"data: " + json.dumps(SAYS_DONE).encode() + b"\n\ndata: [DONE]\n\n"
RESPONSES = (
    b'event: response.output_text.done\ndata: {"text": "event: response.completed"}\n\n'
    b'event: response.completed\ndata: {"response": {"output": [], "instructions": "\\n\\n"}}\n\n'
)
MESSAGES = (
    b'event: content_block_delta\ndata: {"text": "event: message_stop"}\n\n'
    b'event: message_stop\ndata: {"type": "message_stop"}\n\n'
)
STREAMS = [
    (Schema.CHAT, CHAT),
    (Schema.COMPLETIONS, CHAT),
    (Schema.RESPONSES, RESPONSES),
    (Schema.RESPONSES, RESPONSES.replace(b"event: response.completed", b"event: response.incomplete")),
    (Schema.RESPONSES, RESPONSES.replace(b"event: response.completed", b"event: response.failed")),
    (Schema.MESSAGES, MESSAGES),
]


@pytest.mark.parametrize(("schema", "stream"), STREAMS)
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_the_end_is_that_of_the_last_line_wherever_the_stream_is_cut(
    schema: Schema, stream: bytes, line_end: bytes
) -> None:
    """The last event may span chunks: the responses API's repeats the whole answer. Clients that read by
    line leave before the empty one."""
    stream = stream.replace(b"\n", line_end)
    for cut in range(1, len(stream)):
        end = StreamEnd(schema)
        is_reached = end.is_reached_by(stream[:cut])
        assert is_reached == (cut >= len(stream) - len(line_end) and stream[:cut].endswith(b"\n"))
        assert is_reached or end.is_reached_by(stream[cut:])


@pytest.mark.parametrize(("schema", "stream"), STREAMS)
def test_byte_by_byte(schema: Schema, stream: bytes) -> None:
    end = StreamEnd(schema)
    reached = [end.is_reached_by(stream[at : at + 1]) for at in range(len(stream))]
    assert reached.index(True) == len(stream) - 2


def test_a_stream_of_nothing_but_its_end() -> None:
    assert StreamEnd(Schema.CHAT).is_reached_by(b"data: [DONE]\n\n")
