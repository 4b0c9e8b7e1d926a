"""Bytes into a workspace, from memory or from a file that was uploaded.

Owns cutting them into the pieces that hosts take.
"""

from collections.abc import AsyncIterator
from typing import Protocol

from gateway.transfers import PIECE_BYTES, Workspace


class Readable(Protocol):
    async def read(self, size: int = -1) -> bytes: ...


async def put_bytes(workspace: Workspace, path: str, data: bytes, mode: int | None = None) -> int:
    """Raises Refusal."""
    return await workspace.write(path, _pieces_of(data), mode)


async def put_stream(workspace: Workspace, path: str, source: Readable) -> int:
    """Raises Refusal."""
    return await workspace.write(path, _pieces_from(source), None)


async def _pieces_of(data: bytes) -> AsyncIterator[tuple[bytes, bool]]:
    for offset in range(0, max(len(data), 1), PIECE_BYTES):
        yield data[offset : offset + PIECE_BYTES], offset + PIECE_BYTES >= len(data)


async def _pieces_from(source: Readable) -> AsyncIterator[tuple[bytes, bool]]:
    piece = await source.read(PIECE_BYTES)
    while True:
        following = await source.read(PIECE_BYTES) if piece else b""
        yield piece, not following
        if not following:
            return
        piece = following
