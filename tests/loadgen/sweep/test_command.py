"""``loadgen sweep`` on grids that are wrong: words and exit code 2, and no files."""

from pathlib import Path

import pytest

from loadgen.__main__ import run_command
from loadgen.sweep.command import command_line
from tests.loadgen.sweep.toy import TOY_GRID


def test_a_grid_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["sweep", str(tmp_path / "absent.toml"), "--out", str(tmp_path / "out")]) == 2
    assert "one of ablation, closed, comparison, cpu, fidelity, full, reduced" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("right", "wrong", "words"),
    [
        ("sessions = 20", "session = 20", "unknown key 'run.session'; allowed: seeds, policies"),
        ('"priority",', '"priorities",', "is not known; allowed:"),
        ('"admission.kv_target"', '"admission.kv_taget"', "kv_taget is not known; allowed: kv_target"),
    ],
)
def test_a_grid_that_is_wrong(
    right: str, wrong: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "grid.toml"
    text = TOY_GRID.replace('{ name = "oracle", ', '{ name = "mars", label = "oracle", ')
    path.write_text(text.replace('[own_knees]\nof = ["priority"]\n', "").replace(right, wrong))
    assert run_command(["sweep", str(path), "--out", str(tmp_path / "out")]) == 2
    assert words in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "out").exists()


def test_a_filter_that_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["sweep", "reduced", "--only", "colour=red", "--out", str(tmp_path / "out")]) == 2
    assert "--only 'colour=red'; allowed: KEY=VALUE" in capsys.readouterr().err


def test_the_command_in_the_tables_keeps_the_place_of_the_trace_to_itself() -> None:
    line = command_line("full", Path("out/x"), Path("/home/me/traces/t.jsonl.gz"), "seed=1")
    assert line == ["full", "--out", "out/x", "--trace", "t.jsonl.gz", "--only", "seed=1"]
