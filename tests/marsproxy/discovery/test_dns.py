"""Backends by DNS, asked of a server that answers in real messages."""

from typing import Any

import pytest

from marsproxy.config import Discovery
from marsproxy.discovery.dns import DnsDiscovery, DnsResolver, NoAnswer
from marsproxy.discovery.source import read_source
from tests.marsproxy.discovery.dns_server import NAME, NameServer, name_server
from tests.marsproxy.discovery.listener import Listener, running

URL = "dns+http://user:pass@vllm.test:8000/base"
A = (NAME, "A")


def resolver_of(server: NameServer) -> DnsResolver:
    return DnsResolver(Discovery(dns_server=server.address).dns_address())


def discovery_of(server: NameServer, listener: Listener, url: str = URL, interval_s: float = 30.0) -> Any:
    return DnsDiscovery(read_source(url), resolver_of(server), listener, interval_s=interval_s)


async def test_each_address_is_a_backend() -> None:
    """In the order of their names, with path and credentials as configured."""
    async with name_server(records={A: ["10.0.0.2", "10.0.0.1"]}) as server:
        listener = Listener()
        async with running(discovery_of(server, listener), listener):
            await listener.until(lambda: len(listener.told) == 1)
    assert listener.names == ["http://10.0.0.1:8000", "http://10.0.0.2:8000"]
    assert listener.told[0][0].url == "http://user:pass@10.0.0.1:8000/base"


async def test_addresses_of_the_newer_kind_where_there_is_no_other() -> None:
    """Not both: they would be the same servers."""
    async with name_server(records={(NAME, "AAAA"): ["fd00::1"]}) as server:
        listener = Listener()
        async with running(discovery_of(server, listener), listener):
            await listener.until(lambda: bool(listener.told))
            assert listener.names == ["http://[fd00::1]:8000"]
        server.records[A] = ["10.0.0.1"]
        assert [each.host for each in (await resolver_of(server).addresses(NAME)).targets] == ["10.0.0.1"]


async def test_services_say_the_port() -> None:
    """Those of the first priority; the others are for when they fail, which is not ours to know."""
    name = f"_vllm._tcp.{NAME}"
    records = {(name, "SRV"): ["1 5 8001 b.test.", "1 9 8000 a.test.", "2 1 8000 spare.test."]}
    async with name_server(records=records) as server:
        listener = Listener()
        async with running(discovery_of(server, listener, f"srv+http://{name}"), listener):
            await listener.until(lambda: bool(listener.told))
    assert listener.names == ["http://a.test:8000", "http://b.test:8001"]


@pytest.mark.slow
async def test_it_asks_again_when_the_answer_is_old() -> None:
    """And tells only what has changed."""
    async with name_server(records={A: ["10.0.0.1"]}, ttl_s=0) as server:
        listener = Listener()
        async with running(discovery_of(server, listener), listener):
            await listener.until(lambda: server.questions >= 2)
            server.records[A] = ["10.0.0.3", "10.0.0.1"]
            await listener.until(lambda: len(listener.told) == 2)
    assert listener.names == ["http://10.0.0.1:8000", "http://10.0.0.3:8000"]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["fails", "no such name", "no such record"])
async def test_those_that_were_found_stay(how: str) -> None:
    """Whatever the resolver says of nothing, it may say because it has just been started."""
    async with name_server(records={A: ["10.0.0.1"]}, ttl_s=0) as server:
        listener = Listener()
        async with running(discovery_of(server, listener), listener):
            await listener.until(lambda: bool(listener.told))
            server.fails = how == "fails"
            if how == "no such name":
                server.records.clear()
            elif how == "no such record":
                server.records[A] = []
            await listener.until(lambda: None in listener.looks)
    assert len(listener.told) == 1


async def test_a_look_can_be_asked_for() -> None:
    """By whoever knows better than the answer's TTL; at most once in a second."""
    async with name_server(records={A: ["10.0.0.1"]}, ttl_s=3600) as server:
        listener = Listener()
        discovery = discovery_of(server, listener, interval_s=3600)
        async with running(discovery, listener):
            await listener.until(lambda: bool(listener.told))
            server.records[A] = ["10.0.0.9"]
            for _ in range(100):
                discovery.look_again()
            await listener.until(lambda: len(listener.told) == 2)
            assert len(listener.looks) == 2


async def test_no_server_at_all() -> None:
    """Is said, by name of the failure."""
    async with name_server() as server:
        pass
    resolver = resolver_of(server)
    resolver._resolver.lifetime = 0.2
    with pytest.raises(NoAnswer, match=r"NoNameservers|Lifetime"):
        await resolver.addresses(NAME)
