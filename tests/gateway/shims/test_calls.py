"""Answers of a gateway, whole, in chunks, cut short, or of something else."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gateway.shims.calls import Address, Calls, Chunks, Refused, Unreachable
from gateway.shims.event_stream import EventStream


@contextmanager
def server(*pieces: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Takes one request, answers with these and hangs up. Its address, and what it was sent."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                heard.append(connection.recv(1 << 16))
                for piece in pieces:
                    connection.sendall(piece)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", heard
        finally:
            thread.join()


def calls(url: str, token: str | None = None) -> Calls:
    return Calls(Address(url), token)


@pytest.mark.parametrize(
    ("url", "host", "port", "prefix"),
    [
        ("http://127.0.0.1:8090", "127.0.0.1", 8090, ""),
        ("http://[::1]:8090/", "::1", 8090, ""),
        ("http://gateway", "gateway", 80, ""),
        ("https://gateway/below/", "gateway", 443, "/below"),
        ("http://[::1]", "::1", 80, ""),
    ],
)
def test_addresses(url: str, host: str, port: int, prefix: str) -> None:
    address = Address(url)
    assert (address.host, address.port, address.prefix) == (host, port, prefix)


@pytest.mark.parametrize("url", ["", "gateway:8090", "ftp://x", "http://", "http://x:port"])
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ValueError, match="must b"):
        Address(url)


def test_request_and_answer() -> None:
    with server(b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{"a"', b": 1}trailing") as (url, heard):
        assert calls(url, "secret").json("POST", "/v1/x", {"b": 2}, key="k") == {"a": 1}
    head, _, body = heard[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/x HTTP/1.1\r\n")
    assert b"Authorization: Bearer secret" in head
    assert b"Idempotency-Key: k" in head
    assert b"Content-Length: 8" in head
    assert body == b'{"b": 2}'


def test_answer_in_chunks() -> None:
    pieces = (
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\n{"a\r\n',
        b'5\r\n": 1',
        b"}\r\n0\r\n\r\n",
    )
    with server(*pieces) as (url, _):
        assert calls(url).json("GET", "/") == {"a": 1}


@pytest.mark.parametrize("cuts", range(1, 24))
def test_chunks_however_they_are_cut(cuts: int) -> None:
    data = b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
    chunks = Chunks()
    found = [piece for at in range(0, len(data), cuts) for piece in chunks.feed(data[at : at + cuts])]
    assert b"".join(found) == b"hello world"
    assert chunks.is_over


def test_empty_answer() -> None:
    with server(b"HTTP/1.1 204 No Content\r\n\r\n") as (url, _):
        assert calls(url).json("DELETE", "/") == {}


def test_refusal() -> None:
    body = b'{"error": {"message": "cpu: too much", "type": "t", "param": "cpu", "code": "invalid_value"}}'
    head = b"HTTP/1.1 429 Too Many\r\nRetry-After: 3\r\nContent-Length: %d\r\n\r\n" % len(body)
    with server(head + body) as (url, _), pytest.raises(Refused, match="cpu: too much") as caught:
        calls(url).json("GET", "/")
    assert (caught.value.status, caught.value.code, caught.value.retry_after_s) == (429, "invalid_value", 3.0)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n<html>abc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        b"HTTP/1.1 502 Bad\r\nContent-Length: 6\r\n\r\n<html>",
    ],
)
def test_what_is_no_answer_of_a_gateway(answer: bytes) -> None:
    with server(answer) as (url, _), pytest.raises(Unreachable, match="gateway"):
        calls(url).json("GET", "/")


def test_nobody_listens() -> None:
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9 does not answer"):
        calls("http://127.0.0.1:9").json("GET", "/")


def test_events_as_they_come() -> None:
    frames = b'id: 1.0.0\nevent: started\ndata: {"host": "a"}\n\n'
    frames += b"event: heartbeat\ndata: {}\n\nid: 1.2.0\nevent: out"
    chunk = b"%x\r\n%s\r\n" % (len(frames), frames)
    with server(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk) as (url, _):
        stream = EventStream(calls(url).open("GET", "/events"))
        found = []
        while not stream.is_over:
            found += stream.ready()
        stream.close()
    assert found == [("started", {"host": "a"}), ("heartbeat", {})]
    assert stream.last_id == "1.0.0"
