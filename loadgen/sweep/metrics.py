"""The figures of a summary that a sweep tabulates and judges, with the way each is to be read."""

from loadgen.comparison import Metric

METRICS = (
    Metric("jct_s.mean", "mean JCT", "s"),
    Metric("jct_s.p95", "p95 JCT", "s"),
    Metric("jct_s.p99", "p99 JCT", "s"),
    Metric("jct_s.max", "longest JCT", "s"),
    Metric("goodput_alpha3", "goodput: sessions done within 3 times their ideal", "ratio", False),
    Metric("throughput_turns_per_s", "throughput, turns", "1/s", False),
    Metric("throughput_tokens_per_s", "throughput, output tokens", "1/s", False),
    Metric("continuation_hit_ratio", "prefix hits of continuations", "ratio", False),
    Metric("prefix_hit_ratio", "prefix hits of all turns", "ratio", False),
    Metric("preemptions", "preemptions", "count"),
    Metric("held_s.mean", "held by the proxy, mean per turn", "s", None),
    Metric("tool_queue_s.p95", "wait for a tool slot, p95", "s"),
    Metric("tool_memory_peak_mb", "most memory of tools at once", "MB"),
    Metric("failed", "sessions failed", "count", None),
)
"""Those that no cell of a workload knows are left out of its tables."""


def metric_named(key: str) -> Metric:
    return next(metric for metric in METRICS if metric.key == key)
