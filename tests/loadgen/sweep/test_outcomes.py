"""What is on disk is what was run, whenever the sweep was stopped."""

from pathlib import Path

import msgspec
import pytest

from loadgen.errors import LoadgenError
from loadgen.sweep.cells import Cell, Recipe
from loadgen.sweep.outcomes import Outcome, OutcomeFile, read_outcomes, write_in_order


def outcome(seed: int, *, error: str | None = None) -> Outcome:
    recipe = Recipe("autonomous", 10, seed, "h100", "m", 1000, "mars", rate_per_s=0.5)
    cell = Cell("steady", "mars", seed, recipe, load=1.0)
    return Outcome(cell.key, cell, None if error else {"jct_s": {"mean": 1.0 * seed}}, error)


def test_a_sweep_goes_on_with_what_another_one_left(tmp_path: Path) -> None:
    path = tmp_path / "new" / "sweep.jsonl"
    with OutcomeFile(path) as file:
        file.add(outcome(1))
    with OutcomeFile(path) as file:
        assert file.outcomes == {outcome(1).key: outcome(1)}
        file.add(outcome(2, error="no"))
        file.forget_failures()
        assert list(file.outcomes) == [outcome(1).key]
        file.add(outcome(2))
    assert read_outcomes(path) == {outcome(1).key: outcome(1), outcome(2).key: outcome(2)}


def test_a_torn_line_runs_again_and_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "sweep.jsonl"
    whole = msgspec.json.encode(outcome(1))
    path.write_bytes(whole + b"\n" + whole[:40])
    with OutcomeFile(path) as file:
        assert list(file.outcomes) == [outcome(1).key]
        file.add(outcome(2))
    assert list(read_outcomes(path)) == [outcome(1).key, outcome(2).key]


def test_the_finished_file_is_in_the_order_of_the_grid(tmp_path: Path) -> None:
    path = tmp_path / "sweep.jsonl"
    one, two, three = (outcome(seed) for seed in (1, 2, 3))
    write_in_order(path, {each.key: each for each in (three, one, two)}, [two.key, one.key, "not run"])
    assert list(read_outcomes(path)) == [two.key, one.key, three.key]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(LoadgenError, match="cannot be written"),
        OutcomeFile(tmp_path / "file" / "sweep.jsonl"),
    ):
        pass
