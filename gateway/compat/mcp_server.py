"""The tools behind MCP's streamable HTTP, with the official SDK.

Owns the binding alone: what the SDK hands over becomes a call, its answer the SDK's types. Imported only
where the SDK is installed.
"""

import contextlib
from collections.abc import AsyncIterator

import mcp_types as types
import msgspec
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.requests import Request
from starlette.types import ASGIApp

from gateway.compat.mcp_calls import Answer, Caller, McpCalls, refused
from gateway.compat.mcp_door import SCOPE_CALLER
from gateway.compat.mcp_tools import TOOLS, description_of, name_of, read_call, schema_of
from gateway.errors import Refusal, invalid
from gateway.gateway import Gateway

_VERSION = "1"
_INSTRUCTIONS = (
    "Commands and files of one workspace, a directory of its own on a host. Commands wait while the host is"
    " busy, and are answered with an exec_id when they take long."
)


@contextlib.asynccontextmanager
async def open_mcp(gateway: Gateway) -> AsyncIterator[ASGIApp]:
    """Sessions of the transport are bounded and expire, as the SDK has it by default."""
    server = _server(gateway)
    manager = StreamableHTTPSessionManager(
        server, json_response=True, max_request_body_size=gateway.limits.max_body_bytes
    )
    async with manager.run():
        yield manager.handle_request


def _server(gateway: Gateway) -> "Server[dict[str, object]]":
    async def list_tools(
        context: ServerRequestContext[dict[str, object]], params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        return types.ListToolsResult(tools=_tools())

    async def call_tool(
        context: ServerRequestContext[dict[str, object]], params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        try:
            call = read_call(params.name, params.arguments or {})
            return _result(await McpCalls(gateway, _caller(context)).answer(call))
        except msgspec.ValidationError as error:
            return _result(refused(invalid("arguments", str(error))))
        except Refusal as refusal:
            gateway.metrics.refused(refusal.code)
            return _result(refused(refusal))

    return Server(
        "mars-gateway",
        version=_VERSION,
        instructions=_INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


def _tools() -> list[types.Tool]:
    return [
        types.Tool(name=name_of(tool), description=description_of(tool), input_schema=schema_of(tool))
        for tool in TOOLS
    ]


def _caller(context: ServerRequestContext[dict[str, object]]) -> Caller:
    request = context.request
    assert isinstance(request, Request)
    tenant, session_id = request.scope[SCOPE_CALLER]
    meta = context.params.get("_meta") if context.params else None
    return Caller(
        tenant,
        session_id,
        request.headers.get("mcp-session-id"),
        context.request_id,
        meta if isinstance(meta, dict) else {},
    )


def _result(answer: Answer) -> types.CallToolResult:
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=answer.text)],
        structured_content=answer.structured,
        is_error=answer.is_error,
    )
