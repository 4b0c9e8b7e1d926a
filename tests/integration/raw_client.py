"""Requests that no client library would send, byte for byte."""

import asyncio
from urllib.parse import urlsplit

from tests.integration.http_messages import Message, cut_interim, cut_message

READ_BYTES = 1 << 16


def request(start: str, *headers: str | bytes, body: bytes = b"") -> bytes:
    """The bytes of a request; its length is announced where there is a body."""
    lines = [line if isinstance(line, bytes) else line.encode() for line in headers]
    if body:
        lines.append(b"content-length: %d" % len(body))
    return b"\r\n".join([f"{start} HTTP/1.1".encode(), b"host: localhost", *lines, b"", body])


async def exchange(url: str, data: bytes) -> Message:
    """Send these bytes over a connection of their own, and read one whole answer."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(data)
        return await read_answer(reader, has_body=not data.startswith(b"HEAD "))
    finally:
        writer.close()
        await writer.wait_closed()


async def read_answer(reader: asyncio.StreamReader, *, has_body: bool = True) -> Message:
    received = b""
    while True:
        more = await reader.read(READ_BYTES)
        received = cut_interim(received + more)
        cut = cut_message(received, has_body=has_body)
        if cut is not None and (not more or not _ends_with_connection(cut[0])):
            return cut[0]
        assert more, f"the connection ended after {received!r}"


def _ends_with_connection(answer: Message) -> bool:
    """Its body has no other end."""
    names = dict(answer.headers)
    return bool(answer.body) and b"content-length" not in names and b"transfer-encoding" not in names
