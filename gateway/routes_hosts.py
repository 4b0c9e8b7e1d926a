"""REST: hosts."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from gateway.decode import decode, read_body
from gateway.openapi import json_answer, json_body, refusals
from gateway.protocol import DrainRequest, HostList, HostStatus
from gateway.routing import Tenant, ThisGateway, json_response

HostName = Annotated[str, Path(max_length=255, examples=["local"])]


def host_routes() -> APIRouter:
    api = APIRouter(tags=["hosts"])
    api.add_api_route(
        "/hosts",
        get_hosts,
        methods=["GET"],
        responses={200: json_answer("All hosts.", HostList), **refusals()},
    )
    api.add_api_route(
        "/hosts/{host}/drain",
        put_drain,
        methods=["PUT"],
        openapi_extra=json_body(DrainRequest),
        responses={200: json_answer("The host now.", HostStatus), **refusals(400, 404, 408, 413)},
    )
    return api


async def get_hosts(gateway: ThisGateway, tenant: Tenant) -> Response:
    return json_response(HostList(gateway.hosts.statuses()))


async def put_drain(request: Request, gateway: ThisGateway, tenant: Tenant, host: HostName) -> Response:
    """Start nothing new on a host, while what runs goes on; or take it back. For the tenant `operator`, or
    the only one."""
    gateway.tenants.check_operator(tenant)
    body = decode(await read_body(request, gateway.limits.max_body_bytes), DrainRequest)
    return json_response(gateway.hosts.drain(host, is_draining=body.is_draining))
