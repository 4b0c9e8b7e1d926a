"""The plots of the report with their words: title, what to see, description for a screen reader, numbers.

Decides what is drawn for a set of targets and what is said where nothing was recorded.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

from markupsafe import Markup

from loadgen.comparison_table import format_value
from loadgen.percentiles import percentile
from loadgen.records import GaugeSample, TurnRecord
from loadgen.report import plots
from loadgen.report.lanes import Lane, lanes
from loadgen.report.series import Series, gauge_series, sessions_in_progress, throughput
from loadgen.report.svg import render
from loadgen.report.targets import Target
from loadgen.summary import is_answered

TABLE_PERCENTS = (5, 10, 25, 50, 75, 90, 95, 99, 100)


@dataclass(frozen=True, slots=True)
class Plot:
    """One figure of the page; ``svg`` is None where there was nothing to draw."""

    ident: str
    title: str
    explanation: str
    svg: Markup | None
    rows: list[list[str]] = field(default_factory=list)
    """The numbers behind the plot, a header row first."""


@dataclass(frozen=True, slots=True)
class Gauge:
    ident: str
    title: str
    y_title: str
    explanation: str
    read: Callable[[GaugeSample], float | None]
    is_ratio: bool = False


GAUGES = (
    Gauge(
        "kv",
        "KV cache use",
        "share of the pool",
        "A pool that stays full has to evict what sessions will need again.",
        lambda sample: sample.kv_used_ratio,
        is_ratio=True,
    ),
    Gauge(
        "held",
        "Held sessions",
        "sessions",
        "Sessions the proxy keeps back until the server has room; a target without a proxy holds none.",
        lambda sample: sample.held_sessions,
    ),
    Gauge(
        "running",
        "Running requests",
        "requests",
        "Requests in the server's batch; more is better use, until KV cache runs out.",
        lambda sample: sample.running,
    ),
    Gauge(
        "waiting",
        "Waiting requests",
        "requests",
        "Requests queued inside the server, where no one can choose among them any more.",
        lambda sample: sample.waiting,
    ),
    Gauge(
        "tools-running",
        "Running tools",
        "commands",
        "Tool commands at work on the tool hosts.",
        lambda sample: sample.tools_running,
    ),
    Gauge(
        "tools-queued",
        "Queued tools",
        "commands",
        "Tool commands that wait for a slot; a standing queue means the tool hosts are the bottleneck.",
        lambda sample: sample.tools_queued,
    ),
)


def distributions(targets: Sequence[Target]) -> Iterator[Plot]:
    """Curves of what a session and a turn had to wait."""
    yield _cdf_plot(
        targets,
        "jct",
        "Job completion time",
        "Further left is better: the curve shows which share of the sessions was done within a time.",
        lambda target: [[one.jct_s for one in run.sessions if one.is_completed] for run in target.runs],
        is_log=False,
    )
    for ident, title, explanation, is_continuation in (
        (
            "ttft",
            "Time to first token, all turns",
            "What a user waits for at each turn, time held by a proxy included.",
            None,
        ),
        (
            "ttft-new",
            "Time to first token, new sessions",
            "The first turn computes its whole prompt, and is what a proxy holds back under load.",
            False,
        ),
        (
            "ttft-continuation",
            "Time to first token, continuations",
            "Quick where the KV cache is still warm; a long right tail is prompts computed again.",
            True,
        ),
    ):
        yield _cdf_plot(targets, ident, title, explanation, _ttfts(is_continuation), is_log=True)


def _ttfts(is_continuation: bool | None) -> Callable[[Target], list[list[float | None]]]:
    """TTFTs of each run: of continuations, of first turns, or (None) of both."""

    def of_class(turns: Sequence[TurnRecord]) -> list[float | None]:
        answered = filter(is_answered, turns)
        return [one.ttft_s for one in answered if is_continuation in (None, one.is_continuation)]

    return lambda target: [of_class(run.turns) for run in target.runs]


def _cdf_plot(
    targets: Sequence[Target],
    ident: str,
    title: str,
    explanation: str,
    measured: Callable[[Target], list[list[float | None]]],
    *,
    is_log: bool,
) -> Plot:
    curves = {
        target.index: [[value for value in run if value is not None] for run in measured(target)]
        for target in targets
    }
    if not any(chain.from_iterable(curves.values())):
        return Plot(ident, title, explanation, None)
    rows = _percentile_rows(targets, curves)
    spec = plots.cdf(curves, [target.name for target in targets], _axis_title(ident), is_log=is_log)
    description = f"{explanation} " + " ".join(_row_in_words(rows[0], row) for row in rows[1:])
    return Plot(ident, title, explanation, render(spec, ident, title, description), rows)


def _axis_title(ident: str) -> str:
    return "JCT (seconds)" if ident == "jct" else "TTFT (logarithmic)"


def _percentile_rows(targets: Sequence[Target], curves: plots.Curves) -> list[list[str]]:
    rows = [["target", "count", *(f"p{percent}" for percent in TABLE_PERCENTS)]]
    for target in targets:
        pooled = sorted(chain.from_iterable(curves[target.index]))
        values = [percentile(pooled, percent) if pooled else None for percent in TABLE_PERCENTS]
        rows.append([target.name, str(len(pooled)), *(format_value(value, "s") for value in values)])
    return rows


def _row_in_words(header: list[str], row: list[str]) -> str:
    said = ", ".join(f"{title} {value}" for title, value in zip(header[2:], row[2:], strict=True))
    return f"{row[0]}, {row[1]} values: {said}."


def courses(targets: Sequence[Target]) -> Iterator[Plot]:
    """What happened over time, one run per target."""
    explanation = "Turns answered per second; higher is better, and a shorter line ended sooner."
    series = {target.index: throughput(target.typical_run.turns) for target in targets}
    yield _course(targets, "throughput", "Throughput", "turns per second", explanation, series, is_step=True)
    series = {target.index: sessions_in_progress(target.typical_run.sessions) for target in targets}
    explanation = "Sessions that have arrived and are not done; a line that climbs is a backlog growing."
    yield _course(targets, "progress", "Sessions in progress", "sessions", explanation, series, is_step=True)
    for gauge in GAUGES:
        series = {target.index: gauge_series(target.typical_run.gauges, gauge.read) for target in targets}
        if gauge.ident.startswith("tools-") and not any(series.values()):
            continue
        yield _course(
            targets,
            gauge.ident,
            gauge.title,
            gauge.y_title,
            gauge.explanation,
            series,
            is_ratio=gauge.is_ratio,
        )


def _course(
    targets: Sequence[Target],
    ident: str,
    title: str,
    y_title: str,
    explanation: str,
    series: dict[int, Series],
    *,
    is_ratio: bool = False,
    is_step: bool = False,
) -> Plot:
    drawn = {index: points for index, points in series.items() if points}
    if not drawn:
        return Plot(ident, title, explanation, None)
    unit = "ratio" if is_ratio else "number"
    rows = [
        ["target", "least", "mean", "most"],
        *(_range_row(t, drawn, unit) for t in targets if t.index in drawn),
    ]
    said = " ".join(f"{name}: {least} to {most}, mean {mean}." for name, least, mean, most in rows[1:])
    spec = plots.over_time(drawn, y_title, is_ratio=is_ratio, is_step=is_step)
    return Plot(ident, title, explanation, render(spec, ident, title, f"{explanation} {said}"), rows)


def _range_row(target: Target, series: dict[int, Series], unit: str) -> list[str]:
    values = [value for _, value in series[target.index]]
    least, mean, most = min(values), sum(values) / len(values), max(values)
    return [target.name, *(_plain(value, unit) for value in (least, mean, most))]


def _plain(value: float, unit: str) -> str:
    return format_value(value, "ratio") if unit == "ratio" else f"{value:,.3g}"


def timelines(targets: Sequence[Target]) -> Iterator[Plot]:
    """A plot of lanes per target, all with the same length of time."""
    drawn = {target.index: lanes(target.typical_run.sessions, target.typical_run.turns) for target in targets}
    end_s = max((lane.ended_s for of_target in drawn.values() for lane in of_target), default=0.0)
    for target in targets:
        yield _timeline(target, drawn[target.index], end_s)


def _timeline(target: Target, drawn: list[Lane], end_s: float) -> Plot:
    ident, title = f"timeline-{target.index}", f"Sessions over time: {target.name}"
    total = len(target.typical_run.sessions)
    shown = (
        f"All {total} sessions" if len(drawn) == total else f"{len(drawn)} of {total} sessions, spread evenly"
    )
    explanation = f"{shown}, one lane each, the first to arrive on top."
    if not any(lane.segments for lane in drawn) or end_s <= 0:
        return Plot(ident, title, explanation, None)
    spent = ", ".join(
        f"{plots.STATE_TITLES[state]} {format_value(sum(lane.seconds(state) for lane in drawn), 's')}"
        for state in plots.STATE_TITLES
    )
    description = f"{explanation} Time in all lanes together: {spent}."
    return Plot(ident, title, explanation, render(plots.timeline(drawn, end_s), ident, title, description))
