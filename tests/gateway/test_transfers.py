"""Bodies in pieces: sizes, silence, clients that leave."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.requests import Request

from gateway.errors import Refusal
from gateway.transfers import PIECE_BYTES, pieces


def request(*messages: dict[str, Any], length: int | None = None) -> Request:
    """After its messages it is silent."""
    left = list(messages)

    async def receive() -> dict[str, Any]:
        if not left:
            await asyncio.Event().wait()
        return left.pop(0)

    headers = [] if length is None else [(b"content-length", str(length).encode())]
    return Request({"type": "http", "headers": headers, "method": "PUT"}, receive)


def body(data: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.request", "body": data, "more_body": more}


async def taken(parts: AsyncIterator[tuple[bytes, bool]]) -> list[tuple[int, bool]]:
    return [(len(piece), is_last) async for piece, is_last in parts]


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([b""], [(0, True)]),
        ([b"abc", b"d"], [(4, True)]),
        ([b"x" * PIECE_BYTES], [(PIECE_BYTES, True)]),
        ([b"x" * PIECE_BYTES, b"y"], [(PIECE_BYTES, False), (1, True)]),
        ([b"x" * (2 * PIECE_BYTES + 5)], [(PIECE_BYTES, False), (PIECE_BYTES, False), (5, True)]),
    ],
)
async def test_whole_pieces_and_one_last(chunks: list[bytes], expected: list[tuple[int, bool]]) -> None:
    messages = [body(chunk, more=True) for chunk in chunks] + [body(b"")]
    assert await taken(pieces(request(*messages), 1 << 30)) == expected


@pytest.mark.parametrize("length", [None, 11])
async def test_too_large_with_or_without_a_length(length: int | None) -> None:
    parts = pieces(request(body(b"x" * 6, more=True), body(b"x" * 5), length=length), 10)
    with pytest.raises(Refusal) as refused:
        await taken(parts)
    assert (refused.value.status, refused.value.param) == (413, "body")


async def test_a_client_that_falls_silent() -> None:
    with pytest.raises(Refusal) as refused:
        await taken(pieces(request(body(b"x", more=True)), 100, silence_s=0.01))
    assert refused.value.status == 408


async def test_a_client_that_leaves() -> None:
    with pytest.raises(Refusal) as refused:
        await taken(pieces(request(body(b"x", more=True), {"type": "http.disconnect"}), 100))
    assert refused.value.code == "disconnected"
