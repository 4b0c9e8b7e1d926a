"""What a gateway reported, in base units; what it did not report is NaN."""

import math

from prometheus_client import CollectorRegistry

from marsproxy.core.events import ToolHostsObserved, ToolObserved, ToolPhase
from marsproxy.core.tool_joins import JoinedBy
from marsproxy.tool_metrics import ToolMetrics


def test_hosts_in_base_units() -> None:
    registry = CollectorRegistry()
    metrics = ToolMetrics(registry)
    metrics.set_hosts(
        ToolHostsObserved(memory_available_mb=2, memory_total_mb=3, cpu_pressure=0.25, queue_wait_s=1.5)
    )
    assert registry.get_sample_value("mars_tools_memory_bytes", {"what": "available"}) == 2e6
    assert registry.get_sample_value("mars_tools_memory_bytes", {"what": "total"}) == 3e6
    assert registry.get_sample_value("mars_tools_pressure_ratio", {"resource": "cpu"}) == 0.25
    assert registry.get_sample_value("mars_tools_queue_wait_seconds") == 1.5
    unknown = registry.get_sample_value("mars_tools_pressure_ratio", {"resource": "memory"})
    assert unknown is not None
    assert math.isnan(unknown)


def test_only_ends_are_counted() -> None:
    """And only what is known of them."""
    registry = CollectorRegistry()
    metrics = ToolMetrics(registry)
    for phase in ToolPhase:
        metrics.observed(ToolObserved("e", phase, "g", run_s=2.0, memory_peak_mb=100.0))
    metrics.observed(ToolObserved("f", ToolPhase.FINISHED, "g"))
    assert registry.get_sample_value("mars_tool_run_seconds_count") == 1
    assert registry.get_sample_value("mars_tool_memory_peak_bytes_sum") == 100e6


def test_runs_are_counted_by_what_joined_them() -> None:
    registry = CollectorRegistry()
    metrics = ToolMetrics(registry)
    for by in (JoinedBy.CALL_ID, JoinedBy.CALL_ID, JoinedBy.COMMAND, None):
        metrics.joined(by)
    counts = {"session_id": 0, "call_id": 2, "command": 1, "none": 1}
    for by, count in counts.items():
        assert registry.get_sample_value("mars_tool_joins_total", {"by": by}) == count
