"""WebSocket: Codex' exec-server at ``/compat/codex`` and ``/compat/codex/{sid}``.

Owns JSON-RPC over one connection: requests are answered as they are done, several at a time; what processes
do is told in between. It must not know what a method does.
"""

import asyncio
import contextlib
from typing import Any

import msgspec
from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from gateway.compat.calls import check_session_id
from gateway.compat.codex_calls import CodexCalls, decoded
from gateway.compat.codex_protocol import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    INVALID_REQUEST,
    PARSE_ERROR,
    Initialize,
    Initialized,
    Request,
    RpcError,
)
from gateway.compat.codex_sessions import CodexSessions
from gateway.compat.errors import NotRun
from gateway.errors import Refusal
from gateway.gateway import Gateway
from gateway.routing import authenticated, gateway_of, refusal_response
from gateway.tasks import Tasks

_PATH = "/compat/codex"
_MAX_AT_ONCE = 64
"""Requests of one connection; further ones are read when one of these is answered."""
_SLOW_CLIENT_S = 60.0
"""One that takes nothing for so long is gone."""


def codex_routes(sessions: CodexSessions) -> APIRouter:
    api = APIRouter()

    async def serve(websocket: WebSocket, sid: str | None = None) -> None:
        try:
            gateway = gateway_of(websocket)
            tenant = authenticated(websocket, _authorization(websocket))
            if sid is not None:
                check_session_id(sid)
        except Refusal as refusal:
            await websocket.send_denial_response(refusal_response(refusal))
            return
        await websocket.accept()
        await CodexSocket(websocket, gateway, sessions, tenant, sid).serve()

    api.add_api_websocket_route(_PATH, serve)
    api.add_api_websocket_route(f"{_PATH}/{{sid}}", serve)
    return api


class CodexSocket:
    """An accepted WebSocket."""

    def __init__(
        self, websocket: WebSocket, gateway: Gateway, sessions: CodexSessions, tenant: str, sid: str | None
    ) -> None:
        self._websocket = websocket
        self._gateway = gateway
        self._sessions = sessions
        self._tenant = tenant
        self._sid = sid
        self._calls: CodexCalls | None = None
        self._places = asyncio.Semaphore(_MAX_AT_ONCE)
        self._answers = Tasks()
        self._sending = asyncio.Lock()
        self._peer = self._tell

    async def serve(self) -> None:
        """Returns when the client has left. What it asked for and was not answered is given up."""
        try:
            with contextlib.suppress(WebSocketDisconnect):
                await self._read()
        finally:
            await self._answers.close()
            if self._calls is not None:
                self._sessions.detach(self._gateway, self._calls.codex, self._peer)

    async def _read(self) -> None:
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message["code"])
            request = await self._decoded(message.get("text") or message.get("bytes") or b"")
            if request is None or request.id is None:
                continue  # Of notifications there is only "initialized", which asks for nothing.
            if request.method == "initialize":
                await self._answer(request)  # Nothing else is done before.
            else:
                await self._places.acquire()
                task = self._answers.spawn("codex request", self._answer(request))
                task.add_done_callback(lambda _: self._places.release())

    async def _decoded(self, text: str | bytes) -> Request | None:
        try:
            return msgspec.json.decode(text, type=Request)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            await self._send({"id": -1, "error": {"code": PARSE_ERROR, "message": f"message: {error}"}})
            return None

    async def _answer(self, request: Request) -> None:
        try:
            result = await self._call(request)
            try:
                await self._send({"id": request.id, "result": result})
            finally:
                if request.method == "process/start" and self._calls is not None:
                    self._calls.begin(result["processId"])
        except WebSocketDisconnect:
            return
        except (RpcError, Refusal, NotRun) as error:
            await self._send({"id": request.id, "error": self._said(error)})

    async def _call(self, request: Request) -> Any:
        if request.method == "initialize":
            return await self._initialize(decoded(request.params, Initialize))
        if self._calls is None:
            raise RpcError(INVALID_REQUEST, f"{request.method}: initialize must be called first")
        return await self._calls.call(request.method, request.params)

    async def _initialize(self, params: Initialize) -> Initialized:
        if self._calls is not None:
            raise RpcError(INVALID_REQUEST, "initialize: this connection is initialized already")
        codex = await self._sessions.attach(
            self._gateway, self._tenant, self._sid, params.resume_session_id, self._peer
        )
        self._calls = CodexCalls(self._gateway, codex)
        return Initialized(codex.id, self._calls.environment())

    def _said(self, error: RpcError | Refusal | NotRun) -> dict[str, Any]:
        if isinstance(error, RpcError):
            return {"code": error.code, "message": error.message}
        if isinstance(error, NotRun):
            return {"code": INTERNAL_ERROR, "message": f"not run: {error}"}
        self._gateway.metrics.refused(error.code)
        code = INVALID_PARAMS if error.status in (400, 413) else INTERNAL_ERROR
        return {"code": code, "message": f"{error.code}: {error.message}"}

    async def _tell(self, method: str, params: dict[str, Any]) -> None:
        with contextlib.suppress(WebSocketDisconnect, TimeoutError):
            await self._send({"method": method, "params": params})

    async def _send(self, message: dict[str, Any]) -> None:
        """Raises WebSocketDisconnect."""
        text = msgspec.json.encode(message).decode()
        try:
            async with asyncio.timeout(_SLOW_CLIENT_S), self._sending:
                await self._websocket.send_text(text)
        except (RuntimeError, TimeoutError) as error:  # Starlette's for a socket that is closed.
            raise WebSocketDisconnect(1006) from error


def _authorization(websocket: WebSocket) -> str | None:
    """Codex can set no header on this connection: there the token is in the URL."""
    if (token := websocket.query_params.get("token")) is not None:
        return f"Bearer {token}"
    return websocket.headers.get("authorization")
