"""HTTP: MCP at ``/mcp/{sid}``: who is calling, for which session, and whether there is an SDK to answer.

Owns the door, which opens with the first request: the SDK takes most of a second to import, and most gateways
need none. It must not know tools.
"""

import asyncio
import importlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.compat.calls import check_session_id
from gateway.errors import Refusal
from gateway.gateway import Gateway
from gateway.routing import authenticated, gateway_of, refusal_response
from gateway.tasks import Tasks

_METHODS = ["GET", "POST", "DELETE"]
SCOPE_CALLER = "mars.caller"
"""In the ASGI scope: tenant and session that a request is for."""

OpenMcp = Callable[[Gateway], AbstractAsyncContextManager[ASGIApp]]


def load_mcp() -> OpenMcp:
    """Raises ModuleNotFoundError."""
    module: Any = importlib.import_module("gateway.compat.mcp_server")
    open_mcp: OpenMcp = module.open_mcp
    return open_mcp


class McpDoor:
    """An ASGI application, open for as long as the gateway is."""

    def __init__(self, load: Callable[[], OpenMcp] = load_mcp) -> None:
        self._load = load
        self._opening = asyncio.Lock()
        self._app: ASGIApp | None = None
        self._closing = asyncio.Event()
        self._tasks = Tasks()

    def routes(self) -> APIRouter:
        api = APIRouter()
        api.routes.append(Route("/mcp/{sid}", self, methods=_METHODS, include_in_schema=False))
        return api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            scope[SCOPE_CALLER] = self._caller(request)
            app = await self._opened(gateway_of(request))
        except Refusal as refusal:
            gateway_of(request).metrics.refused(refusal.code)
            await refusal_response(refusal)(scope, receive, send)
            return
        await app(scope, receive, send)

    async def close(self) -> None:
        """What is waited for is answered first: the gateway has been told to drain."""
        self._closing.set()
        await self._tasks.close()

    def _caller(self, request: Request) -> tuple[str, str]:
        tenant = authenticated(request, request.headers.get("authorization"))
        session_id = request.path_params["sid"]
        check_session_id(session_id)
        return tenant, session_id

    async def _opened(self, gateway: Gateway) -> ASGIApp:
        async with self._opening:
            if self._app is None:
                open_mcp = await self._loaded()
                opened: asyncio.Future[ASGIApp] = asyncio.get_running_loop().create_future()
                self._tasks.spawn("mcp", self._serve(open_mcp(gateway), opened))
                self._app = await asyncio.shield(opened)
            return self._app

    async def _loaded(self) -> OpenMcp:
        try:
            return await asyncio.to_thread(self._load)
        except ModuleNotFoundError as error:
            message = f"MCP needs a package that is not here ({error.name}): install marsproxy[mcp], restart"
            raise Refusal(501, "mcp_not_installed", message) from error

    async def _serve(
        self, opening: AbstractAsyncContextManager[ASGIApp], opened: asyncio.Future[ASGIApp]
    ) -> None:
        """One task from opening to closing, as the SDK's task groups want it."""
        try:
            async with opening as app:
                opened.set_result(app)
                await self._closing.wait()
        except Exception as error:
            if opened.done():
                raise
            opened.set_exception(error)
