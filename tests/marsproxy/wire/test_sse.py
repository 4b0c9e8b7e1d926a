"""Where events end and what they carry."""

import pytest

from marsproxy.wire.sse import cut, payloads


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: 1\n\ndata: 2\n\n", [b"1", b"2"]),
        (b"data:1\r\n\r\ndata:  2 \r\n\r\n", [b"1", b"2"]),
        (b": held\n\ndata: 1\n\n", [b"1"]),
        (b"event: x\nid: 7\ndata: 1\n\n", [b"1"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"event: ping\n\n\n\n", []),
        (b"", []),
    ],
)
def test_payloads(stream: bytes, expected: list[bytes]) -> None:
    assert list(payloads(stream)) == expected


@pytest.mark.parametrize(
    ("stream", "complete"),
    [
        (b"data: 1\n\ndata: 2", b"data: 1\n\n"),
        (b"data: 1\r\n\r\ndata: 2\r\n", b"data: 1\r\n\r\n"),
        (b"data: 1\n\n", b"data: 1\n\n"),
        (b"data: 1\n", b""),
        (b"", b""),
        (b"\n\nx", b"\n\n"),
    ],
)
def test_cut(stream: bytes, complete: bytes) -> None:
    assert cut(stream) == (complete, stream[len(complete) :])
