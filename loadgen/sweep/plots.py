"""The plots of a sweep as Vega-Lite specifications, from figures; in the look of the report on runs.

Owns which figure is drawn how. Lines have the class names that the page's switches hide.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from loadgen.comparison import Metric
from loadgen.comparison_table import format_value
from loadgen.report.figures import Plot
from loadgen.report.plots import PLOT_WIDTH, Spec, colour, linear, log_seconds, plot, stroke
from loadgen.report.svg import render
from loadgen.sweep.figures import JCT, Figures, Point, points_of
from loadgen.sweep.grid import STOCK, Grid, PolicyEntry, WorkloadEntry
from loadgen.sweep.knee import KNEE_FACTOR
from loadgen.sweep.metrics import metric_named

BAR_HEIGHT = 18
LABEL_WIDTH = 140

LOAD_TITLE = "load, in multiples of the stock knee"

TAILS = ("jct_s.p99", "jct_s.max")


@dataclass(frozen=True, slots=True)
class Drawn:
    """A policy with a line of its own."""

    index: int
    """Decides colour and dash."""
    entry: PolicyEntry


def drawn_policies(grid: Grid) -> list[Drawn]:
    """Peers and bounds; parts and troubles of a policy are bars instead."""
    peers = [entry for entry in grid.run.policies if entry.group in ("policy", "bound")]
    return [Drawn(index, entry) for index, entry in enumerate(peers)]


def workload_plots(grid: Grid, figures: Figures, workload: WorkloadEntry) -> Iterator[Plot]:
    yield over_load(
        grid,
        figures,
        workload,
        JCT,
        "Lower is better. Diamonds mark each policy's own knee, the rule stock's.",
    )
    yield over_load(
        grid, figures, workload, metric_named("goodput_alpha3"), "Higher is better; the rule is stock's knee."
    )
    for key in TAILS:
        yield over_load(
            grid, figures, workload, metric_named(key), "The sessions that fare worst; lower is better."
        )
    if workload.agents:
        yield closed_loop(grid, figures, workload)
    for group, title in (("ablation", "What each part contributes"), ("sensitivity", "What trouble costs")):
        if any(entry.group == group for entry in grid.run.policies):
            yield from bar_plots(grid, figures, workload, group, title)


def over_load(grid: Grid, figures: Figures, workload: WorkloadEntry, metric: Metric, words: str) -> Plot:
    points = [point for point in points_of(grid, workload.name) if point.load is not None]
    ident, title = ident_of(workload, metric.key), f"{capitalised(metric.title)} against load"
    rows = rows_of(grid, figures, workload, points, metric)
    layers = lines(grid, figures, workload, points, metric)
    if not layers:
        return Plot(ident, title, words, None)
    values = [row["y"] for layer in layers for row in layer["data"]["values"]]
    layers.append(rule(1.0))
    if metric is JCT:
        layers += knee_marks(grid, figures, workload)
    spec = plot(layers, linear(LOAD_TITLE), y_axis(metric, values))
    return Plot(ident, title, words, render(spec, ident, title, description(words, rows)), rows)


def closed_loop(grid: Grid, figures: Figures, workload: WorkloadEntry) -> Plot:
    metric = metric_named("throughput_turns_per_s")
    points = [point for point in points_of(grid, workload.name) if point.agents is not None]
    ident, title = ident_of(workload, "closed"), "Throughput against agents, closed loop"
    words = "Each agent takes up the next session when it is done with one. Higher is better."
    rows = rows_of(grid, figures, workload, points, metric)
    layers = lines(grid, figures, workload, points, metric)
    if not layers:
        return Plot(ident, title, words, None)
    spec = plot(layers, linear("agents"), linear("turns per second"))
    return Plot(ident, title, words, render(spec, ident, title, description(words, rows)), rows)


def lines(
    grid: Grid, figures: Figures, workload: WorkloadEntry, points: Sequence[Point], metric: Metric
) -> list[Spec]:
    layers: list[Spec] = []
    for drawn in drawn_policies(grid):
        values = [
            {"x": x_of(point), "y": value, "tip": tip(drawn.entry, point, value, metric)}
            for point in points
            if (value := figures.median((workload.name, point, drawn.entry.title), metric)) is not None
        ]
        if values:
            layers += line_layers(drawn.index, values)
    return layers


def line_layers(index: int, values: list[dict[str, Any]]) -> list[Spec]:
    dots = {"type": "point", "filled": True, "size": 36, "opacity": 1, "color": colour(index)}
    return [
        {
            "name": f"target_{index}_line",
            "data": {"values": values},
            "mark": {"type": "line", **stroke(index)},
        },
        {
            "name": f"target_{index}_tip",
            "data": {"values": values},
            "mark": dots,
            "encoding": {"description": {"field": "tip"}},
        },
    ]


def knee_marks(grid: Grid, figures: Figures, workload: WorkloadEntry) -> Iterator[Spec]:
    loads = grid.loads_of(workload)
    for drawn in drawn_policies(grid):
        knee = figures.knee(workload.name, drawn.entry.title, loads)
        if knee is None or knee.is_bound:
            continue
        light_s = figures.curve(workload.name, drawn.entry.title, loads)[min(loads)]
        words = f"knee of {drawn.entry.title}: {knee.load:.2f} K"
        yield {
            "name": f"target_{drawn.index}_knee_tip",
            "data": {"values": [{"x": knee.load, "y": KNEE_FACTOR * light_s, "tip": words}]},
            "mark": {"type": "point", "shape": "diamond", "size": 90, "color": colour(drawn.index)},
            "encoding": {"description": {"field": "tip"}},
        }


def rule(x: float) -> Spec:
    mark = {"type": "rule", "color": "var(--axis)", "strokeDash": [4, 4]}
    return {"data": {"values": [{"x": x}]}, "mark": mark, "encoding": {"y": None}}


def y_axis(metric: Metric, values: Sequence[float]) -> Spec:
    match metric.unit:
        case "s":
            positive = [value for value in values if value > 0] or [1.0]
            return log_seconds(f"{metric.title} (logarithmic)", min(positive), max(positive))
        case "ratio":
            axis = {"format": "%", "title": "share of the sessions", "tickCount": 5}
            return {"axis": axis, "scale": {"domain": [0, 1]}}
        case _:
            return linear(metric.title)


def bar_plots(
    grid: Grid, figures: Figures, workload: WorkloadEntry, group: str, title: str
) -> Iterator[Plot]:
    """At stock's knee, or the measured load next to it, and at the highest load."""
    loads = sorted(grid.loads_of(workload))
    if not loads:
        return
    for load in dict.fromkeys((min(loads, key=lambda one: abs(one - 1.0)), loads[-1])):
        yield bar_plot(grid, figures, workload, group, Point(load=load), title)


