"""Judges the figures against the bars of the grid. Claims nothing that was not measured: a bar whose cells
are missing is neither met nor missed."""

from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec

from loadgen.sweep.figures import Figures, Point, ratio_of
from loadgen.sweep.grid import Bar, Grid
from loadgen.sweep.grid_file import BEST
from loadgen.sweep.knee import Knee
from loadgen.sweep.metrics import metric_named
from loadgen.sweep.plan import own_load

Verdict = Literal["PASS", "MISS", "NOT MEASURED"]

OwnKnees = Mapping[tuple[str, str], Knee]


class Judged(msgspec.Struct, frozen=True):
    """One figure that a bar looks at."""

    workload: str
    over: str
    at: str
    """The load, in words."""
    value: float | None
    """None: not measured."""
    seed: int | None = None
    """The seed it is of, where it is of one."""


class Judgement(msgspec.Struct, frozen=True):
    bar: Bar
    verdict: Verdict
    judged: list[Judged]

    @property
    def closest(self) -> Judged | None:
        """The figure that decided: the least of those that count."""
        known = [each for each in deciding(self.bar, self.judged) if each.value is not None]
        return min(known, key=lambda each: each.value or 0.0, default=None)


def judge(grid: Grid, figures: Figures, own_knees: OwnKnees) -> list[Judgement]:
    return [judgement(grid, figures, own_knees, bar) for bar in grid.bars]


def judgement(grid: Grid, figures: Figures, own_knees: OwnKnees, bar: Bar) -> Judgement:
    read = shifts if bar.kind == "knee_shift" else ratios
    judged = [each for over in bar.over for each in read(grid, figures, own_knees, bar, over)]
    return Judgement(bar, verdict(bar, judged), judged)


def verdict(bar: Bar, judged: list[Judged]) -> Verdict:
    counted = deciding(bar, judged)
    if any(each.value is not None and each.value < bar.at_least for each in counted):
        return "MISS"
    return "NOT MEASURED" if not counted or any(each.value is None for each in counted) else "PASS"


def deciding(bar: Bar, judged: list[Judged]) -> list[Judged]:
    """All of them, or with ``any`` the best of each workload and opponent."""
    if bar.how == "all":
        return judged
    best: dict[tuple[str, str], Judged] = {}
    for each in judged:
        pair = (each.workload, each.over)
        if pair not in best or (each.value or 0.0) > (best[pair].value or 0.0):
            best[pair] = each
    return list(best.values())


def ratios(grid: Grid, figures: Figures, own_knees: OwnKnees, bar: Bar, over: str) -> Iterator[Judged]:
    metric = metric_named(bar.metric)
    peers = [entry.title for entry in grid.run.policies if entry.group in ("policy", "bound")]
    for workload in workloads_of(grid, bar):
        for point, at in points(grid, own_knees, bar, workload, over):
            values = figures.by_seed((workload, point, bar.policy), metric)
            others = (
                figures.best_by_seed(workload, point, peers, metric)
                if over == BEST
                else figures.by_seed((workload, point, over), metric)
            )
            ratio = ratio_of(metric, values, others)
            if ratio is None:
                yield Judged(workload, over, at, None)
            else:
                seed = ratio.worst_seed if bar.seeds == "worst" else None
                yield Judged(workload, over, at, ratio.of(bar.seeds), seed)


def workloads_of(grid: Grid, bar: Bar) -> list[str]:
    return [entry.name for entry in grid.workloads if bar.workloads is None or entry.name in bar.workloads]


def points(
    grid: Grid, own_knees: OwnKnees, bar: Bar, workload: str, over: str
) -> Iterator[tuple[Point, str]]:
    """Where a bar looks, with the words for it."""
    if bar.own_knee is None:
        entry = next(one for one in grid.workloads if one.name == workload)
        for point in (Point(load=load) for load in bar.loads or grid.loads_of(entry)):
            yield point, point.title
        return
    knee = own_knees.get((workload, over))
    for multiple in bar.own_knee:
        load = None if knee is None else own_load(knee, multiple)
        yield Point(load=load), f"{multiple:g} times its own knee" + (f" ({load:g} K)" if load else "")


def shifts(grid: Grid, figures: Figures, own_knees: OwnKnees, bar: Bar, over: str) -> Iterator[Judged]:
    """Knee over knee. A knee that is only known to be at or above a load counts as that load, except as the
    one to beat: against it nothing is known."""
    for workload in workloads_of(grid, bar):
        entry = next(one for one in grid.workloads if one.name == workload)
        mine, theirs = (figures.knee(workload, each, grid.loads_of(entry)) for each in (bar.policy, over))
        known = mine is not None and theirs is not None and not theirs.is_bound
        at = "at least, in the loads measured" if mine is not None and mine.is_bound else "knee"
        yield Judged(workload, over, at, mine.load / theirs.load if known and mine and theirs else None)
