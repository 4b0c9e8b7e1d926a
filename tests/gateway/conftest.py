"""Gateways in this process, spoken to through their ASGI application."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from gateway.app import make_app
from gateway.fleet import open_hosts
from gateway.gateway import Gateway, open_gateway
from gateway.hosts_file import local_host
from gateway.limits import Limits
from gateway.spool_directory import spool_directory
from gateway.tenants import Tenants
from tests.gateway.redis_server import RedisServer


@dataclass
class Rig:
    http: httpx.AsyncClient
    gateway: Gateway

    async def session(self, name: str = "s", **settings: Any) -> dict[str, Any]:
        response = await self.http.put(f"/v1/sessions/{name}", json=settings)
        assert response.status_code in (200, 201), response.text
        return response.json()

    async def run(
        self, command: str | None, *, session: str = "s", wait: float = 20, **fields: Any
    ) -> dict[str, Any]:
        response = await self.post(command, session=session, wait=wait, **fields)
        assert response.status_code in (200, 202), response.text
        return response.json()

    async def post(
        self,
        command: str | None,
        *,
        session: str = "s",
        wait: float = 0,
        key: str | None = None,
        **fields: Any,
    ) -> httpx.Response:
        body = fields if command is None else {"command": command, **fields}
        headers = {} if key is None else {"Idempotency-Key": key}
        return await self.http.post(
            f"/v1/sessions/{session}/execs", params={"wait": wait}, json=body, headers=headers
        )

    async def ended(self, exec_id: str) -> dict[str, Any]:
        response = await self.http.get(f"/v1/execs/{exec_id}", params={"wait": 20})
        return response.json()


OpenRig = Callable[..., contextlib.AbstractAsyncContextManager[Rig]]


@contextlib.asynccontextmanager
async def _open_rig(
    *, tokens: dict[str, str] | None = None, token: str | None = None, **options: Any
) -> AsyncIterator[Rig]:
    limits = options.pop("limits", Limits(slots=2, short_places=0))
    spool_dir = options.pop("spool_dir", None)
    isolation = options.pop("isolation", None)
    with spool_directory(spool_dir) as directory:

        @contextlib.asynccontextmanager
        async def gateway() -> AsyncIterator[Gateway]:
            async with (
                open_hosts(
                    [local_host(isolation)],
                    limits,
                    directory=directory,
                    is_private=spool_dir is None,
                    environ={},
                    retires=True,
                ) as hosts,
                open_gateway(
                    limits, Tenants(tokens or {}), hosts=hosts, **{"start_wait_s": 60, **options}
                ) as opened,
            ):
                yield opened

        app = make_app(gateway)
        async with app.router.lifespan_context(app), _client(app, token) as http:
            yield Rig(http, app.state.gateway)
        assert _marked(str(directory)) == [], "each command's HOME is in here"


def _client(app: FastAPI, token: str | None) -> httpx.AsyncClient:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost", headers=headers)


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def open_rig() -> OpenRig:
    return _open_rig


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with _open_rig() as rig:
        await rig.session()
        yield rig


def _marked(text: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and text.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found


@pytest.fixture
def processes_of() -> Callable[[str], list[int]]:
    """Pids of the processes that have a text, such as an exec's id or a workspace, in their environment."""
    return _marked


@pytest.fixture
def open_fds() -> Callable[[], int]:
    return lambda: sum(1 for _ in Path("/proc/self/fd").iterdir())
