"""The Vega-Lite specifications of the report's plots: data in, specification out.

Owns axes, marks and their units. Colours are CSS variables of the page's style sheet and the class names
on the marks (``target_0_...``; Vega allows no dash) are what its switches hide. Knows no files, no HTML.
"""

from collections.abc import Sequence
from typing import Any

from loadgen.comparison_table import format_value
from loadgen.percentiles import PERCENTS, cumulative_shares, percentile
from loadgen.report.lanes import STATES, Lane
from loadgen.report.series import Series

Spec = dict[str, Any]

PLOT_WIDTH = 480
PLOT_HEIGHT = 230
TIMELINE_WIDTH = 1000
LANE_HEIGHT = 9

MAX_CDF_POINTS = 300
MAX_CDF_POINTS_IN_ALL = 6_000
MIN_CDF_POINTS = 40
"""A curve gets fewer points the more runs share the plot, never fewer than show its shape."""

SHORTEST_TTFT_S = 0.001
"""A logarithmic axis has no zero; shorter waits are drawn here."""

TARGET_COLOURS = 6
"""Colours in the style sheet; the seventh target starts over with another dash."""

DASHES: tuple[list[int], ...] = ([1, 0], [7, 3], [2, 2], [9, 3, 2, 3], [4, 4], [12, 4])
"""Targets differ in dash as well as in colour, for readers and printers without colours."""

STATE_TITLES = {
    "held": "held by the proxy",
    "prefill": "waits for its first token",
    "generate": "generates",
    "queued": "waits for a tool slot",
    "tool": "runs a tool",
}

Curves = dict[int, list[list[float]]]
"""Measured values of each run, by index of its target."""


def colour(index: int) -> str:
    return f"var(--target-{index % TARGET_COLOURS})"


