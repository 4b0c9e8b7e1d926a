"""A cell's key is its inputs: nothing else changes it, and everything else does."""

import pickle

import msgspec
import pytest

from loadgen.sweep.cells import Cell, CellMaker, Recipe, select_cells, source_of
from loadgen.sweep.grid import Grid, SourceOptions, ToolHost
from loadgen.sweep.grid_file import parse_grid
from tests.loadgen.sweep.toy import TOY_GRID

RECIPE = Recipe(
    source="autonomous", sessions=10, seed=1, hardware="h100", model="m", kv_tokens=1000, policy="mars",
    rate_per_s=0.5, options=SourceOptions(max_turns=60), tools=ToolHost(cores=2.0),
    policy_settings={"admission.kv_target": 1.0},
)  # fmt: skip


def grid() -> Grid:
    return parse_grid(TOY_GRID, "toy")


def cells_of_steady() -> list[Cell]:
    workload = grid().workloads[0]
    return list(CellMaker(grid(), workload, source_of(workload, None)).grid_cells(0.05))


def test_the_key_is_the_same_in_another_process_and_after_a_file() -> None:
    assert pickle.loads(pickle.dumps(RECIPE)).key == RECIPE.key
    assert msgspec.json.decode(msgspec.json.encode(RECIPE), type=Recipe).key == RECIPE.key


def test_the_key_is_stable_over_versions() -> None:
    """Results on disk are found by it."""
    plain = Recipe("autonomous", 10, 1, "h100", "m", 1000, "mars", rate_per_s=0.5)
    assert plain.key == PLAIN_KEY


PLAIN_KEY = "561e43af230d2324883196ce8be58dd4"


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 2},
        {"kv_tokens": 1001},
        {"rate_per_s": 0.6},
        {"rate_per_s": None, "agents": 4},
        {"options": SourceOptions(max_turns=61)},
        {"options": SourceOptions()},
        {"tools": None},
        {"tools": ToolHost(cores=2.0, discipline="slots")},
        {"policy_settings": {}},
        {"simulator": {"telemetry_delay_s": 5.0}},
        {"trace_digest": "0123"},
    ],
    ids=str,
)
def test_every_input_changes_the_key(change: dict[str, object]) -> None:
    assert msgspec.structs.replace(RECIPE, **change).key != RECIPE.key


def test_a_grid_is_policies_times_loads_times_seeds() -> None:
    cells = cells_of_steady()
    assert len(cells) == len({cell.key for cell in cells}) == 5 * (3 + 2) * 3
    first = cells[0]
    assert (first.policy, first.load, first.seed, first.recipe.rate_per_s) == ("fcfs", 0.25, 1, 0.0125)


def test_without_a_knee_only_closed_loops_can_run() -> None:
    workload = grid().workloads[0]
    cells = list(CellMaker(grid(), workload, source_of(workload, None)).grid_cells(None))
    assert {cell.recipe.agents for cell in cells} == {2, 4}
    assert all(cell.load is None and cell.recipe.rate_per_s is None for cell in cells)


def test_a_policy_may_be_for_some_workloads_and_loads() -> None:
    text = TOY_GRID.replace(
        'group = "ablation",', 'group = "ablation", workloads = ["steady"], loads = [1.5],'
    )
    narrowed = parse_grid(text, "toy")
    per_workload = [
        [
            cell
            for cell in CellMaker(narrowed, one, source_of(one, None)).grid_cells(1.0)
            if "blind" in cell.policy
        ]
        for one in narrowed.workloads
    ]
    assert [len(cells) for cells in per_workload] == [3, 0]
    assert {cell.load for cell in per_workload[0]} == {1.5}


def test_filters_narrow_and_values_add_up() -> None:
    cells = cells_of_steady()
    chosen = select_cells(cells, {"policy": ["mars", "fcfs"], "load": ["1"], "seed": ["2"]})
    assert [(cell.policy, cell.load, cell.seed) for cell in chosen] == [("fcfs", 1.0, 2), ("mars", 1.0, 2)]
    assert {cell.recipe.agents for cell in select_cells(cells, {"agents": ["4"]})} == {4}


def test_a_trace_at_hand_takes_the_place_of_the_profile() -> None:
    text = TOY_GRID.replace(
        'source = "interactive"',
        'source = "interactive"\ntraced = { source = "{trace}?src=x", kv_tokens = 5 }',
    )
    workload = parse_grid(text, "toy").workloads[1]
    there, absent = source_of(workload, "digest"), source_of(workload, None)
    assert (there.source, there.kv_tokens, there.is_stand_in) == ("{trace}?src=x", 5, False)
    assert (absent.source, absent.kv_tokens, absent.is_stand_in) == ("interactive", 2000, True)
