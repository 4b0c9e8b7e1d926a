"""Raw sockets against a real uvicorn with the limits."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import uvicorn

from marsproxy.config import Listen
from marsproxy.http_limits import SILENT_GRACE_S, limited_protocol

pytestmark = pytest.mark.slow

GET = b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the number of body bytes."""
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    body = str(size).encode()
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]}
    )
    await send({"type": "http.response.body", "body": body})


@dataclass
class Client:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, content: bytes) -> None:
        self.writer.write(content)
        await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        return int(head[0].split()[1]), headers, await self.reader.readexactly(int(headers["content-length"]))

    async def refusal(self) -> tuple[int, str]:
        """Status and code of an answer of ours, after which the connection must be at its end."""
        status, headers, body = await self.answer()
        assert headers["connection"] == "close"
        assert await self.reader.read() == b""
        return status, json.loads(body)["error"]["code"]


@asynccontextmanager
async def serving(**limits: Any) -> AsyncIterator[int]:
    """Port of a server with these limits."""
    config = uvicorn.Config(
        app, http=limited_protocol(Listen(**limits)), lifespan="off", log_level="critical"
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            tasks.create_task(server.serve(sockets=[listening]))
            try:
                yield listening.getsockname()[1]
            finally:
                server.should_exit = True


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


def head_of(size: int) -> bytes:
    """A complete head that is a little longer than ``size`` bytes."""
    return b"GET / HTTP/1.1\r\nhost: h\r\nx-long: " + b"a" * size + b"\r\n\r\n"


async def test_ordinary_requests_pass_on_one_connection() -> None:
    """Below every limit nothing changes."""
    async with serving() as port, connected(port) as client:
        for _ in range(3):
            await client.send(GET)
            assert (await client.answer())[::2] == (200, b"0")


async def test_body_does_not_count_as_head() -> None:
    """Also when it comes in the same read."""
    async with serving(max_header_bytes=1024) as port, connected(port) as client:
        body = b"b" * 50_000
        for _ in range(2):
            await client.send(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 50000\r\n\r\n" + body)
            assert (await client.answer())[::2] == (200, b"50000")


async def test_pipelined_requests_do_not_add_up() -> None:
    """The bound is for one head, however many come in a read, and wherever the reads are cut."""
    async with serving(max_header_bytes=1024) as port, connected(port) as client:
        requests = GET * 100
        await client.send(requests[:-10])
        await asyncio.sleep(0.05)
        await client.send(requests[-10:])
        assert [(await client.answer())[0] for _ in range(100)] == [200] * 100


async def test_long_head_that_is_complete() -> None:
    """Refused by its exact length."""
    async with serving(max_header_bytes=2048) as port:
        async with connected(port) as client:
            await client.send(head_of(1900))
            assert (await client.answer())[0] == 200
        async with connected(port) as client:
            await client.send(head_of(2100))
            assert await client.refusal() == (431, "headers_too_large")


async def test_head_without_end() -> None:
    """Refused when it passes the bound, and the client can read why although it goes on sending."""
    async with serving(max_header_bytes=4096) as port, connected(port) as client:
        await client.send(b"GET / HTTP/1.1\r\nx: ")
        for _ in range(200):
            await client.send(b"a" * 1000)
            await asyncio.sleep(0)
        assert await client.refusal() == (431, "headers_too_large")


@pytest.mark.parametrize("dribble", [b"x: y\r\n", b"x"])
async def test_slow_loris(dribble: bytes) -> None:
    """Bytes that keep coming do not prolong the time for the head."""
    async with serving(header_timeout_s=0.2) as port, connected(port) as client:
        await client.send(b"GET / HTTP/1.1\r\nhost: h\r\n")
        for _ in range(3):
            await asyncio.sleep(0.02)
            await client.send(dribble)
        assert await client.refusal() == (408, "headers_too_slow")


async def test_slow_loris_after_a_request() -> None:
    """The second head of a connection has the same time."""
    async with serving(header_timeout_s=0.1) as port, connected(port) as client:
        await client.send(GET)
        assert (await client.answer())[0] == 200
        await client.send(GET[:20])
        assert await client.refusal() == (408, "headers_too_slow")


async def test_silent_connection_is_closed() -> None:
    """Without an answer: nobody asked."""
    async with serving(header_timeout_s=0.1) as port, connected(port) as client:
        assert await client.reader.read() == b""


async def test_idle_keep_alive_is_not_a_slow_head() -> None:
    """Between requests only the keep-alive time counts."""
    async with serving(header_timeout_s=0.05, keep_alive_s=30) as port, connected(port) as client:
        await client.send(GET)
        await client.answer()
        await asyncio.sleep(0.2)
        await client.send(GET)
        assert (await client.answer())[0] == 200


async def test_stray_line_end_after_a_body() -> None:
    """Some clients add one; it begins no head, so it starts no timer."""
    async with serving(header_timeout_s=0.05) as port, connected(port) as client:
        await client.send(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\n\r\nx\r\n")
        await client.answer()
        await asyncio.sleep(0.2)
        await client.send(GET)
        assert (await client.answer())[0] == 200


async def test_too_many_connections() -> None:
    """One more is told so; when one leaves, there is room again."""
    async with serving(max_connections=2) as port:
        async with connected(port) as first, connected(port) as second:
            for client in (first, second):
                await client.send(GET)
                await client.answer()
            async with connected(port) as third:
                assert await third.refusal() == (503, "too_many_connections")
        statuses = [503]
        while statuses[-1] == 503:  # until the server has seen that one left
            async with connected(port) as fourth:
                await fourth.send(GET)
                statuses.append((await fourth.answer())[0])
        assert statuses[-1] == 200


async def test_whoever_says_nothing_makes_room_for_whoever_does() -> None:
    """The oldest silent connection goes; one that has spoken, or came just now, does not."""
    async with (
        serving(max_connections=2, header_timeout_s=20.0) as port,
        connected(port) as speaking,
        connected(port) as silent,
    ):
        await speaking.send(GET)
        await speaking.answer()
        async with connected(port) as early:
            assert await early.refusal() == (503, "too_many_connections")
        await asyncio.sleep(1.2 * SILENT_GRACE_S)
        async with connected(port) as late:
            await late.send(GET)
            assert (await late.answer())[0] == 200
            assert await silent.reader.read() == b""
            await speaking.send(GET)
            assert (await speaking.answer())[0] == 200


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    ids=["tls", "version", "length", "smuggling"],
)
async def test_what_is_no_http(garbage: bytes) -> None:
    """In our shape, and the connection ends."""
    async with serving() as port, connected(port) as client:
        await client.send(garbage)
        assert await client.refusal() == (400, "not_http")


async def test_many_refused_connections() -> None:
    """Each gets its answer, and the server goes down with none left."""
    async with serving(header_timeout_s=0.5) as port:
        clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(50)]
        for _, writer in clients:
            writer.write(b"GET / HT")
        for reader, writer in clients:
            assert b" 408 " in await reader.readline()
            writer.close()
