"""The program of a workspace works, and its traces say what was done."""

import subprocess
import sys
from pathlib import Path

from loadgen.agents.workspace import missing, prepare


def step(folder: Path, number: int, *options: str) -> str:
    command = [sys.executable, "step.py", str(number), *options, "--seed=7"]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def test_a_step_prints_as_much_as_it_is_told_and_the_same_for_the_same_seed(tmp_path: Path) -> None:
    prepare(tmp_path / "w")
    outputs = [step(tmp_path / "w", 1, "--seconds=0", "--cpu=0.01", "--chars=500") for _ in range(2)]
    assert outputs[0] == outputs[1]
    assert len(outputs[0].strip()) in range(490, 511)


def test_the_work_is_whole_if_every_step_was_done_once_and_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "w"
    prepare(folder)
    assert missing(folder, 2) == "the workspace shows 0 steps, 0 of them different; planned were 2"
    for number in (1, 2):
        step(folder, number, "--seconds=0", "--cpu=0", "--chars=1")
    assert missing(folder, 2) is None
    step(folder, 2, "--seconds=0", "--cpu=0", "--chars=1")
    assert missing(folder, 2) == "the workspace shows 3 steps, 2 of them different; planned were 2"
