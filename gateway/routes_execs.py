"""REST: commands, their output, and what is done to them while they run."""

import base64
import binascii
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from gateway.decode import decode, read_body
from gateway.errors import invalid
from gateway.exec_record import Exec
from gateway.gateway import Gateway
from gateway.host import TerminalSize
from gateway.openapi import (
    BINARY,
    LOCATION,
    empty_answer,
    json_answer,
    json_body,
    raw_answer,
    refusals,
)
from gateway.protocol import (
    ExecRequest,
    ExecStatus,
    HeartbeatRequest,
    SignalRequest,
    SignalStatus,
    StdinRequest,
    StdinStatus,
    StreamName,
    TtyRequest,
)
from gateway.routing import (
    ExecId,
    IdempotencyKey,
    SessionId,
    Tenant,
    TheHeartbeats,
    ThisGateway,
    Wait,
    flag,
    json_response,
)

MAX_CHUNK_BYTES = 1 << 20
_CHUNK_BYTES = 64 << 10
_EXEC = "/execs/{exec_id}"
_OUTPUT_HEADERS = {
    "X-Next-Offset": "Where the next read begins.",
    "X-Eof": "true: nothing can follow X-Next-Offset.",
    "X-Truncated": "true: more was written than is kept.",
}


def exec_routes() -> APIRouter:
    api = APIRouter(tags=["execs"])
    _add_life(api)
    _add_conversation(api)
    return api


def _add_life(api: APIRouter) -> None:
    add = api.add_api_route
    pending = json_answer("It is queued or running.", ExecStatus, LOCATION)
    add(
        "/sessions/{sid}/execs",
        post_exec,
        methods=["POST"],
        openapi_extra=json_body(ExecRequest),
        responses={
            200: json_answer("The command is over.", ExecStatus, LOCATION),
            202: pending,
            **refusals(400, 404, 408, 409, 410, 413, 429, 503),
        },
    )
    add(
        _EXEC,
        get_exec,
        methods=["GET"],
        responses={200: json_answer("The command.", ExecStatus, LOCATION), **refusals(400, 404, 503)},
    )
    add(
        _EXEC,
        delete_exec,
        methods=["DELETE"],
        responses={
            200: json_answer("It is over.", ExecStatus, LOCATION),
            202: json_answer("It is being ended.", ExecStatus, LOCATION),
            **refusals(400, 404, 503),
        },
    )


def _add_conversation(api: APIRouter) -> None:
    add = api.add_api_route
    add(
        f"{_EXEC}/output",
        get_output,
        methods=["GET"],
        response_class=Response,
        responses={
            200: raw_answer("Bytes from the offset on.", BINARY, _OUTPUT_HEADERS),
            **refusals(400, 404, 410, 502, 503),
        },
    )
    add(
        f"{_EXEC}/stdin",
        post_stdin,
        methods=["POST"],
        openapi_extra=json_body(StdinRequest),
        responses={
            200: json_answer("Taken.", StdinStatus),
            **refusals(400, 404, 408, 409, 410, 413, 502, 503),
        },
    )
    add(
        f"{_EXEC}/signal",
        post_signal,
        methods=["POST"],
        openapi_extra=json_body(SignalRequest),
        responses={
            200: json_answer("Sent, if there was one to send it to.", SignalStatus),
            **refusals(400, 404, 408, 409, 410, 413, 502, 503),
        },
    )
    for path, route, kind, text, more in (
        ("tty", put_tty, TtyRequest, "The terminal has that size.", (409, 410, 502)),
        ("heartbeat", put_heartbeat, HeartbeatRequest, "It lives on.", ()),
    ):
        add(
            f"{_EXEC}/{path}",
            route,
            methods=["PUT"],
            status_code=204,
            openapi_extra=json_body(kind),
            responses={204: empty_answer(text), **refusals(400, 404, 408, 413, 503, *more)},
        )


