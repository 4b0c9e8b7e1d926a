"""Files and archives between HTTP bodies and hosts, a piece at a time.

Owns cutting into pieces, the limits of size and patience, and what a host's refusal means to a client.
Never more than a few pieces of one transfer are in memory, however large the file is and however slow
either side.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from dataclasses import dataclass
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request

from gateway.errors import Refusal, host_lost, invalid, session_not_found
from gateway.host import CommandHost, FileChunk, HostFault, HostLost
from gateway.host_agent.wire import MAX_PAYLOAD_BYTES, Fault
from gateway.ranges import Span

PIECE_BYTES = MAX_PAYLOAD_BYTES
_SILENCE_S = 30.0
"""A client that sends nothing for so long in the middle of a body is gone."""

T = TypeVar("T")


class TransferBroken(Exception):
    """What was promised in the head of the answer cannot be kept; the connection is closed instead."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """Of one session, on its host. Raises Refusal where the host says no."""

    host: CommandHost
    session: str
    session_id: str

    async def read(self, path: str, offset: int, limit: int = PIECE_BYTES) -> FileChunk:
        return await self._asked(self.host.read_file(self.session, path, offset, limit))

    async def read_span(self, path: str, span: Span) -> AsyncGenerator[bytes, None]:
        offset = span.start
        while offset < span.stop:
            chunk = await self.read(path, offset, min(PIECE_BYTES, span.stop - offset))
            if not chunk.data:
                raise TransferBroken(f"the file has become shorter than {span.stop} bytes")
            offset += len(chunk.data)
            yield chunk.data

    async def write(self, path: str, body: AsyncIterator[tuple[bytes, bool]], mode: int | None) -> int:
        """The file is there, whole, or as it was. Returns its size."""
        upload, offset = secrets.token_hex(8), 0
        async for piece, is_last in body:
            offset = await self._asked(
                self.host.write_file(self.session, path, upload, offset, piece, is_last=is_last, mode=mode)
            )
        return offset

    async def remove(self, path: str) -> bool:
        return await self._asked(self.host.remove_file(self.session, path))

    async def unpack(self, path: str, body: AsyncIterator[tuple[bytes, bool]]) -> int:
        """Returns the number of entries. What was unpacked before a fault stays."""
        handle = await self._asked(self.host.open_archive(self.session, path, "write"))
        entries = 0
        try:
            async for piece, is_last in body:
                entries = await self._asked(self.host.write_archive(handle, piece, is_last=is_last))
        finally:
            await self._closed(handle)
        return entries

    async def pack(self, path: str) -> AsyncGenerator[bytes, None]:
        """A tar. The first piece tells whether there is anything to pack; ask for it before you answer."""
        handle = await self._asked(self.host.open_archive(self.session, path, "read"))
        try:
            is_eof = False
            while not is_eof:
                piece, is_eof = await self._asked(self.host.read_archive(handle))
                yield piece
        finally:
            await self._closed(handle)

    async def _closed(self, handle: str) -> None:
        # Else it went with its connection, or after its last piece.
        with contextlib.suppress(HostFault, HostLost):
            await self.host.close_archive(handle)

    async def _asked(self, answer: Awaitable[T]) -> T:
        try:
            return await answer
        except HostFault as fault:
            raise self._refusal(fault) from fault
        except HostLost as error:
            raise host_lost(self.host.name) from error

    def _refusal(self, fault: HostFault) -> Refusal:
        match fault.code:
            case Fault.NOT_FOUND:
                return Refusal(404, "file_not_found", f"path: {fault.message}", param="path")
            case Fault.UNKNOWN_SESSION:
                return session_not_found(self.session_id)
            case Fault.OUTSIDE:
                return Refusal(403, "outside_workspace", f"path: {fault.message}", param="path")
            case Fault.FORBIDDEN:
                return Refusal(403, "forbidden", f"path: {fault.message}", param="path")
            case Fault.TOO_LARGE:
                return Refusal(413, "too_large", fault.message, param="body")
            case Fault.NO_SPACE:
                return Refusal(507, "no_space", f"host {self.host.name!r}: {fault.message}")
            case Fault.BAD_REQUEST:
                return invalid("path", fault.message)
            case Fault.UNKNOWN_ARCHIVE:
                return host_lost(self.host.name)
        return Refusal(503, "host_failed", f"host {self.host.name!r}: {fault.message}", retry_after_s=5)


async def pieces(
    request: Request, max_bytes: int, silence_s: float = _SILENCE_S
) -> AsyncIterator[tuple[bytes, bool]]:
    """The body in whole pieces, the last one flagged; one empty piece of an empty body. Raises Refusal."""
    if int(request.headers.get("content-length", 0)) > max_bytes:
        raise _too_large(max_bytes)
    total, buffer = 0, bytearray()
    async for data in _body(request, silence_s):
        total += len(data)
        if total > max_bytes:
            raise _too_large(max_bytes)
        buffer += data
        while len(buffer) > PIECE_BYTES:
            yield bytes(buffer[:PIECE_BYTES]), False
            del buffer[:PIECE_BYTES]
    yield bytes(buffer), True


async def _body(request: Request, silence_s: float) -> AsyncIterator[bytes]:
    stream = request.stream()
    try:
        while True:
            async with asyncio.timeout(silence_s):
                data = await anext(stream)
            yield data
    except StopAsyncIteration:
        return
    except TimeoutError as error:
        raise Refusal(408, "too_slow", f"nothing came for {silence_s:g} s", param="body") from error
    except ClientDisconnect as error:
        raise Refusal(400, "disconnected", "the body is incomplete", param="body") from error


def _too_large(max_bytes: int) -> Refusal:
    return Refusal(413, "too_large", f"the body is larger than {max_bytes} bytes", param="body")
