"""REST: leases, which are admission for commands that their callers run themselves."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from gateway.decode import decode, read_body
from gateway.errors import Refusal
from gateway.openapi import LOCATION, json_answer, json_body, refusals
from gateway.protocol import LeaseEnding, LeaseRenewal, LeaseRequest, LeaseState, LeaseStatus
from gateway.routing import Tenant, ThisGateway, Wait, json_response

LeaseId = Annotated[str, Path(max_length=64, examples=["le-5d41402abc4b2a76b9719d91"])]
_LEASE = "/leases/{lease_id}"


def lease_routes() -> APIRouter:
    api = APIRouter(tags=["leases"])
    add = api.add_api_route
    now = json_answer("The lease now.", LeaseStatus)
    add(
        "/leases",
        post_lease,
        methods=["POST"],
        openapi_extra=json_body(LeaseRequest),
        responses={
            200: json_answer("Held: go ahead.", LeaseStatus, LOCATION),
            202: json_answer("Queued: ask again.", LeaseStatus, LOCATION),
            **refusals(400, 404, 408, 413, 429, 503),
        },
    )
    add(_LEASE, get_lease, methods=["GET"], responses={200: now, **refusals(400, 404)})
    add(
        _LEASE,
        put_lease,
        methods=["PUT"],
        openapi_extra=json_body(LeaseRenewal),
        responses={200: now, **refusals(400, 404, 408, 409, 413)},
    )
    add(
        _LEASE,
        delete_lease,
        methods=["DELETE"],
        openapi_extra=json_body(LeaseEnding),
        responses={200: now, **refusals(400, 404, 408, 413)},
    )
    return api


async def post_lease(request: Request, gateway: ThisGateway, tenant: Tenant, wait: Wait = 0.0) -> Response:
    """Ask for slots on a host. A held lease ends by itself unless it is renewed within `ttl_s`."""
    body = decode(await read_body(request, gateway.limits.max_body_bytes), LeaseRequest)
    lease = gateway.leases.ask(tenant, body)
    await gateway.leases.wait_held(lease, wait)
    status = gateway.leases.status(lease)
    if status.state is LeaseState.REJECTED:
        raise Refusal(429, "lease_rejected", status.reason or "there was no room in time", retry_after_s=1)
    headers = {"Location": f"/v1/leases/{status.id}"}
    return json_response(status, 202 if status.state is LeaseState.QUEUED else 200, headers)


async def get_lease(gateway: ThisGateway, tenant: Tenant, lease_id: LeaseId, wait: Wait = 0.0) -> Response:
    """With `wait`, as soon as it is queued no more."""
    lease = gateway.leases.get(tenant, lease_id)
    await gateway.leases.wait_held(lease, wait)
    return json_response(gateway.leases.status(lease))


async def put_lease(request: Request, gateway: ThisGateway, tenant: Tenant, lease_id: LeaseId) -> Response:
    """Renew it."""
    body = decode(await read_body(request, gateway.limits.max_body_bytes), LeaseRenewal)
    lease = gateway.leases.get(tenant, lease_id)
    gateway.leases.renew(lease, body)
    return json_response(gateway.leases.status(lease))


async def delete_lease(request: Request, gateway: ThisGateway, tenant: Tenant, lease_id: LeaseId) -> Response:
    """Give it back, and say how the command went. Again is the same as once."""
    body = decode(await read_body(request, gateway.limits.max_body_bytes), LeaseEnding)
    lease = gateway.leases.get(tenant, lease_id)
    gateway.leases.release(lease, body)
    return json_response(gateway.leases.status(lease))
