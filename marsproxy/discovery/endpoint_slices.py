"""What a Service's EndpointSlices say: which pods take traffic, and which are about to go.

Reads ``discovery.k8s.io/v1`` (Kubernetes 1.21 and newer); members that are not named here are passed over.
"""

from collections.abc import Iterable

import msgspec

from marsproxy.discovery.endpoint import MAX_ENDPOINTS, Endpoint, at
from marsproxy.discovery.source import Source

FAMILIES = ("IPv4", "IPv6", "FQDN")
"""A Service of both families has a slice for each, with the same pods in it; the first of these counts."""


class Metadata(msgspec.Struct, rename="camel"):
    name: str = ""
    resource_version: str = ""


class Conditions(msgspec.Struct):
    """None is unknown, which the API wants to be read as: ready, serving, not terminating."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class Target(msgspec.Struct):
    uid: str | None = None


class Pod(msgspec.Struct, rename="camel"):
    addresses: list[str]
    """All of one family and the same pod; the first is enough."""
    conditions: Conditions = msgspec.field(default_factory=Conditions)
    target_ref: Target | None = None


class Port(msgspec.Struct):
    port: int | None = None


class EndpointSlice(msgspec.Struct, rename="camel"):
    metadata: Metadata
    address_type: str = "IPv4"
    endpoints: list[Pod] | None = None
    ports: list[Port] | None = None


def endpoints_in(slices: Iterable[EndpointSlice], source: Source) -> list[Endpoint]:
    """Pods that are ready, or serve what they have while they end; each once, sorted by name."""
    pods: dict[str, Endpoint] = {}
    for each in sorted(slices, key=_family):
        port = source.port or next((port.port for port in each.ports or () if port.port), None)
        for pod in each.endpoints or ():
            endpoint = _endpoint(pod, port, source)
            if endpoint is not None:
                uid = pod.target_ref.uid if pod.target_ref is not None else None
                pods.setdefault(uid or endpoint.name, endpoint)
    by_name = {endpoint.name: endpoint for endpoint in pods.values()}
    return [by_name[name] for name in sorted(by_name)][:MAX_ENDPOINTS]


def _endpoint(pod: Pod, port: int | None, source: Source) -> Endpoint | None:
    conditions = pod.conditions
    is_terminating = conditions.terminating is True
    may_be_used = conditions.serving is not False if is_terminating else conditions.ready is not False
    if not may_be_used or not pod.addresses:
        return None
    found = at(source.url, source.scheme, pod.addresses[0], port)
    return Endpoint(found.url, is_terminating=is_terminating)


def _family(each: EndpointSlice) -> tuple[int, str]:
    known = each.address_type in FAMILIES
    return (FAMILIES.index(each.address_type) if known else len(FAMILIES), each.metadata.name)
