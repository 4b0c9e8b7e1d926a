"""WebSocket: the terminal of a session.

Owns who may open it and the parameters; what crosses the socket is ``terminal_socket``'s.
"""

import contextlib

import msgspec
from fastapi import APIRouter, Request, Response, WebSocket, WebSocketDisconnect

from gateway.errors import Refusal, invalid
from gateway.openapi import refusals
from gateway.routing import SessionId, Tenant, authenticated, gateway_of, refusal_response, terminals_of
from gateway.session_record import Session
from gateway.stream_protocol import CloseCode, TerminalQuery
from gateway.terminal_socket import TerminalSocket
from gateway.terminals import Place, Terminals

_PATH = "/sessions/{sid}/pty"
_TOKEN_PREFIX = "bearer."
_PROTOCOL = "mars.pty"


def pty_routes() -> APIRouter:
    api = APIRouter(tags=["terminals"])
    api.add_api_websocket_route(_PATH, pty)
    api.add_api_route(
        _PATH,
        no_websocket,
        methods=["GET"],
        status_code=426,
        response_class=Response,
        responses=refusals(400, 426),
    )
    return api


async def no_websocket(request: Request, tenant: Tenant, sid: SessionId) -> Response:
    """The session's terminal, over a WebSocket (RFC 6455).

    Query: `since` (offset to replay from), `takeover=1`, `cols`, `rows`, `shell` (bash or sh). Binary
    frames are bytes of the terminal; text frames are JSON: `{"resize": {"cols", "rows"}}` and `{"signal"}`
    to it, `queued`, `attached`, `output_lost`, `exit`, `error` from it. Closed with 4009 when somebody else
    holds the terminal, 4001 when somebody took it over. A token may also be in `Sec-WebSocket-Protocol:
    mars.pty, bearer.<token>`.
    """
    raise Refusal(426, "upgrade_required", "this is a WebSocket: connect with Upgrade: websocket")


async def pty(websocket: WebSocket, sid: str) -> None:
    try:
        gateway = gateway_of(websocket)
        tenant = authenticated(websocket, _authorization(websocket))
        query = _query(websocket)
        session = gateway.sessions.use(tenant, sid)
    except Refusal as refusal:
        await websocket.send_denial_response(refusal_response(refusal))
        return
    await websocket.accept(_subprotocol(websocket))
    socket = TerminalSocket(websocket, gateway.execs)
    with contextlib.suppress(WebSocketDisconnect):
        await _serve(socket, terminals_of(websocket), session, query)


async def _serve(
    socket: TerminalSocket, terminals: Terminals, session: Session, query: TerminalQuery
) -> None:
    place: Place = (session.tenant, session.id, query.shell)
    hold = await terminals.hold(place, takes_over=bool(query.takeover))
    if hold is None:
        await socket.close(CloseCode.HELD, "somebody holds this terminal; takeover=1 takes it")
        return
    try:
        shell = await terminals.shell(session, query.shell)
        await socket.serve(shell, hold, query)
    except Refusal as refusal:
        await socket.refuse(refusal)
    finally:
        terminals.leave(place, hold)


def _query(websocket: WebSocket) -> TerminalQuery:
    try:
        return msgspec.convert(dict(websocket.query_params), TerminalQuery, strict=False)
    except msgspec.ValidationError as error:
        what, _, path = str(error).partition(" - at `$.")
        raise invalid(path.strip("`") or "query", what) from error


def _authorization(websocket: WebSocket) -> str | None:
    """Browsers cannot set headers on a WebSocket: there the token is one of the protocols that are
    offered."""
    for offered in _offered(websocket):
        if offered.startswith(_TOKEN_PREFIX):
            return f"Bearer {offered.removeprefix(_TOKEN_PREFIX)}"
    return websocket.headers.get("authorization")


def _subprotocol(websocket: WebSocket) -> str | None:
    """A browser hangs up unless one of those that it offered is taken; better not the one with the token."""
    offered = _offered(websocket)
    if _PROTOCOL in offered:
        return _PROTOCOL
    return next((each for each in offered if each.startswith(_TOKEN_PREFIX)), None)


def _offered(websocket: WebSocket) -> list[str]:
    offered: list[str] = websocket.scope.get("subprotocols", [])
    return offered