async def post_exec(
    request: Request,
    gateway: ThisGateway,
    heartbeats: TheHeartbeats,
    tenant: Tenant,
    sid: SessionId,
    wait: Wait = 0.0,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Run a command. It goes on whether or not its caller stays to see the end."""
    body = decode(await read_body(request, gateway.limits.max_body_bytes), ExecRequest)
    session = gateway.sessions.use(tenant, sid)
    record = await gateway.submission.submit(session, body, idempotency_key)
    if body.heartbeat_ttl_s is not None:  # Who asks again under the same key is there still.
        heartbeats.beat(record, body.heartbeat_ttl_s)
    await gateway.execs.wait_ended(record, wait)
    return await _exec(gateway, record, pending_status=202)


async def get_exec(gateway: ThisGateway, tenant: Tenant, exec_id: ExecId, wait: Wait = 0.0) -> Response:
    record = await gateway.execs.get(tenant, exec_id)
    await gateway.execs.wait_ended(record, wait)
    return await _exec(gateway, record, pending_status=200)


async def delete_exec(gateway: ThisGateway, tenant: Tenant, exec_id: ExecId, wait: Wait = 0.0) -> Response:
    """End a command before its time: SIGTERM, its `kill_grace_s`, SIGKILL. Again is the same as once."""
    record = await gateway.execs.get(tenant, exec_id)
    gateway.execs.cancel(record, "its caller cancelled it")
    await gateway.execs.wait_ended(record, wait)
    return await _exec(gateway, record, pending_status=202)


async def get_output(
    gateway: ThisGateway,
    tenant: Tenant,
    exec_id: ExecId,
    stream: StreamName = StreamName.STDOUT,
    offset: Annotated[int, Query(ge=0, lt=1 << 63)] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_CHUNK_BYTES)] = _CHUNK_BYTES,
    wait: Wait = 0.0,
) -> Response:
    """Output from an offset on, also while it runs; with `wait`, as soon as there is some."""
    record = await gateway.execs.get(tenant, exec_id)
    chunk = await gateway.execs.read(record, stream, offset, limit, wait)
    headers = {
        "X-Next-Offset": str(chunk.next_offset),
        "X-Eof": flag(chunk.is_eof),
        "X-Truncated": flag(chunk.total_bytes > chunk.kept_bytes),
    }
    return Response(chunk.data, media_type=BINARY, headers=headers)


async def post_stdin(request: Request, gateway: ThisGateway, tenant: Tenant, exec_id: ExecId) -> Response:
    """Go on with the input of a command that was started with `stdin_open`. Sent twice is written once."""
    body = decode(await read_body(request, gateway.limits.max_body_bytes), StdinRequest)
    data = _decoded(body.data_b64)
    record = await gateway.execs.get(tenant, exec_id)
    next_offset = await gateway.execs.write_stdin(record, data, body.offset, is_eof=body.eof)
    return json_response(StdinStatus(next_offset))


async def post_signal(request: Request, gateway: ThisGateway, tenant: Tenant, exec_id: ExecId) -> Response:
    """Send a signal to a command's process group, or to all that it started."""
    body = decode(await read_body(request, gateway.limits.max_body_bytes), SignalRequest)
    record = await gateway.execs.get(tenant, exec_id)
    return json_response(SignalStatus(await gateway.execs.signal(record, body.signal, body.scope)))


async def put_tty(request: Request, gateway: ThisGateway, tenant: Tenant, exec_id: ExecId) -> Response:
    """Change the size of the terminal of a command that was started with `tty`."""
    body = decode(await read_body(request, gateway.limits.max_body_bytes), TtyRequest)
    record = await gateway.execs.get(tenant, exec_id)
    await gateway.execs.resize(record, TerminalSize(body.cols, body.rows))
    return Response(status_code=204)


async def put_heartbeat(
    request: Request,
    gateway: ThisGateway,
    heartbeats: TheHeartbeats,
    tenant: Tenant,
    exec_id: ExecId,
) -> Response:
    """Tie a command to its client: it is cancelled unless this comes again within `ttl_s`."""
    body = decode(await read_body(request, gateway.limits.max_body_bytes), HeartbeatRequest)
    heartbeats.beat(await gateway.execs.get(tenant, exec_id), body.ttl_s)
    return Response(status_code=204)


async def _exec(gateway: Gateway, record: Exec, *, pending_status: int) -> Response:
    status = await gateway.execs.status(record)
    headers = {"Location": f"/v1/execs/{record.id}"}
    return json_response(status, 200 if status.state.is_final else pending_status, headers)


def _decoded(data_b64: str) -> bytes:
    try:
        return base64.b64decode(data_b64, validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid("data_b64", "must be base64") from error
