"""The ASGI application: routes, probes, errors in one shape, and a gateway for as long as it serves.

Owns what concerns every request. It must not know what a command is.
"""

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from gateway.compat.mounting import Doors
from gateway.errors import Refusal, error_body
from gateway.gateway import Gateway
from gateway.heartbeats import Heartbeats
from gateway.openapi import add_schemas
from gateway.routes_events import event_routes
from gateway.routes_execs import exec_routes
from gateway.routes_files import file_routes
from gateway.routes_hosts import host_routes
from gateway.routes_leases import lease_routes
from gateway.routes_probes import probe_routes
from gateway.routes_pty import pty_routes
from gateway.routes_sessions import session_routes
from gateway.routing import json_response, refusal_response
from gateway.terminals import Terminals

OpenGateway = Callable[[], AbstractAsyncContextManager[Gateway]]


def make_app(open_gateway: OpenGateway) -> FastAPI:
    doors = Doors()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_gateway() as gateway:
            limits = gateway.limits
            app.state.gateway = gateway
            app.state.heartbeats = Heartbeats(gateway.execs)
            app.state.terminals = Terminals(
                gateway.submission,
                timeout_s=limits.max_timeout_s,
                max_output_bytes=limits.max_output_bytes,
            )
            try:
                yield
            finally:
                await doors.close()
                app.state.heartbeats.close()

    app = FastAPI(
        title="MARS tool-execution gateway",
        description="Runs commands for agents, on this machine and others, when there is room for them.",
        version="1",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.include_router(_v1())
    app.include_router(probe_routes())
    app.include_router(doors.routes())
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(RequestValidationError, _bad_parameter)
    app.add_exception_handler(HTTPException, _no_route)
    add_schemas(app)
    return app


def _v1() -> APIRouter:
    api = APIRouter(prefix="/v1")
    for routes in (
        session_routes,
        exec_routes,
        event_routes,
        file_routes,
        lease_routes,
        host_routes,
        pty_routes,
    ):
        api.include_router(routes())
    return api


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    gateway: Gateway = request.app.state.gateway
    gateway.metrics.refused(error.code)
    return refusal_response(error)


async def _bad_parameter(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    param = str(first["loc"][-1])
    return json_response(error_body(400, "invalid_value", f"{param}: {first['msg']}", param), 400)


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    body = error_body(error.status_code, "no_such_route", message)
    return json_response(body, error.status_code, dict(error.headers or {}))
