"""What all routes share: which gateway is asked, by whom, for what, and how an answer is written.

Owns parameters of more than one route. It must not know any one route.
"""

from typing import Annotated

import msgspec
from fastapi import Depends, Header, Path, Query, Request, Response
from starlette.requests import HTTPConnection

from gateway.errors import Refusal
from gateway.gateway import Gateway
from gateway.heartbeats import Heartbeats
from gateway.origins import is_own_origin
from gateway.protocol import MAX_WAIT_S
from gateway.terminals import Terminals

MAX_PATH_CHARS = 4096
"""PATH_MAX of Linux."""


def gateway_of(connection: HTTPConnection) -> Gateway:
    gateway: Gateway = connection.app.state.gateway
    return gateway


def terminals_of(connection: HTTPConnection) -> Terminals:
    terminals: Terminals = connection.app.state.terminals
    return terminals


def authenticated(connection: HTTPConnection, authorization: str | None) -> str:
    """The tenant. Also of WebSockets, which may bring their token elsewhere."""
    host = connection.headers.get("host")
    if not is_own_origin(connection.headers.get("origin"), host):
        message = "Origin: pages of other sites may not use this gateway"
        raise Refusal(403, "origin_not_allowed", message, param="Origin")
    return gateway_of(connection).tenants.authenticate(authorization, host)


# Coroutines all: what is not one would be called in a thread, at the price of a switch for each request.
async def _gateway(request: Request) -> Gateway:
    return gateway_of(request)


async def _heartbeats(request: Request) -> Heartbeats:
    heartbeats: Heartbeats = request.app.state.heartbeats
    return heartbeats


async def _tenant(request: Request) -> str:
    return authenticated(request, request.headers.get("authorization"))


ThisGateway = Annotated[Gateway, Depends(_gateway)]
TheHeartbeats = Annotated[Heartbeats, Depends(_heartbeats)]
Tenant = Annotated[str, Depends(_tenant)]
SessionId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$", examples=["fix-1"])]
ExecId = Annotated[str, Path(max_length=64, examples=["ex-1352d06e879e3c5538b318de"])]
WorkspacePath = Annotated[
    str,
    Query(
        min_length=1,
        max_length=MAX_PATH_CHARS,
        description="Inside the workspace; relative to its root. Links are followed if they stay inside.",
        examples=["src/main.py"],
    ),
]
Wait = Annotated[float, Query(ge=0, le=MAX_WAIT_S, description="Seconds to wait (long poll).")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        description="The same key again attaches to the command that it started, running or finished.",
        examples=["call_8f2e"],
    ),
]


def json_response(body: msgspec.Struct, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status, headers, media_type="application/json")


def flag(value: bool) -> str:
    """As headers say it."""
    return "true" if value else "false"


def refusal_response(refusal: Refusal) -> Response:
    headers = {}
    if refusal.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, round(refusal.retry_after_s)))
    if refusal.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if refusal.status in (408, 413):
        headers["Connection"] = "close"  # What is left of the body is not read.
    return json_response(refusal.body(), refusal.status, headers)
