"""What is known of each host now, and what the proxy is told of it."""

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.admission import AdmissionSettings, HostQueue
from gateway.asks import Ask
from gateway.host import Reading
from gateway.hosts import Host, HostPlan, Hosts
from marsproxy.core.events import ToolHostsObserved
from tests.gateway.fake_host import FakeHost


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def hosts_of(clock: Clock, names: Sequence[str], *, stale_s: float = 10.0) -> Hosts:
    settings = AdmissionSettings(slots=2, stale_s=stale_s)
    return Hosts([HostPlan(FakeHost(name), HostQueue(settings)) for name in names], clock)


def see(host: Host, available_mb: int, cpu_pressure: float) -> None:
    host.saw(
        Reading(cores=4, memory_total_mb=8000, memory_available_mb=available_mb, cpu_pressure=cpu_pressure)
    )


def test_a_reading_is_believed_for_as_long_as_admission_believes_it() -> None:
    clock = Clock()
    host = hosts_of(clock, ["a"], stale_s=7.0).default
    assert host.reading is None
    see(host, 4000, 0.1)
    clock.now += 7.0
    assert host.queue.has_fresh_reading(clock.now)
    assert (host.candidate().memory_available_mb, host.observe().memory_available_mb) == (4000, 4000)
    clock.now += 0.1
    assert not host.queue.has_fresh_reading(clock.now)
    assert host.reading is None
    assert (host.candidate().memory_available_mb, host.status().load_1m) == (None, None)
    see(host, 3000, 0.1)
    assert host.candidate().memory_available_mb == 3000


def test_the_proxy_is_told_of_each_host_and_of_all() -> None:
    hosts = hosts_of(Clock(), ["a", "b"])
    see(hosts.get("a"), 4000, 0.5)
    see(hosts.get("b"), 1000, 0.1)
    hosts.get("b").adopt(Ask("x", ("t", "s")))
    each = hosts.observe_each()
    assert [(host.host, host.cores, host.running) for host in each] == [("a", 2, 0), ("b", 2, 1)]
    assert [host.memory_available_mb for host in each] == [4000, 1000]
    assert hosts.observe() == ToolHostsObserved(
        host="",
        cores=4,
        running=1,
        queued=0,
        memory_available_mb=5000,
        memory_total_mb=16000,
        cpu_pressure=0.5,
    )


def test_where_nothing_may_start_there_is_no_room_to_tell_of() -> None:
    hosts = hosts_of(Clock(), ["a", "b", "c"])
    hosts.get("a").lost()
    hosts.drain("b", is_draining=True)
    assert [host.host for host in hosts.observe_each()] == ["c"]
    assert (hosts.observe().host, hosts.observe().cores) == ("", 2)
    hosts.get("c").lost()
    assert hosts.observe_each() == []
    assert hosts.observe() == ToolHostsObserved(cores=0, running=0, queued=0)
    hosts.get("a").came_back()
    assert [host.host for host in hosts.observe_each()] == ["a"]
