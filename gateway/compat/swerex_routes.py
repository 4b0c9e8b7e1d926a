"""HTTP: the SWE-ReX remote API under ``/compat/swerex/{sid}``.

Owns paths, the key in ``X-API-Key`` and how failures are answered. The document at ``/openapi.json`` is about
our own API; this one is SWE-ReX'.
"""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from gateway.compat import swerex_faults as faults
from gateway.compat.errors import NotRun
from gateway.compat.swerex_files import read_file, upload, write_file
from gateway.compat.swerex_protocol import (
    Action,
    Alive,
    CloseSession,
    CreateSession,
    Denied,
    Execute,
    Failed,
    FileContent,
    Hello,
    Nothing,
    ReadFile,
    SessionClosed,
    WriteFile,
)
from gateway.compat.swerex_runtime import SwerexRuntime
from gateway.compat.swerex_shells import Runtimes
from gateway.decode import read_body
from gateway.errors import Refusal
from gateway.routing import SessionId, authenticated, gateway_of, json_response
from gateway.transfers import pieces

_MAX_KEY_CHARS = 200

T = TypeVar("T")


class _SwerexRoute(APIRoute):
    """Failures as SWE-ReX' client expects them."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except faults.SwerexFault as fault:
                return _failed(fault)
            except (Refusal, NotRun) as error:
                if isinstance(error, Refusal):
                    gateway_of(request).metrics.refused(error.code)
                    if error.status in (401, 403):
                        return json_response(Denied(error.message), error.status)
                return _failed(faults.fault_of(error))

        return answer


def swerex_routes(runtimes: Runtimes) -> APIRouter:
    api = APIRouter(prefix="/compat/swerex/{sid}", route_class=_SwerexRoute, include_in_schema=False)

    async def runtime(request: Request, sid: SessionId) -> SwerexRuntime:
        key = request.headers.get("x-api-key")
        authorization = request.headers.get("authorization") if key is None else f"Bearer {key}"
        tenant = authenticated(request, authorization)
        request_id = request.headers.get("x-request-id") or None
        if request_id is not None and len(request_id) > _MAX_KEY_CHARS:
            raise faults.bad_value(f"X-Request-ID: must be at most {_MAX_KEY_CHARS} characters long")
        return SwerexRuntime(gateway_of(request), runtimes, tenant, sid, request_id)

    def route(path: str, call: Callable[[SwerexRuntime, Request], Awaitable[msgspec.Struct]]) -> None:
        async def endpoint(request: Request, swerex: Annotated[SwerexRuntime, Depends(runtime)]) -> Response:
            return json_response(await call(swerex, request))

        method = "GET" if path in ("/", "/is_alive") else "POST"
        api.add_api_route(path, endpoint, methods=[method], response_class=Response)

    for path, call in (
        ("/", _root),
        ("/is_alive", _is_alive),
        ("/create_session", _create_session),
        ("/run_in_session", _run_in_session),
        ("/close_session", _close_session),
        ("/execute", _execute),
        ("/read_file", _read_file),
        ("/write_file", _write_file),
        ("/upload", _upload),
        ("/close", _close),
    ):
        route(path, call)
    return api


async def _root(swerex: SwerexRuntime, request: Request) -> Hello:
    return Hello(f"SWE-ReX runtime of session {swerex.session_id}")


async def _is_alive(swerex: SwerexRuntime, request: Request) -> Alive:
    if swerex.gateway.is_draining:
        return Alive(False, "the gateway is shutting down")
    return Alive()


async def _create_session(swerex: SwerexRuntime, request: Request) -> msgspec.Struct:
    return await swerex.create_session(await _body(swerex, request, CreateSession))


async def _run_in_session(swerex: SwerexRuntime, request: Request) -> msgspec.Struct:
    return await swerex.run_in_session(await _body(swerex, request, Action))  # type: ignore[arg-type]


async def _close_session(swerex: SwerexRuntime, request: Request) -> SessionClosed:
    await swerex.close_session((await _body(swerex, request, CloseSession)).session)
    return SessionClosed()


async def _execute(swerex: SwerexRuntime, request: Request) -> msgspec.Struct:
    return await swerex.execute(await _body(swerex, request, Execute))


async def _read_file(swerex: SwerexRuntime, request: Request) -> FileContent:
    return FileContent(await read_file(swerex, await _body(swerex, request, ReadFile)))


async def _write_file(swerex: SwerexRuntime, request: Request) -> Nothing:
    await write_file(swerex, await _body(swerex, request, WriteFile))
    return Nothing()


async def _upload(swerex: SwerexRuntime, request: Request) -> Nothing:
    limit = swerex.gateway.limits.max_archive_bytes
    body = (piece async for piece, _ in pieces(request, limit))
    try:
        form = await MultiPartParser(request.headers, body, max_files=1, max_fields=8).parse()
    except (MultiPartException, KeyError) as error:
        raise faults.bad_value(f"body: must be multipart/form-data: {error}") from error
    try:
        file, target = form.get("file"), form.get("target_path")
        if not isinstance(file, UploadFile) or not isinstance(target, str) or not target:
            raise faults.bad_value("file, target_path: both parts are needed, the first with a file name")
        await upload(swerex, file, target, unzips=form.get("unzip") in ("true", "True", "1", "on", "yes"))
    finally:
        await form.close()
    return Nothing()


async def _close(swerex: SwerexRuntime, request: Request) -> Nothing:
    await swerex.close()
    return Nothing()


async def _body(swerex: SwerexRuntime, request: Request, kind: type[T]) -> T:
    data = await read_body(request, swerex.gateway.limits.max_body_bytes)
    try:
        return msgspec.json.decode(data or b"{}", type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise faults.bad_value(f"body: {error}") from error


def _failed(fault: faults.SwerexFault) -> Response:
    return json_response(Failed(fault.transfer()), faults.STATUS)
