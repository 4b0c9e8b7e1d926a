"""Puts the report together: reads runs, compares them, fills the template, writes the file.

Everything that comes from a run is text to be escaped: session ids, labels and errors are whatever a
client or a server said. The template escapes by default; the only markup let through is our own renderer's.
"""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
from jinja2 import Environment, FunctionLoader, StrictUndefined

from loadgen.comparison import METRICS, Metric, compare_summaries, figure
from loadgen.comparison_table import format_factor, format_interval, format_value
from loadgen.report import headline, plots
from loadgen.report.courses import courses
from loadgen.report.figures import distributions, timelines
from loadgen.report.targets import Target, group_by_target
from loadgen.run_files import Run, read_run
from loadgen.summary import META_KEYS, summarise

DISTRIBUTION_TITLES = {
    "jct_s": "Job completion time (JCT)",
    "ttft_s": "Time to first token (TTFT), all turns",
    "ttft_new_s": "TTFT, first turns of sessions",
    "ttft_continuation_s": "TTFT, continuations",
    "held_s": "Held by the proxy, per turn",
    "tool_queue_s": "Wait for a tool slot, per tool call",
}
PARTS = ("mean", "p50", "p95", "p99")

UNPROVEN = 0.05
"""Too few repeats for an interval: differences below this share are not coloured as better or worse."""

UNKNOWN_SETTING = "not recorded"


def write_report(run_dirs: Sequence[Path], out_path: Path, title: str | None = None) -> None:
    """Write the report on these runs, and its comparison as JSON beside it (``out_path`` with ``.json``).

    Runs of the same target under the same settings count as its repeats; the target of the first
    directory is what the others are compared to. Raises ``RunFilesError`` for a directory without a run.
    """
    targets = group_by_target(read_run(path) for path in run_dirs)
    if not targets:
        raise ValueError("a report needs at least one run")
    comparison = compare_summaries({t.name: [run.summary for run in t.runs] for t in targets})
    out_path.parent.mkdir(parents=True, exist_ok=True)
    out_path.write_text(render_page(targets, comparison, title), encoding="utf-8")
    encoded = msgspec.json.format(msgspec.json.encode(comparison), indent=2)
    out_path.with_suffix(".json").write_bytes(encoded)


def render_page(targets: Sequence[Target], comparison: Mapping[str, Any], title: str | None) -> str:
    """The HTML of the report."""
    environment = Environment(
        loader=FunctionLoader(_resource),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        title=title or headline.default_title(targets),
        headline=headline.headline(targets, comparison),
        setting=headline.setting(targets),
        completion=headline.completion(targets),
        client_delay=[headline.client_delay(target) for target in targets],
        caveats=[*comparison["caveats"], *_run_notes(targets)],
        targets=targets,
        colours=plots.TARGET_COLOURS,
        dash_array=lambda index: " ".join(map(str, plots.dash(index))),
        states=plots.STATE_TITLES,
        parts=PARTS,
        distribution_rows=_distribution_rows(comparison),
        scalar_rows=_scalar_rows(comparison),
        distributions=list(distributions(targets)),
        courses=list(courses(targets)),
        timelines=list(timelines(targets)),
        settings=_settings(targets),
        runs=[_run_row(target, run) for target in targets for run in target.runs],
        baseline=comparison["baseline"],
    )


def _run_notes(targets: Sequence[Target]) -> list[str]:
    runs = (run for target in targets for run in target.runs if run.notes)
    return [f"{run.path.name}: {'; '.join(run.notes)}." for run in runs]


def _resource(name: str) -> str:
    return files("loadgen.report").joinpath(name).read_text(encoding="utf-8")


def _distribution_rows(comparison: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per distribution and target: its four figures and the factor between the means."""
    metrics = {metric.key: metric for metric in METRICS}
    return [
        {
            "title": title,
            "target": name,
            "is_first": position == 0,
            "cells": [_cell(metrics[f"{key}.{part}"], comparison, name) for part in PARTS],
        }
        for key, title in DISTRIBUTION_TITLES.items()
        for position, name in enumerate(comparison["repeats"])
    ]


def _scalar_rows(comparison: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "title": metric.title,
            "cells": [_cell(metric, comparison, name) for name in comparison["repeats"]],
        }
        for metric in METRICS
        if "." not in metric.key
    ]


def _cell(metric: Metric, comparison: Mapping[str, Any], target: str) -> dict[str, Any]:
    estimate = comparison["metrics"][metric.key][target]
    known = [value for value in estimate["values"] if value is not None]
    return {
        "key": metric.key,
        "value": estimate["median"],
        "shown": format_value(estimate["median"], metric.unit),
        "range": _range(known, metric.unit) if len(estimate["values"]) > 1 and known else None,
        "factor": format_factor(estimate["times_better"]),
        "verdict": _verdict(estimate),
        "interval": format_interval(estimate),
    }


def _verdict(estimate: Mapping[str, Any]) -> str:
    """``better``, ``worse`` or, within the spread of the repeats, nothing."""
    factor, interval = estimate["times_better"], estimate["times_better_interval95"]
    if factor is None:
        return ""
    low, high = interval or (factor * (1 - UNPROVEN), factor * (1 + UNPROVEN))
    return "better" if low > 1 else "worse" if high < 1 else ""


def _range(known: Sequence[float], unit: str) -> str | None:
    """Least and greatest of the repeats, where they differ in print."""
    least, most = (format_value(value, unit) for value in (min(known), max(known)))
    return None if least == most else f"{least.split(' ')[0]} to {most}"


def _settings(targets: Sequence[Target]) -> list[tuple[str, list[str]]]:
    """What the drivers recorded beside the figures: per setting, a value for each target."""
    measured = summarise((), (), {}).keys() - set(META_KEYS) | {"preemptions", "label"}
    flat = [[_flatten(run.summary, measured) for run in target.runs] for target in targets]
    keys = dict.fromkeys([*META_KEYS, *(key for runs in flat for run in runs for key in run)])
    return [(key, [_values(runs, key) for runs in flat]) for key in keys if key not in measured]


def _flatten(settings: Mapping[str, Any], left_out: set[str], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in settings.items():
        if prefix + key in left_out or value is None:
            continue
        if isinstance(value, Mapping):
            flat |= _flatten(value, left_out, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return flat


def _values(runs: Sequence[Mapping[str, str]], key: str) -> str:
    return ", ".join(dict.fromkeys(run.get(key, UNKNOWN_SETTING) for run in runs))


def _run_row(target: Target, run: Run) -> dict[str, Any]:
    return {
        "directory": run.path.name,
        "target": target,
        "is_drawn": run is target.typical_run,
        "seed": run.summary.get("seed", None),
        "completed": format_value(figure(run.summary, "completed"), "count"),
        "failed": format_value(figure(run.summary, "failed"), "count"),
        "jct_mean": format_value(figure(run.summary, "jct_s.mean"), "s"),
    }
