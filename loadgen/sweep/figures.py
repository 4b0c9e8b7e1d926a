"""Reduces outcomes to what is compared: every figure by seed, medians over seeds, ratios seed by seed.

A ratio is always of the same seed, so of the same sessions at the same instants, and always says how many
times better: above 1 the policy is better whatever the metric. Pure.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any

import msgspec

from loadgen.comparison import Metric, figure
from loadgen.sweep.cells import Cell
from loadgen.sweep.grid import Grid
from loadgen.sweep.knee import Knee, knee_of
from loadgen.sweep.metrics import metric_named
from loadgen.sweep.outcomes import Outcome

JCT = metric_named("jct_s.mean")


class Point(msgspec.Struct, frozen=True, order=True):
    """A column of the tables: a load in multiples of the knee, or a number of agents."""

    agents: int | None = None
    load: float | None = None

    @property
    def title(self) -> str:
        return f"N={self.agents}" if self.load is None else f"{self.load:g} K"


class Ratio(msgspec.Struct, frozen=True):
    """Times better than another policy."""

    median: float
    pooled: float
    """Of the means over all seeds: a collapse in one seed weighs as much as it lasts."""
    worst: float
    worst_seed: int
    by_seed: dict[int, float]

    def of(self, seeds: str) -> float:
        """``median``, ``pooled`` or ``worst``."""
        return {"median": self.median, "pooled": self.pooled, "worst": self.worst}[seeds]


Place = tuple[str, Point, str]
"""Workload, point and policy label."""


@dataclass(slots=True)
class Figures:
    summaries: dict[Place, dict[int, Mapping[str, Any]]] = field(default_factory=dict)
    """By seed."""
    errors: dict[Place, dict[int, str]] = field(default_factory=dict)

    def by_seed(self, place: Place, metric: Metric) -> dict[int, float]:
        found = {seed: figure(one, metric.key) for seed, one in self.summaries.get(place, {}).items()}
        return {seed: value for seed, value in sorted(found.items()) if value is not None}

    def median(self, place: Place, metric: Metric) -> float | None:
        values = self.by_seed(place, metric).values()
        return median(values) if values else None

    def best_by_seed(
        self, workload: str, point: Point, policies: Iterable[str], metric: Metric
    ) -> dict[int, float]:
        """The best of these policies, seed by seed."""
        choose = min if metric.is_lower_better else max
        best: dict[int, float] = {}
        for policy in policies:
            for seed, value in self.by_seed((workload, point, policy), metric).items():
                best[seed] = choose(best.get(seed, value), value)
        return best

    def ratio(self, metric: Metric, workload: str, point: Point, policy: str, over: str) -> Ratio | None:
        values = self.by_seed((workload, point, policy), metric)
        return ratio_of(metric, values, self.by_seed((workload, point, over), metric))

    def curve(self, workload: str, policy: str, loads: Sequence[float]) -> dict[float, float]:
        """Median mean JCT by load."""
        medians = {load: self.median((workload, Point(load=load), policy), JCT) for load in loads}
        return {load: value for load, value in medians.items() if value is not None}

    def knee(self, workload: str, policy: str, loads: Sequence[float]) -> Knee | None:
        return knee_of(self.curve(workload, policy, loads))

    def known_metrics(self, workload: str, metrics: Iterable[Metric]) -> list[Metric]:
        """Those that some cell of the workload knows."""
        of_workload = [
            one
            for (name, _, _), seeds in self.summaries.items()
            if name == workload
            for one in seeds.values()
        ]
        return [
            metric for metric in metrics if any(figure(one, metric.key) is not None for one in of_workload)
        ]


def ratio_of(metric: Metric, values: Mapping[int, float], over: Mapping[int, float]) -> Ratio | None:
    """None without a seed that both have. Where both are 0 they are equal."""
    seeds = [seed for seed in values if seed in over]
    by_seed = {seed: times_better(metric, values[seed], over[seed]) for seed in seeds}
    known = {seed: value for seed, value in by_seed.items() if value is not None}
    pooled = (
        times_better(metric, fmean(values[seed] for seed in seeds), fmean(over[seed] for seed in seeds))
        if seeds
        else None
    )
    if not known or pooled is None:
        return None
    worst_seed = min(known, key=lambda seed: known[seed])
    return Ratio(median(known.values()), pooled, known[worst_seed], worst_seed, known)


def times_better(metric: Metric, value: float, over: float) -> float | None:
    top, bottom = (over, value) if metric.is_lower_better else (value, over)
    if top == bottom:
        return 1.0
    return top / bottom if bottom else None


def collect(cells: Iterable[Cell], outcomes: Mapping[str, Outcome]) -> Figures:
    figures = Figures()
    for cell in cells:
        outcome = outcomes.get(cell.key)
        if outcome is None:
            continue
        place = (cell.workload, point_of(cell), cell.policy)
        if outcome.summary is None:
            figures.errors.setdefault(place, {})[cell.seed] = outcome.error or "no reason recorded"
        else:
            figures.summaries.setdefault(place, {})[cell.seed] = outcome.summary
    return figures


def point_of(cell: Cell) -> Point:
    return Point(load=cell.load) if cell.load is not None else Point(agents=cell.recipe.agents)


def points_of(grid: Grid, workload: str) -> list[Point]:
    """The columns of a workload's tables: open loads, then closed loops."""
    entry = next(one for one in grid.workloads if one.name == workload)
    return [
        *(Point(load=load) for load in grid.loads_of(entry)),
        *(Point(agents=agents) for agents in entry.agents),
    ]
