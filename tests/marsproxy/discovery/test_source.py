"""What the words of ``--backend`` mean."""

import pytest

from marsproxy.config import Config, ConfigError, Discovery
from marsproxy.discovery.endpoint import Endpoint
from marsproxy.discovery.source import read_source


@pytest.mark.parametrize(
    ("text", "way", "scheme", "host", "port"),
    [
        ("http://gpu:8000", "static", "http", "gpu", 8000),
        ("https://gpu", "static", "https", "gpu", None),
        ("dns+http://vllm.svc:8000", "dns", "http", "vllm.svc", 8000),
        ("srv+http://_vllm._tcp.svc", "srv", "http", "_vllm._tcp.svc", None),
        ("k8s+http://vllm.prod:8000", "k8s", "http", "vllm.prod", 8000),
        ("k8s+http://vllm.prod", "k8s", "http", "vllm.prod", None),
    ],
)
def test_sources(text: str, way: str, scheme: str, host: str, port: int | None) -> None:
    """A server, or where to ask for servers."""
    source = read_source(text)
    assert (source.way, source.scheme, source.host, source.port) == (way, scheme, host, port)


def test_a_service_has_a_namespace() -> None:
    """The name may go on behind it, as in the cluster's DNS."""
    assert read_source("k8s+http://vllm.prod.svc.cluster.local").service == ("vllm", "prod")


@pytest.mark.parametrize(
    "text",
    [
        "gpu:8000",
        "ftp://gpu",
        "dns+https://gpu:8000",
        "dns+http://",
        "http://gpu:0",
        "http://gpu:99999999",
        "srv+http://name:80",
        "k8s+http://vllm:8000",
        "",
    ],
)
def test_what_is_none(text: str) -> None:
    """Is refused by the name of its setting, with what is allowed, and without being quoted."""
    with pytest.raises(ConfigError, match=r"^backends: .*allowed: .*http://"):
        Config(backends=(text,))


def test_names_are_addresses() -> None:
    """Without what is secret: the same in all replicas."""
    assert Endpoint("http://user:pass@10.0.0.1:8000/base").name == "http://10.0.0.1:8000"


def test_two_backends_of_one_name() -> None:
    """Could not be told apart."""
    with pytest.raises(ConfigError, match="twice"):
        Config(backends=("http://gpu:8000/a", "http://gpu:8000/b"))


@pytest.mark.parametrize("server", ["name.example", "", "10.0.0.1:x", "10.0.0.1:99999"])
def test_a_name_server_is_an_address(server: str) -> None:
    """Its name could not be asked of anybody."""
    with pytest.raises(ConfigError, match=r"discovery\.dns_server"):
        Discovery(dns_server=server)


def test_ports_of_name_servers() -> None:
    """53 unless it says so."""
    assert Discovery(dns_server="10.0.0.1").dns_address() == ("10.0.0.1", 53)
    assert Discovery(dns_server="[::1]:8600").dns_address() == ("::1", 8600)
