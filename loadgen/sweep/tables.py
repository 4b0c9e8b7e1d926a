"""The tables of a sweep as text: workload by workload, policies as rows, loads as columns.

Decides words and order for ``results.md`` and ``results.html`` alike; ``loadgen.sweep.figures`` decides
figures. What was not measured shows as a dash, never as a zero.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from loadgen.comparison import Metric
from loadgen.comparison_table import UNKNOWN, format_value
from loadgen.sweep.bars import Judged, Judgement
from loadgen.sweep.figures import JCT, Figures, Place, Point, Ratio, points_of
from loadgen.sweep.grid import STOCK, Grid, PolicyEntry, WorkloadEntry
from loadgen.sweep.knee import Knee
from loadgen.sweep.metrics import METRICS, metric_named
from loadgen.sweep.plan import Plan, own_load
from loadgen.sweep.run_info import RunInfo

COMPARED = ("jct_s.mean", "jct_s.p99", "throughput_turns_per_s")
"""Shown as ratios to stock, and at the baselines' own knees."""

BOUND = "oracle"

Row = Sequence[str]

KNEES_NOTE = (
    "Load at which the mean JCT is twice the policy's own at the lightest load, in multiples of stock's "
    "knee; ≥ where no measured load is past it."
)

READING_NOTE = (
    "K is the knee of stock: the rate at which its mean JCT is twice that of a light load. Figures are "
    "medians over the seeds. A ratio says how many times better and is taken seed by seed; against a policy "
    "that collapses it grows with the run length, so the run length belongs to it."
)

MAX_CAVEATS = 20


@dataclass(frozen=True, slots=True)
class TextTable:
    title: str
    columns: Row
    rows: list[Row]
    """The first cell of each names it."""


def origin(grid: Grid, info: RunInfo) -> list[tuple[str, str]]:
    """Where the figures are from, by name."""
    run = grid.run
    settings = "; ".join(filter(None, map(entry_settings, run.policies)))
    return [
        ("Model of", f"{run.model} on {run.hardware}, simulated in virtual time"),
        ("Seeds", ", ".join(map(str, run.seeds))),
        ("Trace", info.trace or "none at hand"),
        ("Code", ", ".join(info.commits)),
        ("Command", info.command),
        ("Machine", f"{info.machine}; {info.simulated_s / 60:.1f} minutes of one core"),
        ("Settings", settings or "all at their defaults"),
    ]


def workloads_table(grid: Grid, plan: Plan) -> TextTable:
    columns = ["workload", "made from", "sessions", "KV pool, tokens", "backends", "tool hosts", "knee K"]
    return TextTable("Workloads", columns, [workload_row(grid, plan, entry) for entry in grid.workloads])


