"""Stands between the proxy and the model server: keeps what the server is asked, and fails when told to.

It changes no byte of what it passes on. It knows requests, not sessions, agents or frameworks.
"""

import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import aiohttp
import msgspec
from aiohttp import web

GENERATING = frozenset({"/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/completions"})
HOP_HEADERS = frozenset({"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "host"})
SILENCE_S = 120.0
"""Longer than any answer here pauses on a busy machine."""


class Fault(Enum):
    REFUSED = "answers 503 without asking the server"
    BROKEN = "asks the server and cuts the connection in the middle of the answer"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request that was to generate something."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    fault: Fault | None


@dataclass
class Relay:
    target_url: str
    fail_every: int | None = None
    """Every n-th generating request meets a fault, each of the two kinds in turn. None: none does."""
    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    _faults: Iterator[Fault] = field(default_factory=lambda: itertools.cycle(Fault))

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        fault = self._note(request, body) if request.path in GENERATING else None
        if fault is Fault.REFUSED:
            return web.json_response({"error": {"message": "on purpose", "type": "server_error"}}, status=503)
        session: aiohttp.ClientSession = request.app[SESSION]
        async with session.request(
            request.method,
            self.target_url + request.path_qs,
            data=body or None,
            headers=_end_to_end(request.headers),
        ) as answer:
            return await self._pass_back(request, answer, is_cut=fault is Fault.BROKEN)

    def _note(self, request: web.Request, body: bytes) -> Fault | None:
        number = len(self.asked) + 1
        fault = next(self._faults) if self.fail_every and number % self.fail_every == 0 else None
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.asked.append(Asked(request.path, headers, msgspec.json.decode(body), fault))
        return fault

    async def _pass_back(
        self, request: web.Request, answer: aiohttp.ClientResponse, *, is_cut: bool
    ) -> web.StreamResponse:
        back = web.StreamResponse(status=answer.status, headers=_end_to_end(answer.headers))
        await back.prepare(request)
        async for chunk in answer.content.iter_any():
            if is_cut:
                assert request.transport is not None
                await back.write(chunk[: len(chunk) // 2])
                request.transport.abort()
                return back
            await back.write(chunk)
        await back.write_eof()
        return back


SESSION = web.AppKey("session", aiohttp.ClientSession)


@contextlib.asynccontextmanager
async def relaying(target_url: str, fail_every: int | None = None) -> AsyncIterator[Relay]:
    relay = Relay(target_url, fail_every)
    app = web.Application(client_max_size=1 << 28)
    app.router.add_route("*", "/{tail:.*}", relay.handle)
    timeout = aiohttp.ClientTimeout(total=None, sock_read=SILENCE_S)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as app[
        SESSION
    ]:
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            [(host, port)] = runner.addresses
            relay.url = f"http://{host}:{port}"
            yield relay
        finally:
            await runner.cleanup()


def _end_to_end(headers: Any) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers.items() if name.lower() not in HOP_HEADERS]
