"""REST: sessions."""

from fastapi import APIRouter, Request, Response

from gateway.decode import decode, read_body
from gateway.errors import Refusal
from gateway.openapi import empty_answer, json_answer, json_body, refusals
from gateway.protocol import SessionList, SessionRequest, SessionStatus
from gateway.routing import SessionId, Tenant, ThisGateway, json_response

_PATH = "/sessions/{sid}"


def session_routes() -> APIRouter:
    api = APIRouter(tags=["sessions"])
    add = api.add_api_route
    add(
        "/sessions",
        get_sessions,
        methods=["GET"],
        responses={200: json_answer("Yours, in no order.", SessionList), **refusals()},
    )
    add(
        _PATH,
        put_session,
        methods=["PUT"],
        openapi_extra=json_body(SessionRequest),
        responses={
            200: json_answer("Settings replaced.", SessionStatus),
            201: json_answer("Created.", SessionStatus),
            **refusals(400, 408, 409, 413, 429, 503),
        },
    )
    add(
        _PATH,
        get_session,
        methods=["GET"],
        responses={200: json_answer("The session.", SessionStatus), **refusals(400, 404, 503)},
    )
    add(
        _PATH,
        delete_session,
        methods=["DELETE"],
        status_code=204,
        responses={204: empty_answer("It is gone."), **refusals(400, 503)},
    )
    return api


async def get_sessions(gateway: ThisGateway, tenant: Tenant) -> Response:
    sessions = gateway.sessions.all_of(tenant)
    return json_response(SessionList([gateway.sessions.status(each) for each in sessions]))


async def put_session(request: Request, gateway: ThisGateway, tenant: Tenant, sid: SessionId) -> Response:
    """Create a session, or replace the settings of one. Its workspace is an empty directory of its own."""
    settings = decode(await read_body(request, gateway.limits.max_body_bytes), SessionRequest)
    session, is_new = await gateway.sessions.put(tenant, sid, settings)
    return json_response(gateway.sessions.status(session), 201 if is_new else 200)


async def get_session(gateway: ThisGateway, tenant: Tenant, sid: SessionId) -> Response:
    return json_response(gateway.sessions.status(gateway.sessions.get(tenant, sid)))


async def delete_session(gateway: ThisGateway, tenant: Tenant, sid: SessionId) -> Response:
    """Kill its commands and remove its workspace. A session that is not there is gone already: 204."""
    try:
        session = gateway.sessions.get(tenant, sid)
    except Refusal as refusal:
        if refusal.status != 404:  # Such as 503: it may turn up yet.
            raise
    else:
        await gateway.sessions.end(session, "its session was deleted")
    return Response(status_code=204)
