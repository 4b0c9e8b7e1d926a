"""A gateway with a fake host behind its ASGI application, in this process or on a real socket."""
# ruff: noqa: ASYNC110 - what is waited for has no event of its own

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from gateway.admission import AdmissionSettings, HostQueue
from gateway.app import make_app
from gateway.gateway import Gateway, open_gateway
from gateway.hosts import HostPlan
from gateway.limits import Limits
from gateway.tenants import Tenants
from tests.gateway.fake_host import FakeExec
from tests.gateway.file_host import FileHost


@dataclass
class Rest:
    app: FastAPI
    http: httpx.AsyncClient
    host: FileHost

    @property
    def gateway(self) -> Gateway:
        gateway: Gateway = self.app.state.gateway
        return gateway

    async def start(self, session: str = "s", **fields: Any) -> str:
        """The id of a command that runs, or waits for its turn."""
        body = {"argv": ["make"], **fields}
        response = await self.http.post(f"/v1/sessions/{session}/execs", json=body)
        assert response.status_code == 202, response.text
        exec_id: str = response.json()["id"]
        return exec_id

    async def running(self, session: str = "s", **fields: Any) -> str:
        exec_id = await self.start(session, **fields)
        await until(lambda: exec_id in self.host.execs)
        return exec_id

    async def shell(self) -> FakeExec:
        """The only command that there is, once it runs."""
        await until(lambda: len(self.host.running()) == 1)
        return self.host.execs[self.host.running()[0]]


async def until(is_so: Any) -> None:
    while not is_so():
        await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def open_rest(
    *,
    slots: float = 2,
    queue_limit: int = 16,
    limits: Limits | None = None,
    tokens: Mapping[str, str] | None = None,
    token: str | None = None,
    sessions: tuple[str, ...] = ("s",),
    is_reached: bool = True,
) -> AsyncIterator[Rest]:
    """Without ``is_reached`` the host was not asked yet what it has, and there are no sessions."""
    host = FileHost()
    if not is_reached:
        host.lose()
        sessions = ()
    plan = HostPlan(host, HostQueue(AdmissionSettings(slots=slots, queue_limit=queue_limit)))
    tenants = Tenants(tokens or {})
    app = make_app(
        lambda: open_gateway(limits or Limits(), tenants, hosts=[plan], start_wait_s=1 if is_reached else 0)
    )
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    client = httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://localhost", headers=headers
    )
    async with app.router.lifespan_context(app), client as http:
        for session in sessions:
            assert (await http.put(f"/v1/sessions/{session}")).status_code == 201
        yield Rest(app, http, host)


@contextlib.asynccontextmanager
async def on_a_socket(app: FastAPI) -> AsyncIterator[str]:
    """``host:port`` of an application whose lifespan somebody else keeps."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = _Server(uvicorn.Config(app, lifespan="off", log_level="warning"))
        async with asyncio.TaskGroup() as group:
            group.create_task(server.serve([listening]))
            await until(lambda: server.started)
            try:
                yield f"127.0.0.1:{listening.getsockname()[1]}"
            finally:
                server.should_exit = True


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield
