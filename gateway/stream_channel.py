"""A channel to an agent over an asyncio stream: a Unix socket, as a rule.

Owns nothing but the closing of it.
"""

import asyncio
import contextlib

_CLOSE_TIMEOUT_S = 5.0
"""Of an abort nothing is awaited but a turn of the event loop."""


class StreamChannel:
    """A ``conversation.Channel``."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read_exactly(self, n: int) -> bytes:
        return await self._reader.readexactly(n)

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    async def drain(self) -> None:
        await self._writer.drain()

    def abort(self) -> None:
        self._writer.transport.abort()

    async def close(self) -> None:
        self.abort()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self._writer.wait_closed()