def dash(index: int) -> list[int]:
    return DASHES[(index + index // TARGET_COLOURS) % len(DASHES)]


def cdf(curves: Curves, names: Sequence[str], x_title: str, *, is_log: bool) -> Spec:
    """Share of values at or below x; one step curve per run, with its percentiles marked."""
    floor = SHORTEST_TTFT_S if is_log else 0.0
    drawn = {
        index: [[max(value, floor) for value in run] for run in runs if run] for index, runs in curves.items()
    }
    largest = max((max(run) for runs in drawn.values() for run in runs), default=1.0)
    smallest = min((min(run) for runs in drawn.values() for run in runs), default=floor)
    x = log_seconds(x_title, smallest, largest) if is_log else linear(x_title)
    y = linear("share of all") | {"axis": {"format": "%", "title": "share at or below", "tickCount": 5}}
    count = sum(map(len, drawn.values()))
    max_points = max(MIN_CDF_POINTS, min(MAX_CDF_POINTS, MAX_CDF_POINTS_IN_ALL // max(count, 1)))
    layers = [
        layer for index, runs in drawn.items() for layer in _cdf_layers(index, names[index], runs, max_points)
    ]
    return plot(layers, x, y | {"scale": {"domain": [0, 1]}})


def _cdf_layers(index: int, name: str, runs: list[list[float]], max_points: int) -> list[Spec]:
    curve = [
        {"x": x, "y": y, "run": number}
        for number, run in enumerate(runs)
        for x, y in [(min(run), 0.0), *cumulative_shares(run, max_points)]
    ]
    marks = [
        {"x": value, "y": percent / 100, "tip": f"{name}: p{percent} = {format_value(value, 's')}"}
        for run in map(sorted, runs)
        for percent in PERCENTS
        for value in [percentile(run, percent)]
    ]
    line = {"type": "line", "interpolate": "step-after", **stroke(index)}
    return [
        {"name": f"target_{index}_line", "data": {"values": curve}, "mark": line, "encoding": detail("run")},
        {
            "name": f"target_{index}_tip",
            "data": {"values": marks},
            "mark": {"type": "point", "filled": True, "size": 36, "opacity": 1, "color": colour(index)},
            "encoding": {"description": {"field": "tip"}},
        },
    ]


def over_time(
    series: dict[int, Series], y_title: str, end_s: float, *, is_ratio: bool = False, is_step: bool = False
) -> Spec:
    """One line per target over the time of its run; ``end_s`` is the right edge."""
    layers: list[Spec] = [
        {
            "name": f"target_{index}_line",
            "data": {"values": [{"x": at_s, "y": value} for at_s, value in points]},
            "mark": {
                "type": "line",
                "interpolate": "step-after" if is_step else "linear",
                **stroke(index),
            },
        }
        for index, points in series.items()
    ]
    y = linear(y_title)
    if is_ratio:
        y = {"axis": {"format": "%", "title": y_title, "tickCount": 5}, "scale": {"domain": [0, 1]}}
    return plot(layers, _time_axis(end_s), y)


def timeline(drawn: Sequence[Lane], end_s: float) -> Spec:
    """A lane per session in order of arrival, the first on top; ``end_s`` is the right edge."""
    x = _time_axis(end_s)
    x["axis"] |= {"orient": "top", "tickCount": 10}
    y = {"axis": None, "scale": {"domain": [len(drawn) - 0.5, -0.5], "nice": False}}
    spec = plot([*(_state_layer(drawn, state) for state in STATES), _failure_layer(drawn)], x, y)
    return spec | {"width": TIMELINE_WIDTH, "height": max(len(drawn), 1) * LANE_HEIGHT}


def _state_layer(drawn: Sequence[Lane], state: str) -> Spec:
    rows: list[Spec] = []
    for number, lane in enumerate(drawn):
        tip = _lane_tip(lane)
        for segment in (one for one in lane.segments if one.state == state):
            # the row without x lifts the pen: one path per lane and state instead of one per segment
            for x in (segment.start_s, segment.end_s, None):
                rows.append({"x": x, "y": number, "n": len(rows), "tip": tip})
    return {
        "name": f"state_{state}_tip",
        "data": {"values": rows},
        "mark": {
            "type": "line",
            "strokeWidth": LANE_HEIGHT - (5 if state == "queued" else 2),
            "strokeCap": "butt",
            "color": f"var(--state-{state})",
        },
        "encoding": detail("y")
        | {"description": {"field": "tip"}, "order": {"field": "n", "type": "quantitative"}},
    }


def _failure_layer(drawn: Sequence[Lane]) -> Spec:
    rows = [
        {"x": lane.ended_s, "y": number, "tip": _lane_tip(lane)}
        for number, lane in enumerate(drawn)
        if not lane.session.is_completed
    ]
    mark = {"type": "point", "shape": "cross", "angle": 45, "filled": True, "size": 55, "opacity": 1}
    return {
        "name": "state_failed_tip",
        "data": {"values": rows},
        "mark": mark | {"color": "var(--state-failed)"},
        "encoding": {"description": {"field": "tip"}},
    }


def _lane_tip(lane: Lane) -> str:
    session = lane.session
    spent = ", ".join(
        f"{STATE_TITLES[state]} {format_value(lane.seconds(state), 's')}"
        for state in STATES
        if lane.seconds(state)
    )
    if session.is_completed:
        outcome = f"JCT {format_value(session.jct_s, 's')}"
    else:
        outcome = f"failed: {session.error}" if session.error else "unfinished"
    turns = f"{session.turns_completed} of {session.turns_planned} turns"
    return f"{session.session}: {outcome}; {turns}; {spent or 'nothing measured'}"


def plot(layers: list[Spec], x: Spec, y: Spec) -> Spec:
    encoding = {
        "x": {"field": "x", "type": "quantitative"} | x,
        "y": {"field": "y", "type": "quantitative"} | y,
    }
    return {"width": PLOT_WIDTH, "height": PLOT_HEIGHT, "encoding": encoding, "layer": layers}


def linear(title: str) -> Spec:
    return {"axis": {"title": title, "tickCount": 6}, "scale": {"zero": True}}


def _time_axis(end_s: float) -> Spec:
    return linear("seconds since the start of the run") | {"scale": {"domain": [0, end_s], "nice": False}}


def log_seconds(title: str, smallest: float, largest: float) -> Spec:
    readable = (
        "datum.value < 1 ? format(datum.value * 1000, '~g') + ' ms' : format(datum.value, ',~g') + ' s'"
    )
    ticks = _log_ticks(smallest, largest)
    return {
        "axis": {
            "title": title,
            "values": ticks,
            "labelExpr": readable,
            "labelFlush": False,
            "labelOverlap": "greedy",
        },
        "scale": {"type": "log", "domain": [ticks[0], ticks[-1]], "nice": False},
    }


def _log_ticks(smallest: float, largest: float) -> list[float]:
    """1, 2, 5 steps that enclose the values; whole decades where those would be too many."""
    steps = [digit * 10.0**power for power in range(-3, 7) for digit in (1, 2, 5)]
    first = max((step for step in steps if step <= smallest), default=steps[0])
    last = min((step for step in steps if step >= largest and step > first), default=steps[-1])
    ticks = [round(step, 3) for step in steps if first <= step <= last]
    return ticks if len(ticks) <= 10 else [ticks[0], *_decades(ticks[1:-1]), ticks[-1]]


def _decades(ticks: list[float]) -> list[float]:
    return [tick for tick in ticks if f"{tick:e}".startswith("1.000000e")]


def stroke(index: int) -> Spec:
    return {"color": colour(index), "strokeWidth": 2, "strokeDash": dash(index), "strokeJoin": "round"}


def detail(field: str) -> Spec:
    return {"detail": {"field": field, "type": "nominal"}}
