"""The door to MCP where its SDK is not installed, or does not open."""

import contextlib
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from gateway.compat.mcp_door import McpDoor, OpenMcp
from gateway.gateway import Gateway
from tests.gateway.rest_rig import open_rest


async def asked(door: McpDoor, gateway: Gateway) -> httpx.Response:
    app = FastAPI()
    app.include_router(door.routes())
    app.state.gateway = gateway
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as http:
        return await http.post("/mcp/s", json={})


def without_sdk() -> OpenMcp:
    raise ModuleNotFoundError("No module named 'mcp_types'", name="mcp_types")


async def test_without_the_sdk_the_gateway_says_what_to_install() -> None:
    async with open_rest() as rest:
        door = McpDoor(without_sdk)
        answer = await asked(door, rest.gateway)
        assert answer.status_code == 501
        error = answer.json()["error"]
        assert error["code"] == "mcp_not_installed"
        assert "marsproxy[mcp]" in error["message"]
        await door.close()


async def test_what_breaks_while_it_opens_is_raised_to_who_asks() -> None:
    @contextlib.asynccontextmanager
    async def breaks(gateway: Gateway) -> AsyncIterator[None]:
        raise RuntimeError("broken")
        yield

    async with open_rest() as rest:
        door = McpDoor(lambda: breaks)  # type: ignore[arg-type,return-value]
        with pytest.raises(RuntimeError, match="broken"):
            await asked(door, rest.gateway)
        await door.close()
