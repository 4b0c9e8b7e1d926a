"""Counts for Prometheus: a listener of the commands and a reader of the tables.

Owns names and units (prefix ``mars_gateway_``, base units). No label is chosen by a caller: a host's name is
the operator's.
"""

import math
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily

from gateway.exec_record import Exec
from gateway.hosts import Host, Hosts
from gateway.listeners import ToolRun
from gateway.protocol import StreamName

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)
_BYTES = tuple(megabytes * 1e6 for megabytes in (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768))


class Metrics:
    """One registry per gateway, so that several can live in one process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._execs = Counter(
            "mars_gateway_execs", "Commands that are over, by final state", ["state"], registry=self._registry
        )
        self._leases = Counter(
            "mars_gateway_leases",
            "Leases that are over, by final state",
            ["state"],
            registry=self._registry,
        )
        self._queue_s = Histogram(
            "mars_gateway_queue_seconds", "Wait for a CPU slot", buckets=_SECONDS, registry=self._registry
        )
        self._run_s = Histogram(
            "mars_gateway_run_seconds",
            "Run time of commands that started",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._cpu_s = Counter("mars_gateway_cpu_seconds", "CPU time of commands", registry=self._registry)
        self._memory_peak = Histogram(
            "mars_gateway_memory_peak_bytes",
            "Largest resident set of commands, where it is above the gateway's own",
            buckets=_BYTES,
            registry=self._registry,
        )
        self._output = Counter("mars_gateway_output_bytes", "Written by commands", registry=self._registry)
        self._truncated = Counter(
            "mars_gateway_truncated_streams",
            "Streams of which only the beginning was kept",
            registry=self._registry,
        )
        self._refused = Counter(
            "mars_gateway_refused",
            "Requests answered with an error, by code",
            ["code"],
            registry=self._registry,
        )

    def watch(self, name: str, text: str, read: Callable[[], float | None]) -> None:
        """A gauge that is read when somebody asks. Unknown is NaN."""
        gauge = Gauge(f"mars_gateway_{name}", text, registry=self._registry)
        gauge.set_function(lambda: math.nan if (value := read()) is None else value)

    def refused(self, code: str) -> None:
        self._refused.labels(code).inc()

    def watch_hosts(self, hosts: Hosts) -> None:
        self._registry.register(_HostGauges(hosts))

    def queued(self, run: ToolRun) -> None:
        pass

    def started(self, run: ToolRun) -> None:
        pass

    def finished(self, run: ToolRun) -> None:
        ending = run.ending
        assert ending is not None
        if not isinstance(run, Exec):
            self._leases.labels(ending).inc()
            return
        assert run.ended_at_s is not None
        self._execs.labels(ending).inc()
        self._queue_s.observe(run.queue_s(run.ended_at_s))
        if (run_s := run.run_s(run.ended_at_s)) is not None:
            self._run_s.observe(run_s)
        self._cpu_s.inc(run.cpu_s or 0.0)
        if run.max_rss_mb is not None:
            self._memory_peak.observe(run.max_rss_mb * 1e6)
        for count in map(run.count, StreamName):
            self._output.inc(count.total_bytes)
            self._truncated.inc(count.total_bytes > count.kept_bytes)

    def exposition(self) -> bytes:
        return generate_latest(self._registry)


_HOST_GAUGES: tuple[tuple[str, str, Callable[[Host], float | None]], ...] = (
    ("up", "1 while the host answers", lambda host: not host.is_gone),
    ("draining", "1 while nothing new is started on it", lambda host: host.is_draining),
    ("sessions", "Sessions on the host", lambda host: host.session_count),
    ("slots", "CPU slots that the host has", lambda host: host.queue.slots),
    ("slots_used", "CPU slots taken", lambda host: host.queue.used),
    ("execs_running", "Commands and leases that hold slots", lambda host: host.queue.running),
    ("execs_queued", "Commands and leases that wait for slots", lambda host: host.queue.queued),
    ("memory_reserved_bytes", "Set aside for what runs", lambda host: host.queue.memory_reserved_mb * 1e6),
    ("memory_available_bytes", "Free or can be freed", lambda host: _bytes(_of(host, "memory_available_mb"))),
    ("cpu_pressure_ratio", "Share of the last 10 s in which some task waited for a core",
     lambda host: _of(host, "cpu_pressure")),
    ("memory_pressure_ratio", "Share of the last 10 s in which some task waited for memory",
     lambda host: _of(host, "memory_pressure")),
)  # fmt: skip


class _HostGauges:
    """Read when somebody asks. A host of which something is unknown has no sample of it."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    def describe(self) -> Iterable[GaugeMetricFamily]:
        return [self._family(name, text) for name, text, _ in _HOST_GAUGES]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for name, text, read in _HOST_GAUGES:
            family = self._family(name, text)
            for host in self._hosts:
                if (value := read(host)) is not None:
                    family.add_metric([host.name], float(value))
            yield family

    def _family(self, name: str, text: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"mars_gateway_host_{name}", text, labels=["host"])


def _of(host: Host, field: str) -> float | None:
    value: float | None = getattr(host.reading, field, None)
    return value


def _bytes(megabytes: float | None) -> float | None:
    return None if megabytes is None else megabytes * 1e6
