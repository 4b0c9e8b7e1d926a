"""A whole sweep of the toy: run, stopped, gone on with, and written down."""

from io import StringIO
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from loadgen.errors import LoadgenError
from loadgen.sweep.grid import Grid
from loadgen.sweep.grid_file import parse_grid
from loadgen.sweep.outcomes import OUTCOMES_FILE, read_outcomes
from loadgen.sweep.results import RESULT_FILES, write_results
from loadgen.sweep.run_info import run_info
from loadgen.sweep.runner import RunRecipe
from loadgen.sweep.sweep import SweepOptions, Swept, knee_lines, parse_only, run_sweep, trace_digest
from tests.loadgen.sweep.toy import TOY_GRID, always_failing, failing_on_seed_2, toy_summary


def toy_grid() -> Grid:
    return parse_grid(TOY_GRID, "toy")


def sweep(options: SweepOptions, run: RunRecipe = toy_summary, grid: Grid | None = None) -> Swept:
    return run_sweep(grid or toy_grid(), options, run, Console(file=StringIO()), "0123abc")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Swept]:
    out_dir = tmp_path_factory.mktemp("sweep")
    return out_dir, sweep(SweepOptions(out_dir, workers=2))


@pytest.mark.slow
def test_everything_is_run_and_the_file_is_in_the_order_of_the_grid(swept: tuple[Path, Swept]) -> None:
    out_dir, result = swept
    keys = list(read_outcomes(out_dir / OUTCOMES_FILE))
    in_grid = list(dict.fromkeys(cell.key for cell in result.plan.cells))
    assert keys[: len(in_grid)] == in_grid
    assert result.failed == []
    assert knee_lines(result.plan)[0] == "steady: 0.05 sessions a second"


@pytest.mark.slow
def test_a_second_sweep_has_nothing_to_do(swept: tuple[Path, Swept]) -> None:
    out_dir, result = swept
    before = (out_dir / OUTCOMES_FILE).read_bytes()
    again = sweep(SweepOptions(out_dir, workers=1), failing_on_seed_2)
    assert again.outcomes == result.outcomes
    assert (out_dir / OUTCOMES_FILE).read_bytes() == before


@pytest.mark.slow
def test_what_is_missing_runs_and_nothing_else(swept: tuple[Path, Swept], tmp_path: Path) -> None:
    lines = (swept[0] / OUTCOMES_FILE).read_bytes().splitlines(keepends=True)
    (tmp_path / OUTCOMES_FILE).write_bytes(b"".join(lines[:20]) + lines[20][:30])
    again = sweep(SweepOptions(tmp_path, workers=1))
    assert again.outcomes.keys() == swept[1].outcomes.keys()
    kept = {msgspec.json.decode(line)["key"] for line in lines[:20]}
    same = {key for key in kept if again.outcomes[key] == swept[1].outcomes[key]}
    assert same == kept


@pytest.mark.slow
def test_failures_are_kept_and_can_be_tried_again(tmp_path: Path) -> None:
    grid = toy_grid()
    steady = msgspec.structs.replace(grid, workloads=grid.workloads[:1], own_knees=None)
    first = sweep(SweepOptions(tmp_path, workers=1), failing_on_seed_2, steady)
    assert {outcome.cell.seed for outcome in first.failed} == {2}
    still = sweep(SweepOptions(tmp_path, workers=1), toy_summary, steady)
    assert len(still.failed) == len(first.failed)
    assert not still.is_whole
    healed = sweep(SweepOptions(tmp_path, workers=1, retry_failed=True), toy_summary, steady)
    assert healed.failed == []
    assert healed.is_whole


@pytest.mark.slow
def test_a_failed_search_is_a_failure(tmp_path: Path) -> None:
    searched = msgspec.structs.replace(toy_grid(), workloads=toy_grid().workloads[1:])
    result = sweep(SweepOptions(tmp_path, workers=1, knees_only=True), always_failing, searched)
    assert not result.is_whole
    assert "the toy is broken" in knee_lines(result.plan)[0]


@pytest.mark.slow
def test_only_some_cells(tmp_path: Path) -> None:
    only = parse_only("policy=mars,policy=fcfs,workload=steady,load=1.5,seed=1")
    result = sweep(SweepOptions(tmp_path, workers=1, only=only))
    steady = [one.cell for one in result.outcomes.values() if one.cell.workload == "steady"]
    assert sorted(cell.policy for cell in steady) == ["fcfs", "mars"]


@pytest.mark.slow
def test_results_are_written_for_people_and_programs(swept: tuple[Path, Swept], tmp_path: Path) -> None:
    info = run_info(["toy.toml", "--out", "out dir"], None, swept[1].outcomes.values())
    judgements = write_results(toy_grid(), swept[1], info, tmp_path)
    assert [judgement.verdict for judgement in judgements] == ["PASS", "MISS"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(RESULT_FILES)
    told = msgspec.json.decode((tmp_path / "results.json").read_bytes())
    assert told["knees_per_s"]["steady"] == 0.05
    assert told["info"]["command"] == "loadgen sweep toy.toml --out 'out dir'"
    figures = {(c["workload"], c["policy"], c["load"]): c["figures"] for c in told["cells"]}
    assert figures["steady", "fcfs", 1.0]["jct_s.mean"] == {"1": 202.0, "2": 204.0, "3": 206.0}


@pytest.mark.parametrize("text", ["policy", "policy=", "colour=red", "load=heavy"])
def test_filters_that_mean_nothing(text: str) -> None:
    with pytest.raises(LoadgenError, match="--only"):
        parse_only(text)


def test_a_trace_is_known_by_its_content(tmp_path: Path) -> None:
    one, two, other = (tmp_path / name for name in ("one", "two", "other"))
    for path, content in ((one, "same"), (two, "same"), (other, "not")):
        path.write_text(content)
    assert trace_digest(one) == trace_digest(two) != trace_digest(other)
    assert trace_digest(None) is None
    with pytest.raises(LoadgenError, match="--trace"):
        trace_digest(tmp_path / "absent")
