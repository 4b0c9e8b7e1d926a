"""What to run next, from the grid and from what is measured: first the knees, then the grid, then each
baseline at its own knee.

Pure: a plan is made anew after every batch, and a sweep that goes on after a stop makes the same one again,
so no search keeps state between batches. A failed cell counts as run; what depends on it is given up with a
note.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

from loadgen.comparison import figure
from loadgen.sweep.cells import Cell, CellMaker, Source, rounded, source_of
from loadgen.sweep.grid import LIGHT_LOAD, STOCK, Grid, PolicyEntry
from loadgen.sweep.knee import KNEE_FACTOR, Knee, NoKneeError, knee_of, search_knee
from loadgen.sweep.outcomes import Outcome

JCT = "jct_s.mean"

Outcomes = Mapping[str, Outcome]


class NotMeasuredError(Exception):
    """The cells that have to be run before this can be said."""

    def __init__(self, cells: list[Cell]) -> None:
        super().__init__(f"{len(cells)} cells to run")
        self.cells = cells


@dataclass(slots=True)
class Plan:
    sources: dict[str, Source] = field(default_factory=dict)
    """By workload, as the rest."""
    knees: dict[str, float] = field(default_factory=dict)
    """Of stock, sessions a second; those that are known by now."""
    is_knee_found: dict[str, bool] = field(default_factory=dict)
    """Whether it was searched for; else the grid states it."""
    cells: list[Cell] = field(default_factory=list)
    """Of the grid, as far as it is known by now, in order."""
    own_knees: dict[tuple[str, str], Knee] = field(default_factory=dict)
    """By workload and policy, as multiples of stock's knee."""
    search: list[Cell] = field(default_factory=list)
    """Needed before the rest is known."""
    notes: list[str] = field(default_factory=list)
    """What had to be given up, for the reader of the tables."""


def make_plan(
    grid: Grid, outcomes: Outcomes, trace_digest: str | None = None, *, knees_only: bool = False
) -> Plan:
    plan = Plan()
    makers = {}
    for workload in grid.workloads:
        plan.sources[workload.name] = source_of(workload, trace_digest)
        makers[workload.name] = CellMaker(grid, workload, plan.sources[workload.name])
    for name, maker in makers.items():
        plan_knee(plan, name, maker, outcomes)
    if knees_only:
        return plan
    for name, maker in makers.items():
        plan.cells += maker.grid_cells(plan.knees.get(name))
    if not plan.search:
        for name, maker in makers.items():
            plan_own_knees(plan, name, maker, outcomes)
    return plan


def pending(plan: Plan, outcomes: Outcomes) -> list[Cell]:
    """What to run now, each once. The search comes first: it is short, and the rest waits for it."""
    wanted = {cell.key: cell for cell in plan.search or plan.cells}
    return [cell for key, cell in wanted.items() if key not in outcomes]


def plan_knee(plan: Plan, name: str, maker: CellMaker, outcomes: Outcomes) -> None:
    stated = maker.source.knee_per_s
    plan.is_knee_found[name] = stated == "find"
    if isinstance(stated, float | int):
        plan.knees[name] = float(stated)
        return
    try:
        plan.knees[name] = found_knee(maker, outcomes)
    except NotMeasuredError as missing:
        plan.search += missing.cells
    except NoKneeError as exc:
        plan.notes.append(f"{name}: no knee found ({exc}); only its closed loops were run.")


def found_knee(maker: CellMaker, outcomes: Outcomes) -> float:
    """Of stock, searched from the rate at which one session at a time would keep up."""
    stock = maker.grid.policy(STOCK) or PolicyEntry(STOCK)

    def is_over(rate_per_s: float) -> bool:
        """Against a quarter of it, so that at the knee ``LIGHT_LOAD`` is a light load by definition."""
        there = maker.cells(stock, rate_per_s=rate_per_s)
        light = maker.cells(stock, rate_per_s=rate_per_s * LIGHT_LOAD)
        require([*light, *there], outcomes)
        return mean_jct(there, outcomes) >= KNEE_FACTOR * mean_jct(light, outcomes)

    alone = maker.cells(stock, agents=1)[:1]
    require(alone, outcomes)
    return rounded(search_knee(is_over, 1 / mean_jct(alone, outcomes)))


def require(cells: list[Cell], outcomes: Outcomes) -> None:
    if missing := [cell for cell in cells if cell.key not in outcomes]:
        raise NotMeasuredError(missing)


def mean_jct(cells: list[Cell], outcomes: Outcomes) -> float:
    """Median of the seeds' mean JCT."""
    known = known_jcts(cells, outcomes)
    if not known:
        raise NoKneeError(f"no cell of the search ended well: {outcomes[cells[0].key].error}")
    return median(known)


def known_jcts(cells: list[Cell], outcomes: Outcomes) -> list[float]:
    ended = [outcomes[cell.key].summary for cell in cells if cell.key in outcomes]
    figures = [figure(summary, JCT) for summary in ended if summary is not None]
    return [value for value in figures if value]


def plan_own_knees(plan: Plan, name: str, maker: CellMaker, outcomes: Outcomes) -> None:
    """Where a baseline's curve is measured: its knee, and cells there for it and for the one compared."""
    own, stock_knee = maker.grid.own_knees, plan.knees.get(name)
    champion = None if own is None else maker.grid.policy(own.policy)
    if own is None or stock_knee is None or champion is None:
        return
    for entry in filter(None, map(maker.grid.policy, own.of)):
        knee = measured_knee(maker, entry, stock_knee, outcomes)
        if knee is None:
            continue
        plan.own_knees[name, entry.title] = knee
        for multiple in own.multiples:
            load = own_load(knee, multiple)
            for policy in (entry, champion):
                plan.cells += maker.at_load(policy, load, stock_knee)


def own_load(knee: Knee, multiple: float) -> float:
    return round(knee.load * multiple, 3)


def measured_knee(
    maker: CellMaker, policy: PolicyEntry, stock_knee: float, outcomes: Outcomes
) -> Knee | None:
    """None until all its loads are run, and where that says none."""
    curve = {}
    for load in maker.grid.loads_of(maker.workload):
        cells = maker.at_load(policy, load, stock_knee)
        if any(cell.key not in outcomes for cell in cells):
            return None
        if known := known_jcts(cells, outcomes):
            curve[load] = median(known)
    return knee_of(curve)
