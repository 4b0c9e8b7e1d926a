from collections.abc import Callable
from pathlib import Path

import pytest
from cyclopts import App

from loadgen.report import report_command

WriteRun = Callable[..., Path]


def run_command(*arguments: str | Path) -> int:
    app = App(name="loadgen", result_action="return_value")
    app.command(report_command, name="report")
    status = app(["report", *map(str, arguments)])
    assert isinstance(status, int)
    return status


def test_the_command_finds_the_runs_below_a_directory(
    tmp_path: Path, write_run: WriteRun, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("direct", "mars"):
        write_run(tmp_path / "runs" / name, label=name, sessions=3)
    out = tmp_path / "new" / "report.html"
    assert run_command(tmp_path / "runs", tmp_path / "runs" / "mars", "--out", out, "--title", "Tuesday") == 0
    assert "<h1>Tuesday</h1>" in out.read_text(encoding="utf-8")
    assert out.with_suffix(".json").is_file()
    assert capsys.readouterr().out.strip() == f"report: {out}"


def test_a_directory_without_runs_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(tmp_path, "--out", tmp_path / "report.html") == 2
    assert f"{tmp_path}: no run here or below" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def test_no_directory_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command() == 2
    assert "name at least one run directory" in capsys.readouterr().err
