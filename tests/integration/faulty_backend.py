"""A backend that misbehaves on purpose: raw sockets, so that it can send what no HTTP library would.

A ``Behaviour`` is called once for each request, after its head (and its body, unless told otherwise) was
read; what it writes goes out as it is. What the proxy itself asks for is answered 404 without asking it.
"""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

SSE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
PROXYS_OWN = (b"GET /metrics ", b"GET /v1/mars/capabilities ")
LAST_CHUNK = b"0\r\n\r\n"


@dataclass
class Exchange:
    """One request, and the connection that it came on."""

    number: int
    """Of the request, over all connections, from 1."""
    number_on_connection: int
    head: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    body: bytes = b""

    async def send(self, *parts: bytes) -> None:
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()

    def reset(self) -> None:
        """End the connection the hard way, as a process that is killed."""
        self.writer.transport.abort()


Behaviour = Callable[[Exchange], Awaitable[None]]


@dataclass
class FaultyBackend:
    behaviour: Behaviour
    reads_body: bool = True
    url: str = ""
    requests: list[bytes] = field(default_factory=list)
    """Heads, without those of the proxy's own."""
    connections: int = 0
    """Accepted for requests, ever."""
    lost: int = 0
    """Requests whose connection the proxy ended while the behaviour was at work."""
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            await self._serve(reader, writer)
        except asyncio.CancelledError:
            pass  # the test is over; asyncio.streams reports what is cancelled
        finally:
            self.tasks.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number_on_connection = 0
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(PROXYS_OWN):
                    writer.write(NOT_FOUND)
                    continue
                number_on_connection += 1
                self.connections += number_on_connection == 1
                self.requests.append(head)
                exchange = Exchange(len(self.requests), number_on_connection, head, reader, writer)
                if self.reads_body:
                    exchange.body = await read_body(head, reader)
                await self._until_lost(exchange)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _until_lost(self, exchange: Exchange) -> None:
        """A behaviour that waits is stopped when the proxy ends the connection."""
        if not self.reads_body:
            await self.behaviour(exchange)
            return
        async with asyncio.TaskGroup() as tasks:
            working = tasks.create_task(self._behave(exchange))
            watching = tasks.create_task(self._watch(exchange, working))
            working.add_done_callback(lambda _: watching.cancel())

    async def _behave(self, exchange: Exchange) -> None:
        with suppress(ConnectionError):
            await self.behaviour(exchange)

    async def _watch(self, exchange: Exchange, working: asyncio.Task[None]) -> None:
        with suppress(ConnectionError):
            await exchange.reader.read(1)
        self.lost += 1
        exchange.writer.close()
        working.cancel()


@asynccontextmanager
async def faulty_backend(behaviour: Behaviour, *, reads_body: bool = True) -> AsyncIterator[FaultyBackend]:
    backend = FaultyBackend(behaviour, reads_body)
    server = await asyncio.start_server(backend.serve, "127.0.0.1", 0, limit=1 << 20)
    async with server:
        backend.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield backend
        finally:
            for task in list(backend.tasks):
                task.cancel()


async def read_body(head: bytes, reader: asyncio.StreamReader) -> bytes:
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
    if b"chunked" not in fields.get(b"transfer-encoding", b""):
        return await reader.readexactly(int(fields.get(b"content-length", b"0")))
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return body


# -- what it can send -----------------------------------------------------------------------------


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(content), content)


def delta(text: str = "word ", finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}
    return b"data: " + json.dumps({"object": "chat.completion.chunk", "choices": [choice]}).encode() + b"\n\n"


USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}\n\n'
DONE = b"data: [DONE]\n\n"
WHOLE_STREAM = (delta("one "), delta("two", "stop"), USAGE, DONE)
UNARY = json.dumps(
    {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2},
    }
).encode()


def answer(body: bytes = UNARY, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    lines = [b"HTTP/1.1 " + status, b"content-type: application/json", b"content-length: %d" % len(body)]
    return b"\r\n".join([*lines, *headers, b"", body])


async def answers_well(exchange: Exchange) -> None:
    if b'"stream":true' in exchange.body.replace(b" ", b""):
        await exchange.send(SSE_HEAD, *map(chunk, WHOLE_STREAM), LAST_CHUNK)
    else:
        await exchange.send(answer())


def sends(*parts: bytes, ends: bool = False) -> Behaviour:
    """These bytes, and then the connection is kept, or ended."""

    async def behave(exchange: Exchange) -> None:
        await exchange.send(*parts)
        if ends:
            exchange.writer.close()

    return behave


def streams(*events: bytes) -> Behaviour:
    """A whole stream of these events."""
    return sends(SSE_HEAD, *map(chunk, events), LAST_CHUNK)


def gzipped(body: bytes = UNARY) -> Behaviour:
    return sends(answer(gzip.compress(body), b"content-encoding: gzip"))


async def is_silent(exchange: Exchange) -> None:
    await asyncio.Event().wait()


async def resets(exchange: Exchange) -> None:
    exchange.reset()
