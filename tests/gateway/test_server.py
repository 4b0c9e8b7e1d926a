"""How the server ends."""
# ruff: noqa: ASYNC110 - what is waited for has no event of its own

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from gateway.server import _Server
from gateway.streaming import StreamedResponse


class StalledReading:
    """An application whose answer nobody reads to its end."""

    def __init__(self) -> None:
        self.was_closed = False
        self.app = FastAPI()
        self.app.add_api_route("/", self.answer)

    async def answer(self) -> StreamedResponse:
        return StreamedResponse(self.pieces(), 200, {}, "text/plain")

    async def pieces(self) -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(1 << 20)
        finally:
            self.was_closed = True


@pytest.mark.slow
async def test_a_reader_that_stalls_does_not_hold_it(caplog: pytest.LogCaptureFixture) -> None:
    stalled = StalledReading()
    caplog.set_level(logging.CRITICAL, "uvicorn.error")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        server = _Server(stalled.app, url, 1)
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(server.serve([listening]))
            while not server.started:
                await asyncio.sleep(0.01)
            async with httpx.AsyncClient() as http, http.stream("GET", url) as answer:
                assert answer.status_code == 200
                server.drain()
                with contextlib.suppress(httpx.HTTPError):
                    await asyncio.wait_for(serving, 30)
    assert stalled.was_closed
