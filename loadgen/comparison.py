"""Compares targets that ran the same workload, each once or several times.

A run is the unit: sessions inside one run wait for each other, so they are not independent measurements
and only whole runs are resampled. Every single value is kept beside its median. Pure but for reading
``summary.json``; says nothing in words or colours.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np

from loadgen.run_files import read_summary

MIN_REPEATS_FOR_INTERVAL = 3
"""With two repeats an interval would only restate them."""

BOOTSTRAP_RESAMPLES = 2000
BOOTSTRAP_SEED = 1
"""Fixed: the same runs give the same interval."""

COMPARABLE_SETTINGS = ("workload", "hardware", "sessions", "rate", "concurrency", "tools", "kv_tokens")
"""What must agree between runs for their figures to be comparable; seeds may differ between repeats."""


class Metric(msgspec.Struct, frozen=True):
    """A figure of ``summary.json`` and how to read it."""

    key: str
    """Path in the summary, dotted."""
    title: str
    unit: str
    """``s``, ``1/s``, ``ratio`` or ``count``."""
    is_lower_better: bool | None = True
    """None: neither; the figure explains, it does not judge."""


METRICS = (
    *(Metric(f"jct_s.{part}", f"JCT {part}", "s") for part in ("mean", "p50", "p95", "p99")),
    *(Metric(f"ttft_s.{part}", f"TTFT {part}", "s") for part in ("mean", "p50", "p95", "p99")),
    *(Metric(f"ttft_new_s.{part}", f"TTFT new {part}", "s") for part in ("mean", "p50", "p95", "p99")),
    *(
        Metric(f"ttft_continuation_s.{part}", f"TTFT continuation {part}", "s")
        for part in ("mean", "p50", "p95", "p99")
    ),
    *(Metric(f"held_s.{part}", f"held {part}", "s", None) for part in ("mean", "p50", "p95", "p99")),
    *(Metric(f"tool_queue_s.{part}", f"tool queue {part}", "s") for part in ("mean", "p50", "p95", "p99")),
    Metric("makespan_s", "makespan", "s"),
    Metric("throughput_turns_per_s", "turns per second", "1/s", False),
    Metric("throughput_tokens_per_s", "output tokens per second", "1/s", False),
    Metric("goodput_alpha3", "sessions within 3x of their ideal", "ratio", False),
    Metric("prefix_hit_ratio", "prefix hit ratio", "ratio", False),
    Metric("continuation_hit_ratio", "continuation hit ratio", "ratio", False),
    Metric("preemptions", "preemptions", "count"),
    Metric("completed", "sessions completed", "count", None),
    Metric("failed", "sessions failed", "count", None),
)


class Estimate(msgspec.Struct, frozen=True):
    """One metric of one target over its repeats, and against the baseline."""

    values: list[float | None]
    """One per run, in the order given."""
    median: float | None = None
    ratio: float | None = None
    """Median over the baseline's median; None for the baseline itself and where either is unknown or 0."""
    ratio_interval95: tuple[float, float] | None = None
    """Percentile bootstrap over runs; None below three repeats on either side."""
    times_better: float | None = None
    """The ratio as a factor above 1 where the target is better, below 1 where it is worse."""
    times_better_interval95: tuple[float, float] | None = None


def compare_runs(groups: Mapping[str, Sequence[Path]]) -> dict[str, Any]:
    """Medians, ratios to the first group and all single values; ready for JSON.

    ``groups`` maps a target's name to the directories of its repeats; the first is the baseline.
    """
    return compare_summaries(
        {name: [read_summary(path) for path in run_dirs] for name, run_dirs in groups.items()}
    )


def compare_summaries(groups: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """``compare_runs`` on summaries that are in memory already."""
    if not groups or not all(groups.values()):
        raise ValueError("a comparison needs at least one run of every target")
    baseline = next(iter(groups))
    metrics = {metric.key: _estimates(metric, groups, baseline) for metric in METRICS}
    return {
        "baseline": baseline,
        "repeats": {name: len(summaries) for name, summaries in groups.items()},
        "metrics": msgspec.to_builtins(metrics),
        "caveats": caveats(groups),
    }


def figure(summary: Mapping[str, Any], key: str) -> float | None:
    """The number at a dotted path of a summary; None if it is not there or not known."""
    value: Any = summary
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _estimates(
    metric: Metric, groups: Mapping[str, Sequence[Mapping[str, Any]]], baseline: str
) -> dict[str, Estimate]:
    values = {name: [figure(one, metric.key) for one in summaries] for name, summaries in groups.items()}
    return {
        name: _estimate(metric, of_target, None if name == baseline else values[baseline])
        for name, of_target in values.items()
    }


def _estimate(metric: Metric, values: list[float | None], baseline: list[float | None] | None) -> Estimate:
    known = _known(values)
    middle = median(known) if known else None
    reference = _known(baseline or [])
    if middle is None or not reference or middle <= 0 or median(reference) <= 0:
        return Estimate(values, middle)
    ratio = middle / median(reference)
    interval = _interval95(known, reference)
    return Estimate(values, middle, ratio, interval, *_as_factor(metric, ratio, interval))


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _as_factor(
    metric: Metric, ratio: float, interval: tuple[float, float] | None
) -> tuple[float | None, tuple[float, float] | None]:
    if metric.is_lower_better is None:
        return None, None
    if not metric.is_lower_better:
        return ratio, interval
    return 1 / ratio, None if interval is None else (1 / interval[1], 1 / interval[0])


def _interval95(values: list[float], reference: list[float]) -> tuple[float, float] | None:
    if min(len(values), len(reference)) < MIN_REPEATS_FOR_INTERVAL or min(values + reference) <= 0:
        return None
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    ratios = _resampled_medians(values, rng) / _resampled_medians(reference, rng)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(low), float(high)


def _resampled_medians(
    values: list[float], rng: np.random.Generator
) -> np.ndarray[Any, np.dtype[np.float64]]:
    draws = rng.choice(np.asarray(values, dtype=np.float64), size=(BOOTSTRAP_RESAMPLES, len(values)))
    return np.asarray(np.median(draws, axis=1), dtype=np.float64)


def caveats(groups: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Reasons not to take the comparison at face value, in words."""
    return [*_different_settings(groups), *_different_seeds(groups), *_lost_sessions(groups)]


def _different_settings(groups: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    found = []
    for setting in COMPARABLE_SETTINGS:
        values = {str(one.get(setting)) for summaries in groups.values() for one in summaries}
        if len(values) > 1:
            found.append(f"The runs differ in {setting}: {', '.join(sorted(values))}.")
    return found


def _different_seeds(groups: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    seeds = {name: sorted(str(one.get("seed")) for one in summaries) for name, summaries in groups.items()}
    if len({tuple(of_target) for of_target in seeds.values()}) <= 1:
        return []
    listed = "; ".join(f"{name}: {', '.join(of_target)}" for name, of_target in seeds.items())
    return [f"The targets did not get the same seeds ({listed}), so not the same sessions."]


def _lost_sessions(groups: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    found = []
    for name, summaries in groups.items():
        planned = sum(figure(one, "sessions") or 0 for one in summaries)
        lost = planned - sum(figure(one, "completed") or 0 for one in summaries)
        if lost:
            found.append(
                f"{lost:.0f} of {planned:.0f} sessions did not complete with {name}; "
                "the times are those of the sessions that did."
            )
    return found
