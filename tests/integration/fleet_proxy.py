"""A proxy on a free port, in the loop of the test."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from marsproxy.config import Backend, Config, EventLog, Listen
from marsproxy.server import Server

KV_TOKENS = 100_000_000
"""Room for everybody: who is held is another test's business."""


@asynccontextmanager
async def proxy_in_front_of(backend_url: str, event_log: Path | None = None) -> AsyncIterator[Server]:
    config = Config(
        backends=(backend_url,),
        listen=Listen(port=0),
        backend=Backend(kv_tokens=KV_TOKENS),
        event_log=EventLog(dir=event_log),
    )
    server = Server(config, [backend_url])
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 (uvicorn has no event for it)
            await asyncio.sleep(0.005)
        try:
            yield server
        finally:
            server.should_exit = True
