"""All doors, as the application takes them in.

Owns their paths and how long they are open. It must not know what goes on behind one.
"""

from fastapi import APIRouter

from gateway.compat.mcp_door import McpDoor
from gateway.compat.swerex_routes import swerex_routes
from gateway.compat.swerex_shells import Runtimes


class Doors:
    """Of one application."""

    def __init__(self) -> None:
        self._mcp = McpDoor()
        self._runtimes = Runtimes()

    def routes(self) -> APIRouter:
        api = APIRouter()
        api.include_router(swerex_routes(self._runtimes))
        api.include_router(self._mcp.routes())
        return api

    async def close(self) -> None:
        await self._mcp.close()
