"""The REST API: reads a request, asks the gateway, writes the answer.

Owns paths, query parameters and status codes. Decisions are made elsewhere.
"""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response

from gateway.decode import decode, read_body
from gateway.errors import draining, exec_not_found, invalid
from gateway.exec_record import Exec
from gateway.gateway import Gateway
from gateway.openapi import json_answer, json_body
from gateway.protocol import (
    MAX_WAIT_S,
    ErrorBody,
    ExecRequest,
    ExecStatus,
    HostList,
    SessionRequest,
    SessionStatus,
    StreamName,
)
from gateway.submission import check_variables

_MAX_CHUNK_BYTES = 1 << 20
_CHUNK_BYTES = 64 << 10


def _gateway(request: Request) -> Gateway:
    gateway: Gateway = request.app.state.gateway
    return gateway


def _tenant(request: Request, gateway: Annotated[Gateway, Depends(_gateway)]) -> str:
    headers = request.headers
    return gateway.tenants.authenticate(headers.get("authorization"), headers.get("host"))


ThisGateway = Annotated[Gateway, Depends(_gateway)]
Tenant = Annotated[str, Depends(_tenant)]
SessionId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$")]
ExecId = Annotated[str, Path(max_length=64)]
Wait = Annotated[float, Query(ge=0, le=MAX_WAIT_S, description="Seconds to wait for the end (long poll).")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        description="The same key again attaches to the command that it started, running or finished.",
    ),
]

_FAILED: dict[int | str, dict[str, Any]] = {
    status: json_answer(text, ErrorBody)
    for status, text in {
        400: "A field is wrong; `param` names it.",
        401: "No known bearer token.",
        404: "No such session or exec of this tenant.",
        413: "A part of the request is too large.",
    }.items()
}
_REFUSED: dict[int | str, dict[str, Any]] = {
    409: json_answer("The session is ending, or the key was used with another body.", ErrorBody),
    410: json_answer("The key's command is over and forgotten.", ErrorBody),
    429: json_answer("The queue is full; the command was not run. See Retry-After.", ErrorBody),
    503: json_answer("The gateway is shutting down.", ErrorBody),
}


def routes() -> APIRouter:
    api = APIRouter(prefix="/v1", responses=_FAILED)
    session, execution = "/sessions/{sid}", "/execs/{exec_id}"

    add = api.add_api_route
    add(
        session,
        put_session,
        methods=["PUT"],
        tags=["sessions"],
        openapi_extra=json_body(SessionRequest),
        responses={
            200: json_answer("Settings replaced.", SessionStatus),
            201: json_answer("Created.", SessionStatus),
            429: json_answer("Too many sessions.", ErrorBody),
        },
    )
    add(
        session,
        get_session,
        methods=["GET"],
        tags=["sessions"],
        responses={200: json_answer("The session.", SessionStatus)},
    )
    add(session, delete_session, methods=["DELETE"], tags=["sessions"], status_code=204)
    add(
        f"{session}/execs",
        post_exec,
        methods=["POST"],
        tags=["execs"],
        openapi_extra=json_body(ExecRequest),
        responses={
            200: json_answer("The command is over.", ExecStatus),
            202: json_answer("It is queued or running; see Location.", ExecStatus),
            **_REFUSED,
        },
    )
    add(
        execution,
        get_exec,
        methods=["GET"],
        tags=["execs"],
        responses={200: json_answer("The command.", ExecStatus)},
    )
    add(
        f"{execution}/output",
        get_output,
        methods=["GET"],
        tags=["execs"],
        response_class=Response,
        responses={
            200: {
                "description": "Bytes from the offset on; see X-Next-Offset, X-Eof, X-Truncated.",
                "content": {"application/octet-stream": {}},
            }
        },
    )
    add(
        execution,
        delete_exec,
        methods=["DELETE"],
        tags=["execs"],
        responses={
            200: json_answer("It is over.", ExecStatus),
            202: json_answer("It is being ended.", ExecStatus),
        },
    )
    add(
        "/hosts", get_hosts, methods=["GET"], tags=["hosts"], responses={200: json_answer("Hosts.", HostList)}
    )
    return api


