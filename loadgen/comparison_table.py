"""Draws a comparison in the terminal. Decides how figures look in text, never what they are."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from loadgen.comparison import METRICS, Metric

UNKNOWN = "–"

NEGLIGIBLE = 0.005
"""A factor this close to 1 prints as 1.00."""

TERMINAL_METRICS = (
    "completed",
    "failed",
    "jct_s.mean",
    "jct_s.p50",
    "jct_s.p95",
    "jct_s.p99",
    "ttft_s.mean",
    "ttft_new_s.p50",
    "ttft_continuation_s.p50",
    "ttft_continuation_s.p95",
    "held_s.mean",
    "tool_queue_s.mean",
    "throughput_turns_per_s",
    "throughput_tokens_per_s",
    "goodput_alpha3",
    "continuation_hit_ratio",
    "preemptions",
)
"""What fits a terminal window; the report has the rest."""


def render_table(comparison: Mapping[str, Any]) -> Table:
    """A rich table of medians, single values and factors against the baseline; what nobody knows is left
    out."""
    repeats: Mapping[str, int] = comparison["repeats"]
    baseline: str = comparison["baseline"]
    # Text, not str: a target's name is not ours and may look like rich markup
    caption = Text("\n".join(comparison["caveats"]), style="italic")
    table = Table(title=_title(repeats), caption=caption or None, caption_justify="left")
    table.add_column("", no_wrap=True)
    for name in repeats:
        table.add_column(Text(name), justify="right")
        if name != baseline:
            table.add_column(Text(f"against {baseline}"), justify="right")
    for metric in (metric for metric in METRICS if metric.key in TERMINAL_METRICS):
        estimates = comparison["metrics"][metric.key]
        if any(estimate["median"] is not None for estimate in estimates.values()):
            table.add_row(metric.title, *map(Text, _cells(metric, estimates, baseline)))
    return table


def format_value(value: float | None, unit: str) -> str:
    """Three significant digits and the unit; the same everywhere a figure is printed."""
    if value is None:
        return UNKNOWN
    match unit:
        case "count":
            return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"
        case "ratio":
            return f"{value * 100:.1f} %"
        case "1/s":
            return f"{_three_digits(value)} /s"
        case _:
            return f"{_three_digits(value)} {unit}"


def _three_digits(value: float) -> str:
    decimals = next((places for least, places in ((100, 0), (10, 1), (1, 2), (0.01, 3)) if value >= least), 4)
    return f"{value:,.{decimals}f}" if value else "0"


def format_factor(times_better: float | None) -> str:
    """``1.42× better``; worse is named as such, not left to a number below one."""
    if times_better is None:
        return ""
    if abs(times_better - 1) < NEGLIGIBLE:
        return "same"
    return f"{_factor(times_better)} better" if times_better > 1 else f"{_factor(1 / times_better)} worse"


def _factor(factor: float) -> str:
    return f"{factor:.2f}×" if factor < 10 else f"{factor:,.0f}×"


def _title(repeats: Mapping[str, int]) -> str:
    counts = set(repeats.values())
    if counts == {1}:
        return "one run of each target"
    if len(counts) == 1:
        return f"medians of {counts.pop()} runs of each target; single values in brackets"
    listed = ", ".join(f"{name} {count}" for name, count in repeats.items())
    return f"medians of several runs ({listed}); single values in brackets"


def _cells(metric: Metric, estimates: Mapping[str, Any], baseline: str) -> list[str]:
    cells = []
    for name, estimate in estimates.items():
        cells.append(_value_cell(metric, estimate))
        if name != baseline:
            cells.append(_factor_cell(estimate))
    return cells


def _value_cell(metric: Metric, estimate: Mapping[str, Any]) -> str:
    middle = format_value(estimate["median"], metric.unit)
    if len(estimate["values"]) == 1:
        return middle
    singles = " ".join(format_value(value, metric.unit).split(" ")[0] for value in estimate["values"])
    return f"{middle} ({singles})"


def _factor_cell(estimate: Mapping[str, Any]) -> str:
    interval = format_interval(estimate)
    return format_factor(estimate["times_better"]) + (f" [{interval}]" if interval else "")


def format_interval(estimate: Mapping[str, Any]) -> str:
    """The 95 % interval of the factor that ``format_factor`` shows, in the same direction."""
    interval, factor = estimate["times_better_interval95"], estimate["times_better"]
    if interval is None or factor is None:
        return ""
    low, high = interval if factor >= 1 else (1 / interval[1], 1 / interval[0])
    return f"{low:.2f} to {high:.2f}"
