"""From a log of an engine with known parameters to a profile with the same ones, and its refusals."""

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from backend_patch.step_time import HardwareProfile
from loadgen.__main__ import EXIT_BAD_INPUT, run_command
from loadgen.engine.config import EngineConfig
from loadgen.profiles.distribution import parse_distribution
from tests.loadgen.calibration.recorded import GAP_S, Recording

TRUE = replace(
    HardwareProfile.load("h100"), compute_efficiency=0.52, memory_efficiency=0.61, step_overhead_s=0.007
)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("log")
    Recording(TRUE, noise=0.03, request_overhead_s=0.005).write(directory)
    return directory


def test_the_printed_table_is_the_hardware_that_served(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Within a tenth, from measurements that are off by a few per cent; and the engine takes the file."""
    assert run_command(["calibrate", str(log)]) == 0
    said = capsys.readouterr()
    file = tmp_path / "mine.toml"
    file.write_text(said.out)
    found = HardwareProfile.load(str(file))
    assert found.name == "h100-calibrated"
    for name in ("compute_efficiency", "memory_efficiency", "step_overhead_s"):
        assert getattr(found, name) == pytest.approx(getattr(TRUE, name), rel=0.1), name
    for name in ("peak_flops", "memory_bytes_per_s", "memory_bytes"):
        assert getattr(found, name) == getattr(TRUE, name)
    assert "relative error median" in found.source
    assert "relative error median" in said.err
    assert EngineConfig(hardware=str(file)).resolve().step_time.hardware == found


def test_tools_gaps_and_tokens_are_printed_beside_it(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the form that profiles of workloads have."""
    run_command(["calibrate", str(log), "--name", "mine"])
    tables = tomllib.loads(capsys.readouterr().out)
    assert tables["mine"]["description"] == TRUE.description
    assert tables["engine"]["kv_tokens"] == 400_000
    assert tables["engine"]["request_overhead_s"] == pytest.approx(0.005, rel=0.5)
    assert tables["engine"]["bytes_per_prompt_token"] == pytest.approx(5.0, rel=0.01)
    tool = tables["tools"]["ls"]
    assert tool["count"] == 12 * 8
    assert parse_distribution("duration_s", tool["duration_s"]).at(0.5) == pytest.approx(1.5, rel=0.1)
    gap = parse_distribution("gap_s", tables["gaps"]["bash"]["gap_s"])
    assert gap.at(0.5) == pytest.approx(GAP_S, rel=0.2)


@pytest.mark.parametrize(
    ("recording", "said"),
    [
        (Recording(TRUE, sessions=1, turns=4), "too few turns"),
        (Recording(TRUE, sessions=4, has_usage=False), "32 of them without usage"),
        (Recording(TRUE, sessions=30, turns=3, overlapping=True), "--concurrency 1"),
    ],
    ids=["short", "usage", "shared"],
)
def test_too_little_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], recording: Recording, said: str
) -> None:
    """With what is missing, and how to get it."""
    recording.write(tmp_path)
    assert run_command(["calibrate", str(tmp_path)]) == EXIT_BAD_INPUT
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--hardware", "b200"], "known: a100, cpu, h100, h200"),
        (["--hardware", "absent.toml"], "absent.toml"),
        (["--model", "gpt"], "known: llama"),
    ],
)
def test_an_unknown_profile_is_named(
    log: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert run_command(["calibrate", str(log), *options]) == EXIT_BAD_INPUT
    assert said in capsys.readouterr().err


def test_times_of_no_engine_are_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Here each phase takes anything from nothing to three times its time."""
    Recording(TRUE, noise=0.6).write(tmp_path)
    assert run_command(["calibrate", str(tmp_path)]) == 0
    assert "do not take the time" in capsys.readouterr().err


def test_another_accelerator_is_suspected(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """More than the hardware can do is not believed in silence."""
    assert run_command(["calibrate", str(log), "--hardware", "cpu"]) == 0
    assert "compute_efficiency is above 1" in capsys.readouterr().err
