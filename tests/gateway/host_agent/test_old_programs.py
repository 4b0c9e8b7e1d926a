"""Which programs of earlier agents go."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gateway.host_agent.old_programs import clear_up


def name_of(number: int) -> str:
    return f"agent-{number:064x}.pyz"


def put(directory: Path, *names: str, age_s: float = 0.0) -> None:
    """The first is the oldest."""
    for number, name in enumerate(names):
        (directory / name).write_text("import time; print(flush=True); time.sleep(300)")
        os.utime(directory / name, (time.time() - age_s - len(names) + number,) * 2)


def names_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_the_two_that_came_last_are_kept_and_nothing_else_is_touched(tmp_path: Path) -> None:
    others = {"agent.sock", "agent.log", "lock", "agent-x.pyz", f"agent-{'g' * 64}.pyz"}
    put(tmp_path, *others, age_s=10_000)
    put(tmp_path, *(name_of(n) for n in (9, 5, 7, 1)))
    (tmp_path / "execs").mkdir()
    assert sorted(clear_up(tmp_path)) == [name_of(5), name_of(9)]
    assert names_in(tmp_path) == {*others, "execs", name_of(7), name_of(1)}
    assert clear_up(tmp_path) == []


@pytest.mark.parametrize("by", ["{}", "./{}"])
def test_one_that_runs_is_kept(tmp_path: Path, by: str) -> None:
    put(tmp_path, *(name_of(n) for n in range(4)))
    command = [sys.executable, by.format(name_of(0)), "serve"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        running.stdout.readline()
        assert clear_up(tmp_path) == [name_of(1)]
        running.kill()
    assert clear_up(tmp_path) == [name_of(0)]


def test_what_is_half_written_goes_when_its_sender_is_long_gone(tmp_path: Path) -> None:
    old, young = f"{name_of(1)}.4711", f"{name_of(1)}.4712"
    put(tmp_path, old, f".{old}", age_s=7200)
    put(tmp_path, young, f".{young}")
    assert sorted(clear_up(tmp_path)) == sorted([old, f".{old}"])
    assert names_in(tmp_path) == {young, f".{young}"}


def test_a_directory_that_is_not_there_is_no_matter(tmp_path: Path) -> None:
    assert clear_up(tmp_path / "none") == []