def bar_plot(
    grid: Grid, figures: Figures, workload: WorkloadEntry, group: str, point: Point, title: str
) -> Plot:
    ident = ident_of(workload, f"{group}-{point.load:g}")
    title = f"{title}, {point.title}"
    words = f"Times better than {STOCK} in mean JCT: the median of the seeds, with their range."
    ratios = {
        entry.title: ratio
        for entry in grid.run.policies
        if entry.group in (group, "bound") or entry.title == "mars"
        if (ratio := figures.ratio(JCT, workload.name, point, entry.title, STOCK)) is not None
    }
    if not ratios:
        return Plot(ident, title, words, None)
    values: list[dict[str, Any]] = [
        {"label": name, "x": one.median, "low": one.worst, "high": max(one.by_seed.values())}
        for name, one in ratios.items()
    ]
    rows = [["policy", "median", "worst seed", "best seed"]]
    rows += [[v["label"], *(f"{v[key]:.2f}" for key in ("x", "low", "high"))] for v in values]
    spec = bar_spec(values, list(ratios))
    return Plot(ident, title, words, render(spec, ident, title, description(words, rows)), rows)


def bar_spec(values: list[dict[str, Any]], order: list[str]) -> Spec:
    axis = {"title": None, "minExtent": LABEL_WIDTH, "labelLimit": LABEL_WIDTH}
    y = {"field": "label", "type": "nominal", "sort": order, "axis": axis}
    x = {"type": "quantitative", "axis": {"title": "times better", "tickCount": 6}}
    return {
        "width": PLOT_WIDTH - LABEL_WIDTH,
        "height": BAR_HEIGHT * len(order),
        # the page's font may be wider than the one the renderer measures with
        "padding": {"left": 24, "right": 5, "top": 5, "bottom": 5},
        "data": {"values": values},
        "encoding": {"y": y},
        "layer": [
            {"mark": {"type": "bar", "color": colour(1)}, "encoding": {"x": {"field": "x", **x}}},
            {
                "mark": {"type": "rule", "color": "var(--ink)"},
                "encoding": {"x": {"field": "low", **x}, "x2": {"field": "high"}},
            },
        ],
    }


def rows_of(
    grid: Grid, figures: Figures, workload: WorkloadEntry, points: Sequence[Point], metric: Metric
) -> list[list[str]]:
    """The numbers behind the lines, a header row first."""
    rows = [["policy", *(point.title for point in points)]]
    for drawn in drawn_policies(grid):
        values = [figures.median((workload.name, point, drawn.entry.title), metric) for point in points]
        rows.append([drawn.entry.title, *(format_value(value, metric.unit) for value in values)])
    return rows


def description(words: str, rows: list[list[str]]) -> str:
    """For who cannot see the plot."""
    said = ". ".join(
        f"{row[0]}: " + ", ".join(f"{at} {value}" for at, value in zip(rows[0][1:], row[1:], strict=True))
        for row in rows[1:]
    )
    return f"{words} {said}."


def tip(entry: PolicyEntry, point: Point, value: float, metric: Metric) -> str:
    return f"{entry.title} at {point.title}: {format_value(value, metric.unit)}"


def x_of(point: Point) -> float:
    return float(point.agents or 0) if point.load is None else point.load


def ident_of(workload: WorkloadEntry, what: str) -> str:
    """Unique on the page, and good for an attribute."""
    return "".join(c if c.isalnum() else "-" for c in f"{workload.name}-{what}").lower()


def capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]
