"""Counts for Prometheus: a listener of the commands and a reader of the tables.

Owns names and units (prefix ``mars_gateway_``, base units). No label is chosen by a caller.
"""

import math
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from gateway.exec_record import Exec

_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)
_BYTES = tuple(megabytes * 1e6 for megabytes in (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768))


class Metrics:
    """One registry per gateway, so that several can live in one process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._execs = Counter(
            "mars_gateway_execs", "Commands that are over, by final state", ["state"], registry=self._registry
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

    def queued(self, record: Exec) -> None:
        pass

    def started(self, record: Exec) -> None:
        pass

    def finished(self, record: Exec) -> None:
        assert record.ended_at_s is not None
        self._execs.labels(record.state.value).inc()
        self._queue_s.observe(record.queue_s(record.ended_at_s))
        if (run_s := record.run_s(record.ended_at_s)) is not None:
            self._run_s.observe(run_s)
        self._cpu_s.inc(record.cpu_s or 0.0)
        if record.max_rss_mb is not None:
            self._memory_peak.observe(record.max_rss_mb * 1e6)
        for spool in {record.stdout, record.stderr}:
            self._output.inc(spool.total_bytes)
            self._truncated.inc(spool.is_truncated)

    def exposition(self) -> bytes:
        return generate_latest(self._registry)
