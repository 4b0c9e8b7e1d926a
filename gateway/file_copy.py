"""Copies files and directories between here and a session's workspace.

Owns the names of places (``SESSION:PATH``) and how a directory travels: as a tar, by way of a temporary
file here, so that no size is too large for memory.
"""

import asyncio
import contextlib
import os
import secrets
import tarfile
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import BinaryIO

from gateway.client import GatewayClient, GatewayError, Refused

_PIECE_BYTES = 1 << 20


async def copy(client: GatewayClient, source: str, target: str) -> None:
    """Raises GatewayError, OSError."""
    inward, outward = _place(target), _place(source)
    if inward is not None and outward is None:
        await _upload(client, Path(source), *inward)
    elif outward is not None and inward is None:
        await _download(client, *outward, Path(target))
    else:
        raise GatewayError("one of the two must be SESSION:PATH, the other one a PATH here")


def _place(text: str) -> tuple[str, str] | None:
    """Session and path; None: a path here."""
    session, colon, path = text.partition(":")
    return (session, path or ".") if colon and "/" not in session else None


async def _upload(client: GatewayClient, source: Path, session: str, path: str) -> None:
    await client.ensure_session(session)
    if not await asyncio.to_thread(source.is_dir):
        with await asyncio.to_thread(source.open, "rb") as file:
            mode = f"{os.fstat(file.fileno()).st_mode & 0o777:03o}"
            await client.write_file(session, path, _pieces(file), mode)
        return
    with tempfile.TemporaryFile() as packed:
        await asyncio.to_thread(_pack, source, packed)
        await client.unpack(session, _pieces(packed), path)


async def _download(client: GatewayClient, session: str, path: str, target: Path) -> None:
    """There is the whole file or the one before; of a directory, what came."""
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    with await asyncio.to_thread(partial.open, "xb+") as file:
        try:
            if await _fetch(client, session, path, file):
                await asyncio.to_thread(_unpack, file, target)
            else:
                await asyncio.to_thread(partial.replace, target)
        finally:
            await asyncio.to_thread(partial.unlink, missing_ok=True)


async def _fetch(client: GatewayClient, session: str, path: str, file: BinaryIO) -> bool:
    """True: it is a directory, and this its tar."""
    try:
        await _save(client.file(session, path), file)
        return False
    except Refused as no_file:
        try:
            await _save(client.pack(session, path), file)
        except Refused:
            raise no_file from None
        return True


async def _save(pieces: AsyncGenerator[bytes, None], file: BinaryIO) -> None:
    async with contextlib.aclosing(pieces):
        async for piece in pieces:
            await asyncio.to_thread(file.write, piece)
    await asyncio.to_thread(file.flush)


async def _pieces(file: BinaryIO) -> AsyncIterator[bytes]:
    while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
        yield piece


def _pack(source: Path, packed: BinaryIO) -> None:
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for child in sorted(source.iterdir()):
            tar.add(child, child.name)
    packed.seek(0)


def _unpack(packed: BinaryIO, target: Path) -> None:
    packed.seek(0)
    target.mkdir(exist_ok=True)
    with tarfile.open(fileobj=packed, mode="r") as tar:
        tar.extractall(target, filter="data")