async def put_session(request: Request, gateway: ThisGateway, tenant: Tenant, sid: SessionId) -> Response:
    """Create a session, or replace the settings of one. Its workspace is an empty directory of its own."""
    settings = decode(await read_body(request, gateway.limits.max_body_bytes), SessionRequest)
    check_variables("env", settings.env, gateway.limits.max_env_bytes)
    _check_session_cwd(settings.cwd)
    if gateway.host.is_draining:
        raise draining()
    session, is_new = gateway.sessions.put(tenant, sid, settings)
    return _json(gateway.sessions.status(session), 201 if is_new else 200)


async def get_session(gateway: ThisGateway, tenant: Tenant, sid: SessionId) -> Response:
    return _json(gateway.sessions.status(gateway.sessions.get(tenant, sid)))


async def delete_session(gateway: ThisGateway, tenant: Tenant, sid: SessionId) -> Response:
    """Kill its commands and remove its workspace. A session that is not there is gone already: 204."""
    session = gateway.sessions.find(tenant, sid)
    if session is not None:
        await gateway.sessions.end(session, "its session was deleted")
    return Response(status_code=204)


async def post_exec(
    request: Request,
    gateway: ThisGateway,
    tenant: Tenant,
    sid: SessionId,
    wait: Wait = 0.0,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Run a command. It goes on whether or not its caller stays to see the end."""
    body = decode(await read_body(request, gateway.limits.max_body_bytes), ExecRequest)
    session = gateway.sessions.use(tenant, sid)
    record = gateway.submission.submit(session, body, idempotency_key)
    await gateway.execs.wait_ended(record, wait)
    return _exec(gateway, record, pending_status=202)


async def get_exec(gateway: ThisGateway, tenant: Tenant, exec_id: ExecId, wait: Wait = 0.0) -> Response:
    record = _find(gateway, tenant, exec_id)
    await gateway.execs.wait_ended(record, wait)
    return _exec(gateway, record, pending_status=200)


async def delete_exec(gateway: ThisGateway, tenant: Tenant, exec_id: ExecId, wait: Wait = 0.0) -> Response:
    """End a command before its time: SIGTERM, its `kill_grace_s`, SIGKILL. Again is the same as once."""
    record = _find(gateway, tenant, exec_id)
    gateway.execs.cancel(record, "its caller cancelled it")
    await gateway.execs.wait_ended(record, wait)
    return _exec(gateway, record, pending_status=202)


async def get_output(
    gateway: ThisGateway,
    tenant: Tenant,
    exec_id: ExecId,
    stream: StreamName = StreamName.STDOUT,
    offset: Annotated[int, Query(ge=0)] = 0,
    limit: Annotated[int, Query(ge=1, le=_MAX_CHUNK_BYTES)] = _CHUNK_BYTES,
    wait: Wait = 0.0,
) -> Response:
    """Output from an offset on, also while it runs; with `wait`, as soon as there is some."""
    spool = _find(gateway, tenant, exec_id).spool(stream)
    if wait:
        await spool.readable(offset, wait)
    _find(gateway, tenant, exec_id)
    data = spool.read(offset, limit)
    following = offset + len(data)
    headers = {
        "X-Next-Offset": str(following),
        "X-Eof": _flag(spool.is_eof(following)),
        "X-Truncated": _flag(spool.is_truncated),
    }
    return Response(data, media_type="application/octet-stream", headers=headers)


async def get_hosts(gateway: ThisGateway, tenant: Tenant) -> Response:
    return _json(HostList([gateway.host.status()]))


def _check_session_cwd(cwd: str | None) -> None:
    if cwd is not None and "\0" in cwd:
        raise invalid("cwd", "must not contain NUL")


def _find(gateway: Gateway, tenant: str, exec_id: str) -> Exec:
    record = gateway.execs.find(tenant, exec_id)
    if record is None:
        raise exec_not_found(exec_id)
    return record


def _exec(gateway: Gateway, record: Exec, *, pending_status: int) -> Response:
    status = 200 if record.state.is_final else pending_status
    return _json(gateway.execs.status(record), status, {"Location": f"/v1/execs/{record.id}"})


def _json(body: msgspec.Struct, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status, headers, media_type="application/json")


def _flag(value: bool) -> str:
    return "true" if value else "false"
