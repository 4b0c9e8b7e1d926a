"""Streamed answers: closed whoever ends first."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from gateway.streaming import StreamedResponse, begun


class Body:
    def __init__(self, pieces: int, error: Exception | None = None) -> None:
        self.made = 0
        self.is_closed = False
        self._pieces = pieces
        self._error = error

    async def run(self) -> AsyncGenerator[bytes, None]:
        try:
            while self.made < self._pieces:
                self.made += 1
                yield b"x"
            if self._error is not None:
                raise self._error
        finally:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            self.is_closed = True


async def never() -> Any:
    await asyncio.Event().wait()


async def test_to_its_end() -> None:
    body, sent = Body(3), []

    async def send(message: Any) -> None:
        sent.append(message.get("body"))

    await StreamedResponse(await begun(body.run()), 200, {}, "x/y")({}, never, send)
    assert (sent, body.is_closed) == ([None, b"x", b"x", b"x", b""], True)


async def test_the_client_leaves_while_it_is_sent() -> None:
    body, left = Body(1000), asyncio.Event()

    async def receive() -> Any:
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if body.made == 5:
            left.set()
            await never()

    await StreamedResponse(body.run(), 200, {}, "x/y")({}, receive, send)
    assert (body.made, body.is_closed) == (5, True)


async def test_the_request_is_cancelled() -> None:
    body = Body(1000)
    response = StreamedResponse(body.run(), 200, {}, "x/y")
    task = asyncio.get_running_loop().create_task(response({}, never, lambda _: never()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await anext(body.run(), None)) is not None
    with pytest.raises(StopAsyncIteration):
        await anext(response.body_iterator)


async def test_what_fails_at_once_can_still_be_answered() -> None:
    body = Body(0, ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        await begun(body.run())
    assert body.is_closed


async def test_what_fails_later_breaks_the_answer() -> None:
    body, sent = Body(1, ValueError("no")), []

    async def send(message: Any) -> None:
        sent.append(message)

    with pytest.raises(ExceptionGroup):
        await StreamedResponse(await begun(body.run()), 200, {}, "x/y")({}, never, send)
    assert all(message.get("more_body", True) for message in sent)


async def test_nothing_at_all() -> None:
    assert [piece async for piece in await begun(Body(0).run())] == [b""]
