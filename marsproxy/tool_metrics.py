"""Metrics of the tool hosts, as a gateway reported them.

Owns names and buckets; the same rules as in ``marsproxy.metrics``: base units, unknown is NaN, no label
that anybody else chooses (so none for the tool: its name comes from a command).
"""

import math

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from marsproxy.core.events import ToolHostsObserved, ToolObserved, ToolPhase
from marsproxy.core.tool_joins import JoinedBy

RUN_BUCKETS_S = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)
MEGABYTE = 1e6
MEMORY_BUCKETS_BYTES = tuple(
    size * MEGABYTE for size in (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
)


class ToolMetrics:
    """Hosts as last reported, and the commands that ended."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._running = Gauge("mars_tools_running", "Tool commands running", registry=registry)
        self._queued = Gauge("mars_tools_queued", "Tool commands waiting for a slot", registry=registry)
        self._wait_s = Gauge(
            "mars_tools_queue_wait_seconds", "Wait for a slot, smoothed by the gateway", registry=registry
        )
        memory = Gauge("mars_tools_memory_bytes", "Memory of the tool hosts", ["what"], registry=registry)
        self._memory_available, self._memory_total = (memory.labels(what) for what in ("available", "total"))
        pressure = Gauge(
            "mars_tools_pressure_ratio",
            "Share of the last 10 s in which some task waited for the resource",
            ["resource"],
            registry=registry,
        )
        self._cpu_pressure, self._memory_pressure = (pressure.labels(each) for each in ("cpu", "memory"))
        self._run_s = Histogram(
            "mars_tool_run_seconds",
            "Run time of tool commands that ended",
            buckets=RUN_BUCKETS_S,
            registry=registry,
        )
        self._memory_peak = Histogram(
            "mars_tool_memory_peak_bytes",
            "Largest resident set of tool commands, where it is known",
            buckets=MEMORY_BUCKETS_BYTES,
            registry=registry,
        )
        started = Counter(
            "mars_tool_joins",
            "Tool commands that started, by what joined them to a session",
            ["by"],
            registry=registry,
        )
        self._unjoined = started.labels("none")
        self._joined = {by: started.labels(by.value) for by in JoinedBy}
        self.set_hosts(ToolHostsObserved())

    def set_hosts(self, hosts: ToolHostsObserved) -> None:
        self._running.set(_number(hosts.running))
        self._queued.set(_number(hosts.queued))
        self._wait_s.set(_number(hosts.queue_wait_s))
        self._memory_available.set(_number(hosts.memory_available_mb) * MEGABYTE)
        self._memory_total.set(_number(hosts.memory_total_mb) * MEGABYTE)
        self._cpu_pressure.set(_number(hosts.cpu_pressure))
        self._memory_pressure.set(_number(hosts.memory_pressure))

    def observed(self, event: ToolObserved) -> None:
        """A gateway may report a step twice: then it counts twice."""
        if event.phase is not ToolPhase.FINISHED:
            return
        if event.run_s is not None:
            self._run_s.observe(event.run_s)
        if event.memory_peak_mb is not None:
            self._memory_peak.observe(event.memory_peak_mb * MEGABYTE)

    def joined(self, by: JoinedBy | None) -> None:
        """A command started; None: it is no session's that waits for one."""
        (self._unjoined if by is None else self._joined[by]).inc()


def _number(value: float | None) -> float:
    return math.nan if value is None else value
