"""A backend that sends exactly the bytes it is told to and keeps every byte it gets.

Raw asyncio streams, so that no HTTP library decides about a header's spelling, a chunk's size or when a
connection ends. A route that has no reply is answered 404, as what the proxy itself asks for is.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.integration.http_messages import Message, cut_message

PAUSE_S = 0.02
"""Long enough for what was written before to arrive by itself."""
READ_BYTES = 1 << 16


@dataclass(frozen=True)
class Pause:
    """Let the bytes so far arrive before the next."""

    duration_s: float = PAUSE_S


@dataclass(frozen=True)
class Close:
    """End the connection here."""


@dataclass(frozen=True)
class Wait:
    """Go on once the test says so."""

    event: asyncio.Event


Step = bytes | Pause | Close | Wait
Reply = Sequence[Step]
Answering = Callable[[Message], Reply]
"""Where the reply depends on the request."""

PROXYS_OWN = (b"/metrics", b"/v1/mars/capabilities")
"""Targets that the proxy asks for by itself."""

NOT_HERE: Reply = (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",)


def head(status: str, *headers: str | bytes) -> bytes:
    lines = [line if isinstance(line, bytes) else line.encode() for line in headers]
    return b"\r\n".join([b"HTTP/1.1 " + status.encode(), *lines, b"", b""])


def whole(body: bytes, *headers: str | bytes, status: str = "200 OK") -> Reply:
    """An answer with its length."""
    return (head(status, *headers, f"content-length: {len(body)}") + body,)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def streamed(parts: Sequence[bytes], *headers: str | bytes, status: str = "200 OK") -> Reply:
    """An answer in chunks, each of which arrives by itself."""
    steps: list[Step] = [head(status, *headers, "transfer-encoding: chunked")]
    for part in parts:
        steps += [chunk(part), Pause()]
    return (*steps, b"0\r\n\r\n")


class ByteBackend:
    """Listens on a free port of this machine; an asynchronous context."""

    def __init__(self) -> None:
        self.requests: list[Message] = []
        """In order of arrival, but for the proxy's own."""
        self._open: set[asyncio.StreamWriter] = set()
        self._replies: dict[tuple[bytes, bytes], Answering] = {}
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        assert self._server is not None, "it is open"
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def reply(self, method: str, target: str, reply: Reply) -> None:
        """From now on; the target with its query, as it goes over the wire."""
        self.answer(method, target, lambda _: reply)

    def answer(self, method: str, target: str, answering: Answering) -> None:
        self._replies[method.encode(), target.encode()] = answering

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None, "it is open"
        self._server.close()
        for writer in self._open:
            writer.close()

    @property
    def connections_open(self) -> int:
        return len(self._open)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            async for request in _requests(reader):
                if request.target not in PROXYS_OWN:
                    self.requests.append(request)
                if not await self._play(writer, self._reply_to(request)):
                    break
        except ConnectionError:
            pass  # the client may go whenever it likes
        finally:
            self._open.discard(writer)
            writer.close()

    def _reply_to(self, request: Message) -> Reply:
        answering = self._replies.get((request.method, request.target))
        return NOT_HERE if answering is None else answering(request)

    async def _play(self, writer: asyncio.StreamWriter, reply: Reply) -> bool:
        """False when the reply ended the connection."""
        for step in reply:
            match step:
                case Pause():
                    await asyncio.sleep(step.duration_s)
                case Wait():
                    await step.event.wait()
                case Close():
                    return False
                case _:
                    writer.write(step)
                    await writer.drain()
        return True


async def _requests(reader: asyncio.StreamReader) -> AsyncIterator[Message]:
    data = b""
    while True:
        if cut := cut_message(data):
            request, data = cut
            yield request
        elif more := await reader.read(READ_BYTES):
            data += more
        else:
            return
