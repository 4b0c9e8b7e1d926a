"""A really running engine on a free port, in the test's own event loop."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from loadgen.engine.config import EngineConfig
from loadgen.engine.server import EngineServer


@dataclass(frozen=True)
class Running:
    url: str
    server: EngineServer
    http: httpx.AsyncClient

    @property
    def pool(self) -> Any:
        return self.server.engine.scheduler.pool

    async def chat(self, text: str = "hello", **fields: Any) -> httpx.Response:
        body = {"messages": [{"role": "user", "content": text}], **fields}
        return await self.http.post("/v1/chat/completions", json=body)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a state of the engine; a hang fails by timeout."""
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - the engine's state has no event to wait for
                await asyncio.sleep(0.002)


RunEngine = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
def run_engine() -> RunEngine:
    @asynccontextmanager
    async def run(**settings: Any) -> AsyncIterator[Running]:
        server = EngineServer(EngineConfig(**{"port": 0, "speed": 50.0, "kv_tokens": 64_000} | settings))
        stop, url = asyncio.Event(), asyncio.get_running_loop().create_future()
        async with asyncio.TaskGroup() as group:
            group.create_task(server.serve(stop, url.set_result))
            try:
                async with httpx.AsyncClient(base_url=await url, timeout=20) as http:
                    yield Running(await url, server, http)
            finally:
                stop.set()

    return run
