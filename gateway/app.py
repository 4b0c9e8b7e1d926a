"""The ASGI application: routes, probes, errors in one shape, and a gateway for as long as it serves.

Owns what concerns every request. It must not know what a command is.
"""

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from gateway.errors import Refusal, error_body
from gateway.gateway import Gateway
from gateway.openapi import add_schemas
from gateway.protocol import ErrorBody
from gateway.routes import ThisGateway, routes

OpenGateway = Callable[[], AbstractAsyncContextManager[Gateway]]


def make_app(open_gateway: OpenGateway) -> FastAPI:
    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_gateway() as gateway:
            app.state.gateway = gateway
            yield

    app = FastAPI(
        title="MARS tool-execution gateway",
        description="Runs commands for agents behind a queue for CPU slots.",
        version="1",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.include_router(routes())
    app.add_api_route("/healthz", healthz, methods=["GET"], tags=["probes"], response_class=Response)
    app.add_api_route("/readyz", readyz, methods=["GET"], tags=["probes"], response_class=Response)
    app.add_api_route("/metrics", metrics, methods=["GET"], tags=["probes"], response_class=Response)
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(RequestValidationError, _bad_parameter)
    app.add_exception_handler(HTTPException, _no_route)
    add_schemas(app)
    return app


async def healthz() -> Response:
    """The process lives."""
    return Response("ok\n", media_type="text/plain")


async def readyz(gateway: ThisGateway) -> Response:
    """It takes commands."""
    if gateway.host.is_draining:
        return Response("draining\n", 503, media_type="text/plain")
    return Response("ready\n", media_type="text/plain")


async def metrics(gateway: ThisGateway) -> Response:
    return Response(gateway.metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    gateway: Gateway = request.app.state.gateway
    gateway.metrics.refused(error.code)
    headers = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if error.status in (408, 413):
        headers["Connection"] = "close"  # What is left of the body is not read.
    return _error(error.status, error.body(), headers)


async def _bad_parameter(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    param = str(first["loc"][-1])
    return _error(400, error_body(400, "invalid_value", f"{param}: {first['msg']}", param))


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    headers = dict(error.headers or {})
    return _error(error.status_code, error_body(error.status_code, "no_such_route", message), headers)


def _error(status: int, body: ErrorBody, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status, headers, media_type="application/json")
