"""Which pods of a Service take traffic."""

from typing import Any

import msgspec
import pytest

from marsproxy.discovery.endpoint_slices import EndpointSlice, endpoints_in
from marsproxy.discovery.source import read_source
from tests.marsproxy.discovery.kubernetes_api import pod, slice_of

SOURCE = read_source("k8s+http://vllm.prod")


def names_in(*slices: dict[str, Any], url: str = "k8s+http://vllm.prod") -> list[str]:
    read = [msgspec.convert(each, EndpointSlice) for each in slices]
    return [endpoint.name for endpoint in endpoints_in(read, read_source(url))]


@pytest.mark.parametrize(
    ("conditions", "is_used"),
    [
        ({"ready": True}, True),
        ({"ready": False}, False),
        ({"ready": False, "serving": True, "terminating": True}, True),
        ({"ready": False, "serving": False, "terminating": True}, False),
        ({"ready": False, "serving": True, "terminating": False}, False),
        ({"ready": None, "serving": None, "terminating": None}, True),
    ],
)
def test_conditions(conditions: dict[str, Any], is_used: bool) -> None:
    """Unknown is read as the API says that it must be."""
    assert names_in(slice_of("one", pod("10.0.0.1", **conditions))) == ["http://10.0.0.1:8000"] * is_used


def test_a_pod_of_two_families_is_one_backend() -> None:
    """By its older address."""
    six = slice_of("a", pod("fd00::1", uid="pod-1"), pod("fd00::2", uid="pod-2"), family="IPv6")
    four = slice_of("b", pod("10.0.0.1", uid="pod-1"), family="IPv4")
    assert names_in(six, four) == ["http://10.0.0.1:8000", "http://[fd00::2]:8000"]


def test_ports() -> None:
    """The pods' own, unless the source names one."""
    assert names_in(slice_of("one", pod("10.0.0.1"), port=9000)) == ["http://10.0.0.1:9000"]
    assert names_in(slice_of("one", pod("10.0.0.1")), url="k8s+http://vllm.prod:7000") == [
        "http://10.0.0.1:7000"
    ]


def test_a_service_without_pods() -> None:
    """The API writes null for an empty list."""
    assert names_in(slice_of("one") | {"endpoints": None, "ports": None}) == []
