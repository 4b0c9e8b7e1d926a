"""All doors, as the application takes them in.

Owns their paths and how long they are open. It must not know what goes on behind one.
"""

from fastapi import APIRouter

from gateway.compat.codex_sessions import CodexSessions
from gateway.compat.codex_socket import codex_routes
from gateway.compat.mcp_door import McpDoor
from gateway.compat.swerex_routes import swerex_routes
from gateway.compat.swerex_shells import Runtimes


class Doors:
    """Of one application."""

    def __init__(self) -> None:
        self._mcp = McpDoor()
        self._runtimes = Runtimes()
        self._codex = CodexSessions()

    def routes(self) -> APIRouter:
        api = APIRouter()
        api.include_router(swerex_routes(self._runtimes))
        api.include_router(self._mcp.routes())
        api.include_router(codex_routes(self._codex))
        return api

    async def close(self) -> None:
        await self._mcp.close()
        await self._codex.close()