def entry_settings(entry: PolicyEntry) -> str:
    changed = [f"{name} = {value}" for name, value in flat({**entry.settings, **entry.simulator})]
    return f"{entry.title}: {', '.join(changed)}" if changed else ""


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """By dotted name, as JSON."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, msgspec.json.encode(value).decode()


def workload_row(grid: Grid, plan: Plan, entry: WorkloadEntry) -> Row:
    source = plan.sources[entry.name]
    made_from = source.source.replace("{trace}", "trace")
    knee = plan.knees.get(entry.name)
    how = "measured" if plan.is_knee_found[entry.name] else "stated"
    return [
        entry.name,
        f"{made_from}, in place of a trace" if source.is_stand_in else made_from,
        str(grid.sessions_of(entry)),
        f"{source.kv_tokens:,}",
        str(entry.backends),
        tool_words(entry),
        UNKNOWN if knee is None else f"{knee:.4g}/s ({how})",
    ]


def tool_words(entry: WorkloadEntry) -> str:
    tools = entry.tools
    if tools is None:
        return "unlimited"
    memory = "" if tools.memory_gb is None else f", {tools.memory_gb:g} GB"
    return f"{tools.hosts} × {tools.cores:g} cores{memory}, {tools.discipline}"


def caveats(plan: Plan, figures: Figures, info: RunInfo) -> list[str]:
    """Reasons not to take the tables at face value, if there are any."""
    found = [*plan.notes]
    if stand_ins := [name for name, source in plan.sources.items() if source.is_stand_in]:
        found.append(f"No trace was at hand: a shipped profile stands in on {', '.join(stand_ins)}.")
    if len(info.commits) > 1:
        found.append("The results are from several versions of the code.")
    lost = [*failed_cells(figures), *lost_sessions(figures)]
    found += lost[:MAX_CAVEATS]
    if len(lost) > MAX_CAVEATS:
        found.append(f"{len(lost) - MAX_CAVEATS} more cells failed or lost sessions; sweep.jsonl has them.")
    return found


def failed_cells(figures: Figures) -> Iterator[str]:
    for place, errors in figures.errors.items():
        for seed, error in errors.items():
            yield f"{place_words(place)}, seed {seed}: {error}"


def lost_sessions(figures: Figures) -> Iterator[str]:
    for place, seeds in figures.summaries.items():
        for seed, summary in seeds.items():
            if lost := (summary.get("failed") or 0) + (summary.get("unfinished") or 0):
                yield f"{place_words(place)}, seed {seed}: {lost:g} sessions did not complete."


def place_words(place: Place) -> str:
    workload, point, policy = place
    return f"{workload}, {policy} at {point.title}"


def knees_table(grid: Grid, figures: Figures) -> TextTable:
    rows: list[Row] = [
        [entry.title, *(knee_words(knee_at(grid, figures, one, entry)) for one in grid.workloads)]
        for entry in grid.run.policies
    ]
    return TextTable("Knees", ["policy", *(one.name for one in grid.workloads)], rows)


def knee_at(grid: Grid, figures: Figures, workload: WorkloadEntry, entry: PolicyEntry) -> Knee | None:
    return figures.knee(workload.name, entry.title, grid.loads_of(workload))


def knee_words(knee: Knee | None) -> str:
    return UNKNOWN if knee is None else f"{'≥ ' if knee.is_bound else ''}{knee.load:.2f}"


def bars_table(judgements: Sequence[Judgement]) -> TextTable:
    rows: list[Row] = [
        [judgement.verdict, judgement.bar.name, f"≥ {judgement.bar.at_least:g}", closest_words(judgement)]
        for judgement in judgements
    ]
    return TextTable("Bars", ["verdict", "bar", "asked", "closest"], rows)


def bar_table(judgement: Judgement) -> TextTable:
    rows: list[Row] = [judged_row(judgement, each) for each in judgement.judged]
    return TextTable(judgement.bar.name, ["workload", "over", "at", "measured", "seed", ""], rows)


def closest_words(judgement: Judgement) -> str:
    closest = judgement.closest
    if closest is None:
        return UNKNOWN
    seed = "" if closest.seed is None else f", seed {closest.seed}"
    return f"{closest.value:.3g}: {closest.workload} at {closest.at}, over {closest.over}{seed}"


def judged_row(judgement: Judgement, each: Judged) -> Row:
    is_under = each.value is not None and each.value < judgement.bar.at_least
    seed = "" if each.seed is None else str(each.seed)
    value = UNKNOWN if each.value is None else f"{each.value:.3g}"
    return [each.workload, each.over, each.at, value, seed, "under" if is_under else ""]


def workload_tables(grid: Grid, plan: Plan, figures: Figures, workload: WorkloadEntry) -> Iterator[TextTable]:
    points = points_of(grid, workload.name)
    for metric in figures.known_metrics(workload.name, METRICS):
        yield figure_table(grid, figures, workload.name, points, metric)
    for key in COMPARED:
        yield from ratio_table(grid, figures, workload.name, points, metric_named(key), STOCK)
    yield from ratio_table(grid, figures, workload.name, points, JCT, BOUND)
    yield from own_knee_table(grid, plan, figures, workload.name)


def figure_table(
    grid: Grid, figures: Figures, workload: str, points: Sequence[Point], metric: Metric
) -> TextTable:
    rows: list[Row] = []
    for entry in grid.run.policies:
        values = [figures.median((workload, point, entry.title), metric) for point in points]
        if any(value is not None for value in values):
            rows.append([entry.title, *(without_unit(format_value(v, metric.unit)) for v in values)])
    unit = f" ({metric.unit})" if metric.unit in ("s", "1/s", "MB") else ""
    return TextTable(metric.title + unit, columns_of(points), rows)


def columns_of(points: Sequence[Point]) -> Row:
    return ["policy", *(point.title for point in points)]


def without_unit(text: str) -> str:
    """The unit stands in the heading; per cents keep theirs."""
    return text if text.endswith("%") else text.partition(" ")[0]


def ratio_table(
    grid: Grid, figures: Figures, workload: str, points: Sequence[Point], metric: Metric, over: str
) -> Iterator[TextTable]:
    """Nothing where the other policy was not run."""
    rows: list[Row] = []
    for entry in grid.run.policies:
        ratios = [figures.ratio(metric, workload, point, entry.title, over) for point in points]
        if entry.title != over and any(ratios):
            rows.append([entry.title, *map(ratio_words, ratios)])
    if rows:
        yield TextTable(f"{metric.title}: times better than {over} (worst seed)", columns_of(points), rows)


def ratio_words(ratio: Ratio | None) -> str:
    if ratio is None:
        return UNKNOWN
    return f"{ratio.median:.2f} ({ratio.worst:.2f}, seed {ratio.worst_seed})"


def own_knee_table(grid: Grid, plan: Plan, figures: Figures, workload: str) -> Iterator[TextTable]:
    own = grid.own_knees
    knees = {name: knee for (of, name), knee in plan.own_knees.items() if of == workload}
    if own is None or not knees:
        return
    columns = ["baseline", "its knee", "at", *(metric_named(key).title for key in COMPARED)]
    rows: list[Row] = []
    for name, knee in knees.items():
        for multiple in own.multiples:
            point = Point(load=own_load(knee, multiple))
            found = (figures.ratio(metric_named(key), workload, point, own.policy, name) for key in COMPARED)
            rows.append([name, knee_words(knee), f"{multiple:g} of it", *map(ratio_words, found)])
    title = f"{own.policy} at each baseline's own knee: times better (worst seed)"
    yield TextTable(title, columns, rows)
