"""The script that measures a GPU: that it measures on what there is, and says so where there is none."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from backend_patch.step_time import HardwareProfile

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]

SCRIPT = Path(__file__).parents[1] / "gpu" / "step_times.py"


def measure(*options: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(SCRIPT), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)


def test_without_a_gpu_nothing_is_measured_and_that_is_said() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.fail("these tests are for machines without a GPU; run tests/gpu/step_times.py itself")
    done = measure()
    assert (done.returncode, done.stdout) == (77, "")
    assert "SKIPPED, NOTHING MEASURED" in done.stderr


@pytest.mark.parametrize("model", ["tiny", "qwen3-30b-a3b"])
def test_what_it_prints_is_a_hardware_profile(model: str, tmp_path: Path) -> None:
    """One layer on the CPU: the figures say nothing, the way to them is the same."""
    out = tmp_path / "measured.toml"
    small = ("--layers", "1", "--repeats", "1", "--largest", "5000", "--out", str(out))
    done = measure("--device", "cpu", "--hardware", "cpu", "--model", model, *small)
    assert done.returncode == 0, done.stderr
    assert done.stdout == out.read_text("utf-8")
    profile = HardwareProfile.load(str(out))
    assert profile.name == "cpu-measured"
    assert model in profile.source
    assert list(tomllib.loads(done.stdout)) == ["cpu-measured"]
    assert done.stdout.count("\n# 1 0 ") == 4  # chunks of 256 to 4,096 tokens without context
