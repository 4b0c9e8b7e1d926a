"""A TCP tap: stands between a client and a server and keeps what goes through, both ways.

It knows connections and bytes, and cuts them into HTTP messages only when asked.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.integration.http_messages import Message, cut_interim, cut_message

READ_BYTES = 1 << 16


@dataclass
class Recording:
    """One connection."""

    sent: bytearray = field(default_factory=bytearray)
    """By the client."""
    received: bytearray = field(default_factory=bytearray)
    """By the client."""


class Tap:
    """Records every connection made to ``url``."""

    def __init__(self, target_url: str) -> None:
        parts = urlsplit(target_url)
        self._target = (parts.hostname, parts.port)
        self.url = ""
        self.connections: list[Recording] = []

    def exchanges(self, first_connection: int = 0) -> list[tuple[Message, Message]]:
        """Requests with their whole answers, connection by connection."""
        return [pair for connection in self.connections[first_connection:] for pair in _exchanges(connection)]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        recording = Recording()
        self.connections.append(recording)
        target_reader, target_writer = await asyncio.open_connection(*self._target)
        async with asyncio.TaskGroup() as both:
            both.create_task(_copy(reader, target_writer, recording.sent))
            both.create_task(_copy(target_reader, writer, recording.received))


@asynccontextmanager
async def tapped(target_url: str) -> AsyncIterator[Tap]:
    """Listens on a free port of this machine."""
    tap = Tap(target_url)
    server = await asyncio.start_server(tap.serve, "127.0.0.1", 0)
    tap.url = "http://{}:{}".format(*server.sockets[0].getsockname())
    try:
        yield tap
    finally:
        server.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, record: bytearray) -> None:
    """One direction, to its end, which is passed on too."""
    try:
        while data := await reader.read(READ_BYTES):
            record += data
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass  # one side was cut; the other learns it from our closing
    finally:
        writer.close()


def _exchanges(recording: Recording) -> list[tuple[Message, Message]]:
    sent, received = bytes(recording.sent), bytes(recording.received)
    found = []
    while cut := cut_message(sent):
        request, sent = cut
        answered = cut_message(cut_interim(received), has_body=request.method != b"HEAD")
        if answered is None:
            break
        answer, received = answered
        found.append((request, answer))
    return found
