"""Proxies in this process, the engine in a process of its own, and the two ways to one backend."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import pytest

from marsproxy.children import Child
from marsproxy.config import Config, Listen
from marsproxy.server import Server
from tests.integration.byte_backend import ByteBackend
from tests.integration.comparison import Paths
from tests.integration.tap import tapped

POLL_S = 0.005


class RunProxy(Protocol):
    def __call__(self, *backend_urls: str, **sections: Any) -> AbstractAsyncContextManager[Server]: ...


@asynccontextmanager
async def running_proxy(*backend_urls: str, **sections: Any) -> AsyncIterator[Server]:
    """A proxy on a free port, in this loop. ``sections`` are those of the configuration tree."""
    config = Config(**{"backends": backend_urls, "listen": Listen(port=0)} | sections)
    server = Server(config, list(backend_urls))
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110 (uvicorn has no event for it)
            await asyncio.sleep(POLL_S)
        try:
            yield server
        finally:
            server.should_exit = True


@pytest.fixture
def run_proxy() -> RunProxy:
    return running_proxy


@pytest.fixture
async def byte_backend() -> AsyncIterator[ByteBackend]:
    async with ByteBackend() as backend:
        yield backend


@pytest.fixture
async def paths(byte_backend: ByteBackend, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Paths]:
    """To the scripted backend: straight, and through a proxy that has nothing to complain about."""
    async with (
        running_proxy(byte_backend.url) as proxy,
        tapped(byte_backend.url) as direct,
        tapped(proxy.url) as proxied,
    ):
        yield Paths(byte_backend, direct, proxied, proxy)
    logged = caplog.get_records("call")
    assert [record.getMessage() for record in logged if record.levelno >= logging.ERROR] == []


@pytest.fixture
async def engine_url() -> AsyncIterator[str]:
    """The embedded engine, twenty times as fast as the hardware that it stands for."""
    engine = Child("loadgen", "engine", "--port", "0", "--scheduling-policy", "priority", "--speed", "20")
    url = await engine.start()
    try:
        yield url
    finally:
        await engine.stop()
