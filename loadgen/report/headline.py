"""Says in plain words what was run and what came out, before any figure.

Claims no more than the runs carry: names failures, single runs, and repeats that do not tell the targets
apart. Takes figures as they are; computes none.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from loadgen.comparison import figure
from loadgen.comparison_table import NEGLIGIBLE, format_value
from loadgen.report.targets import Target

YARDSTICK = "jct_s.mean"

LATE_SHARE = 0.1
"""A client whose delay (p99) reaches this share of the median TTFT has distorted what it measured."""


MAX_NAMED = 3
"""More targets than this are not compared one by one in a sentence."""


def default_title(targets: Sequence[Target]) -> str:
    if len(targets) > MAX_NAMED:
        return f"{len(targets)} targets compared"
    return " against ".join(target.name for target in reversed(targets))


def headline(targets: Sequence[Target], comparison: Mapping[str, Any]) -> str:
    """The result in one sentence."""
    estimates = comparison["metrics"][YARDSTICK]
    if all(estimate["median"] is None for estimate in estimates.values()):
        return "No session completed, so there is no job completion time to report."
    if len(targets) == 1:
        return _alone(targets[0], estimates[targets[0].name])
    baseline = comparison["baseline"]
    if estimates[baseline]["median"] is None:
        return f"No session completed with {baseline}, so there is nothing to compare the others to."
    if len(targets) > MAX_NAMED:
        return _fastest(estimates, baseline) + _losses(targets)
    others = [_against(name, estimates, baseline) for name in estimates if name != baseline]
    return ". ".join(others) + "." + _losses(targets)


def _alone(target: Target, estimate: Mapping[str, Any]) -> str:
    middle = format_value(estimate["median"], "s")
    how = "" if len(target.runs) == 1 else f" (median of {len(target.runs)} runs)"
    return f"A session took {middle} on average with {target.name}{how}."


def _fastest(estimates: Mapping[str, Any], baseline: str) -> str:
    means = {name: one["median"] for name, one in estimates.items() if one["median"] is not None}
    best = min(means, key=lambda name: means[name])
    if best == baseline:
        took = format_value(means[best], "s")
        return f"Of {len(estimates)} targets, {best} finished sessions soonest ({took} on average)."
    return f"Of {len(estimates)} targets, {best} was the fastest. {_against(best, estimates, baseline)}."


def _against(name: str, estimates: Mapping[str, Any], baseline: str) -> str:
    estimate = estimates[name]
    factor = estimate["times_better"]
    if factor is None:
        return f"No session completed with {name}"
    times = (
        f"{format_value(estimate['median'], 's')} against {format_value(estimates[baseline]['median'], 's')}"
    )
    if not _is_told_apart(estimate):
        return f"Within the spread of the runs, {name} and {baseline} took as long ({times} on average)"
    if abs(factor - 1) < NEGLIGIBLE:
        return f"Sessions took as long with {name} as with {baseline} ({times} on average)"
    how = f"{factor:.2f} times faster" if factor > 1 else f"{1 / factor:.2f} times slower"
    return f"Sessions finished {how} with {name} than with {baseline} ({times} on average)"


def _losses(targets: Sequence[Target]) -> str:
    """Belongs beside the factor: who drops its slow sessions looks fast."""
    lost = {target.name: _total(target, "sessions") - _total(target, "completed") for target in targets}
    said = [f"{count:.0f} with {name}" for name, count in lost.items() if count]
    return f" Sessions that did not complete: {', '.join(said)}." if said else ""


def _is_told_apart(estimate: Mapping[str, Any]) -> bool:
    """False only where the repeats give an interval and no difference lies within it."""
    interval = estimate["ratio_interval95"]
    return interval is None or not interval[0] <= 1 <= interval[1]


def setting(targets: Sequence[Target]) -> str:
    """What was run, on what, how often."""
    summaries = [run.summary for target in targets for run in target.runs]
    sessions = _agreed(summaries, "sessions")
    what = f"{sessions} sessions" if sessions else "Sessions"
    workload, hardware = _agreed(summaries, "workload"), _agreed(summaries, "hardware")
    what += f" of the workload {workload}" if workload else ""
    what += f" on {hardware}" if hardware else ""
    return f"{what}. {_repeats(targets)}"


def _agreed(summaries: Sequence[Mapping[str, Any]], key: str) -> str | None:
    values = {str(value) for one in summaries if (value := one.get(key)) not in (None, 0)}
    return values.pop() if len(values) == 1 else None


def _repeats(targets: Sequence[Target]) -> str:
    counts = {len(target.runs) for target in targets}
    if counts == {1}:
        which = "One run" if len(targets) == 1 else "One run of each target"
        return f"{which}: nothing is known of the spread between runs."
    if len(counts) == 1:
        return f"{counts.pop()} runs of each target; figures are medians over the runs."
    listed = ", ".join(f"{target.name} {len(target.runs)}" for target in targets)
    return f"Unequal numbers of runs ({listed}); figures are medians over the runs."


def completion(targets: Sequence[Target]) -> str:
    """How many sessions completed and failed; target by target where not all did."""
    sessions = sum(_total(target, "sessions") for target in targets)
    if sessions and sessions == sum(_total(target, "completed") for target in targets):
        return f"All {sessions:,.0f} sessions completed."
    said = "; ".join(_completion(target) for target in targets)
    return f"{said}. Times are of completed sessions and answered turns only."


def _completion(target: Target) -> str:
    sessions, completed, failed = (_total(target, key) for key in ("sessions", "completed", "failed"))
    lost = f", {failed:.0f} failed" if failed else ""
    rest = sessions - completed - failed
    lost += f", {rest:.0f} did not finish" if rest > 0 else ""
    return f"{target.name}: {completed:.0f} of {sessions:.0f} sessions completed{lost}"


def _total(target: Target, key: str) -> float:
    return sum(figure(run.summary, key) or 0 for run in target.runs)


def client_delay(target: Target) -> str:
    """Whether the load generator itself was in the way."""
    lags = [one for run in target.runs if (one := figure(run.summary, "loop_lag_s.p99")) is not None]
    worst = [one for run in target.runs if (one := figure(run.summary, "loop_lag_s.max")) is not None]
    if not lags or not any(worst):
        return f"{target.name}: no delay of the driver's event loop was recorded; a simulated run has none."
    said = (
        f"{target.name}: the driver's event loop was late by at most {max(worst) * 1000:,.1f} ms, "
        f"and by {max(lags) * 1000:,.1f} ms at p99."
    )
    medians = [one for run in target.runs if (one := figure(run.summary, "ttft_s.p50")) is not None]
    if medians and max(lags) > LATE_SHARE * min(medians):
        return f"{said} That is more than a tenth of the median TTFT: the client distorted what it measured."
    return f"{said} That is small against the TTFTs measured."
