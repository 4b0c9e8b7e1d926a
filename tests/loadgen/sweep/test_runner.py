"""Cells in processes of their own: all results come back, and a failure is a result."""

import os
from typing import Any

import pytest

from loadgen.errors import LoadgenError
from loadgen.sweep.cells import Cell, Recipe
from loadgen.sweep.outcomes import Outcome
from loadgen.sweep.runner import Setting, open_workers
from tests.loadgen.sweep.toy import failing_on_seed_2, toy_summary


def cells(count: int) -> list[Cell]:
    recipes = [Recipe("s", 1, seed, "h", "m", 1, "mars", rate_per_s=1.0) for seed in range(1, count + 1)]
    return [Cell("w", "mars", recipe.seed, recipe, load=1.0) for recipe in recipes]


def process_id(recipe: Recipe, setting: Setting) -> dict[str, Any]:
    return {"process": os.getpid()}


def die(recipe: Recipe, setting: Setting) -> dict[str, Any]:
    os._exit(9)


@pytest.mark.slow
def test_every_cell_comes_back_once() -> None:
    ended: list[Outcome] = []
    with open_workers(failing_on_seed_2, Setting(commit="0123abc"), 2) as workers:
        workers.run_cells(cells(9), ended.append)
        workers.run_cells([], ended.append)
    by_seed = {outcome.cell.seed: outcome for outcome in ended}
    assert sorted(by_seed) == list(range(1, 10))
    assert len(ended) == 9
    assert by_seed[2].error == "RuntimeError: the toy is broken"
    assert by_seed[2].summary is None
    assert by_seed[3].summary == toy_summary(by_seed[3].cell.recipe, Setting())
    assert {outcome.commit for outcome in ended} == {"0123abc"}
    assert all(outcome.key == outcome.cell.key for outcome in ended)


@pytest.mark.slow
def test_simulations_run_elsewhere() -> None:
    ended: list[Outcome] = []
    with open_workers(process_id, Setting(), 1) as workers:
        workers.run_cells(cells(2), ended.append)
    processes = {outcome.summary["process"] for outcome in ended if outcome.summary}
    assert len(processes) == 1
    assert os.getpid() not in processes


@pytest.mark.slow
def test_a_killed_worker_ends_the_sweep_with_words() -> None:
    with pytest.raises(LoadgenError, match="fewer --workers"), open_workers(die, Setting(), 1) as workers:
        workers.run_cells(cells(1), lambda outcome: None)


@pytest.mark.slow
def test_an_interrupt_leaves_no_worker() -> None:
    processes: list[int] = []

    def stop(outcome: Outcome) -> None:
        processes.append((outcome.summary or {})["process"])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), open_workers(process_id, Setting(), 1) as workers:
        workers.run_cells(cells(50), stop)
    with pytest.raises(ProcessLookupError):
        os.kill(processes[0], 0)
