"""Plans from what is measured: the search first, then the grid, then each baseline at its own knee."""

import msgspec
import pytest

from loadgen.sweep.cells import Cell
from loadgen.sweep.grid import Grid
from loadgen.sweep.grid_file import parse_grid
from loadgen.sweep.outcomes import Outcome
from loadgen.sweep.plan import Plan, make_plan, own_load, pending
from loadgen.sweep.runner import Setting
from tests.loadgen.sweep.toy import CAPACITY_PER_S, TOY_GRID, toy_summary

Outcomes = dict[str, Outcome]


def grid() -> Grid:
    return parse_grid(TOY_GRID, "toy")


def ended(cell: Cell) -> Outcome:
    return Outcome(cell.key, cell, toy_summary(cell.recipe, Setting()))


def failed(cell: Cell) -> Outcome:
    return Outcome(cell.key, cell, error="broken")


def run_to_the_end(toy: Grid, outcomes: Outcomes) -> tuple[Plan, list[int]]:
    batches = []
    plan = make_plan(toy, outcomes)
    while cells := pending(plan, outcomes):
        batches.append(len(cells))
        outcomes |= {cell.key: ended(cell) for cell in cells}
        plan = make_plan(toy, outcomes)
    return plan, batches


def test_the_search_comes_before_the_grid() -> None:
    cells = pending(make_plan(grid(), {}), {})
    assert {cell.workload for cell in cells} == {"searched"}
    assert {cell.policy for cell in cells} == {"fcfs"}


def test_a_found_knee_is_where_the_mean_jct_doubles() -> None:
    plan, _ = run_to_the_end(grid(), {})
    assert plan.knees["steady"] == 0.05
    assert CAPACITY_PER_S["fcfs"] / 1.1 <= plan.knees["searched"] <= CAPACITY_PER_S["fcfs"]
    assert plan.is_knee_found == {"steady": False, "searched": True}


def test_the_same_outcomes_make_the_same_plan_in_any_order() -> None:
    outcomes: Outcomes = {}
    plan, _ = run_to_the_end(grid(), outcomes)
    backwards = dict(reversed(outcomes.items()))
    again = make_plan(grid(), backwards)
    assert [cell.key for cell in again.cells] == [cell.key for cell in plan.cells]
    assert again.knees == plan.knees


def test_a_plan_made_anew_does_not_run_anything_twice() -> None:
    outcomes: Outcomes = {}
    _, batches = run_to_the_end(grid(), outcomes)
    assert sum(batches) == len(outcomes)
    assert run_to_the_end(grid(), outcomes)[1] == []


def test_baselines_are_met_at_their_own_knee() -> None:
    plan, _ = run_to_the_end(grid(), {})
    knee = plan.own_knees["steady", "priority"]
    assert knee.load == pytest.approx(CAPACITY_PER_S["priority"] / 0.05)
    there = {cell.policy for cell in plan.cells if cell.load == own_load(knee, 1.0)}
    assert there == {"priority", "mars"}


def test_only_the_knees_if_only_they_are_wanted() -> None:
    outcomes: Outcomes = {}
    plan = make_plan(grid(), outcomes, knees_only=True)
    while cells := pending(plan, outcomes):
        outcomes |= {cell.key: ended(cell) for cell in cells}
        plan = make_plan(grid(), outcomes, knees_only=True)
    assert set(plan.knees) == {"steady", "searched"}
    assert plan.cells == []


def test_a_search_that_fails_costs_one_workload_its_open_loads() -> None:
    outcomes = {cell.key: failed(cell) for cell in pending(make_plan(grid(), {}), {})}
    plan = make_plan(grid(), outcomes)
    assert plan.notes == [
        "searched: no knee found (no cell of the search ended well: broken); only its closed loops were run."
    ]
    assert {cell.workload for cell in plan.cells} == {"steady"}


def test_a_failed_cell_does_not_hold_up_the_rest() -> None:
    toy = msgspec.structs.replace(grid(), workloads=grid().workloads[:1])
    outcomes = {
        cell.key: failed(cell) if cell.seed == 2 else ended(cell) for cell in make_plan(toy, {}).cells
    }
    plan = make_plan(toy, outcomes)
    assert ("steady", "priority") in plan.own_knees
    assert {cell.policy for cell in pending(plan, outcomes)} == {"priority", "mars"}
