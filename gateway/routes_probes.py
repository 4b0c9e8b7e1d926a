"""Probes: for those who watch the gateway, without a token."""

from fastapi import APIRouter, Response

from gateway.routing import ThisGateway

_TEXT = "text/plain"
_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


def probe_routes() -> APIRouter:
    api = APIRouter(tags=["probes"])
    add = api.add_api_route
    text = {"content": {_TEXT: {"schema": {"type": "string"}}}}
    add(
        "/healthz",
        healthz,
        methods=["GET"],
        response_class=Response,
        responses={200: {"description": "ok", **text}},
    )
    add(
        "/readyz",
        readyz,
        methods=["GET"],
        response_class=Response,
        responses={200: {"description": "ready", **text}, 503: {"description": "not yet or no more", **text}},
    )
    add(
        "/metrics",
        metrics,
        methods=["GET"],
        response_class=Response,
        responses={200: {"description": "Counts and gauges, for Prometheus.", **text}},
    )
    return api


async def healthz() -> Response:
    """The process lives."""
    return Response("ok\n", media_type=_TEXT)


async def readyz(gateway: ThisGateway) -> Response:
    """It takes commands."""
    if gateway.is_draining:
        return Response("draining\n", 503, {"Retry-After": "5"}, media_type=_TEXT)
    if not gateway.hosts.are_asked:
        return Response("asking its hosts what they run\n", 503, {"Retry-After": "1"}, media_type=_TEXT)
    weakness = gateway.store_watch.weakness
    detail = "" if weakness is None else f"but commands could run twice: {weakness}\n"
    return Response(f"ready\n{detail}", media_type=_TEXT)


async def metrics(gateway: ThisGateway) -> Response:
    return Response(gateway.metrics.exposition(), media_type=_PROMETHEUS)
