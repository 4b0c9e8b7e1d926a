"""The proxy running inside the test's own event loop, and what must be left of a request: nothing."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest

from loadgen.engine.config import EngineConfig
from loadgen.engine.server import EngineServer
from marsproxy.config import Config, Listen
from marsproxy.server import Proxy, Server

PROMPT = "a-prompt-that-no-log-may-show"
API_KEY = "a-key-that-no-log-may-show"
KEY_HEADER = {"authorization": f"Bearer {API_KEY}"}
HANG_S = 10.0
"""Nothing here takes that long; a hang fails instead of waiting for the runner's limit."""


@dataclass(frozen=True)
class RunningProxy:
    url: str
    server: Server

    @property
    def proxy(self) -> Proxy:
        return self.server.proxy

    def leftovers(self) -> dict[str, int]:
        """Whatever a request takes and has to give back, by name; only what is not zero."""
        proxy, policy = self.proxy, self.proxy.dispatcher.policy
        found = {
            "turns": proxy.dispatcher.open_turns,
            "policy turns": policy.open_turns,
            "held turns": len(policy.held),
            # Loop lag; the tenants file where there is one.
            "tasks": len(proxy.tasks) - 1 - (proxy.tenants is not None),
            "answers under way": sum(backend.upstream.open_answers for backend in proxy.backends),
            "server tasks": len(self.server.server_state.tasks),
        }
        return {name: count for name, count in found.items() if count}

    @property
    def counted_sessions(self) -> int:
        """Charged to a budget: rightly so in a tool gap, which every answer but a final one begins."""
        backends = self.proxy.dispatcher.policy.backends.values()
        return sum(len(backend.counted) for backend in backends)

    async def until_nothing_is_left(self) -> None:
        deadline_s = asyncio.get_running_loop().time() + HANG_S
        while left := self.leftovers():  # there is no event for "all gone"
            assert asyncio.get_running_loop().time() < deadline_s, left
            await asyncio.sleep(0.005)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(HANG_S):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.002)


@asynccontextmanager
async def running_proxy(*backend_urls: str, **sections: Any) -> AsyncIterator[RunningProxy]:
    """``sections`` are those of the configuration, e.g. ``hold=Hold(sse_comment_interval_s=0.05)``."""
    sections["listen"] = replace(sections.get("listen", Listen()), port=0)
    server = Server(Config(backends=backend_urls, **sections), list(backend_urls))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server.serve())
        running = RunningProxy(server.url, server)
        try:
            await running.until(lambda: server.started)
            await running.until(lambda: _has_telemetry(server.proxy))
            yield running
        finally:
            server.should_exit = True


def _has_telemetry(proxy: Proxy) -> bool:
    states = proxy.dispatcher.policy.backends.values()
    return all(state.observed_at_s is not None or not state.is_reachable for state in states)


@asynccontextmanager
async def running_engine(**settings: Any) -> AsyncIterator[tuple[str, EngineServer]]:
    """The embedded engine, in the same event loop."""
    server = EngineServer(EngineConfig(**{"port": 0, "speed": 50.0, "kv_tokens": 64_000} | settings))
    stop, url = asyncio.Event(), asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server.serve(stop, url.set_result))
        try:
            yield await url, server
        finally:
            stop.set()


@asynccontextmanager
async def client_of(url: str, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    options = {"timeout": HANG_S, "limits": limits, "headers": KEY_HEADER} | options
    async with httpx.AsyncClient(base_url=url, trust_env=False, **options) as client:
        yield client


@dataclass(frozen=True)
class Seen:
    """An answer as the client got it."""

    status: int
    headers: httpx.Headers
    body: bytes
    is_whole: bool
    """False: the connection was cut before the end."""

    @property
    def code(self) -> str:
        """Of an error in OpenAI's shape."""
        code = httpx.Response(self.status, content=self.body).json()["error"]["code"]
        assert isinstance(code, str)
        return code


async def ask(client: httpx.AsyncClient, method: str, path: str, **request: Any) -> Seen:
    """Send one request and take the answer as it comes, encoded as it is."""
    body = b""
    async with client.stream(method, path, **request) as answer:
        try:
            async for chunk in answer.aiter_raw():
                body += chunk
            is_whole = True
        except (httpx.RemoteProtocolError, httpx.ReadError):
            is_whole = False
    return Seen(answer.status_code, answer.headers, body, is_whole)


def chat(text: str = PROMPT, **fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **fields}


async def ask_chat(client: httpx.AsyncClient, **fields: Any) -> Seen:
    return await ask(client, "POST", "/v1/chat/completions", json=chat(**fields))


def assert_logs_are_clean(caplog: pytest.LogCaptureFixture) -> None:
    """No traceback, nothing that calls itself an error, nothing that a client said."""
    records = caplog.get_records("call")
    assert [r.getMessage() for r in records if r.exc_info or r.levelno >= logging.ERROR] == []
    text = "\n".join(record.getMessage() for record in records)
    assert PROMPT not in text
    assert API_KEY not in text
