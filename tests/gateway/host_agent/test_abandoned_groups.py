"""Which groups of other agents go, on directories that stand for groups: a full one cannot."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gateway.host_agent import abandoned_groups as rule
from gateway.host_agent.abandoned_groups import group_name, remove_abandoned
from gateway.host_agent.containment import find_containment

OWN = "mars-agent-0123456789ab"


def group(tree: Path, name: str, *, age_s: float = 3600.0, has_process: bool = False) -> Path:
    path = tree / name
    path.mkdir(parents=True)
    if has_process:
        (path / "process").touch()
    for each in (path, path.parent):
        os.utime(each, (time.time() - age_s,) * 2)
    return path


def names_in(tree: Path) -> list[str]:
    return sorted(path.name for path in tree.iterdir())


def test_empty_ones_go_with_what_is_empty_in_them(tmp_path: Path) -> None:
    group(tmp_path, OWN)
    group(tmp_path, "mars-agent-dead")
    group(tmp_path / "mars-agent-left", "ex-1")
    group(tmp_path / "mars-agent-left", "ex-2")
    group(tmp_path, "somebody-else-s")
    assert remove_abandoned(tmp_path / OWN) == 2
    assert names_in(tmp_path) == [OWN, "somebody-else-s"]


def test_what_runs_or_was_made_just_now_stays(tmp_path: Path) -> None:
    group(tmp_path / "mars-agent-busy", "ex-1", has_process=True)
    group(tmp_path / "mars-agent-busy", "ex-2")
    group(tmp_path, "mars-agent-young", age_s=1.0)
    group(tmp_path / "mars-agent-starting", "ex-1", age_s=1.0)
    os.utime(tmp_path / "mars-agent-starting", (0, 0))
    os.utime(tmp_path / "mars-agent-busy", (0, 0))
    assert remove_abandoned(tmp_path / OWN) == 0
    assert names_in(tmp_path) == ["mars-agent-busy", "mars-agent-starting", "mars-agent-young"]
    assert names_in(tmp_path / "mars-agent-busy") == ["ex-1"]


@pytest.mark.parametrize("flags", [[], ["--until-eof"]])
def test_one_of_an_agent_that_is_seen_to_run_stays(tmp_path: Path, flags: list[str]) -> None:
    directory = tmp_path / "agent"
    directory.mkdir()
    (tmp_path / "link").symlink_to(directory)
    name = group(tmp_path / "tree", group_name(directory)).name
    program = "import time; print(flush=True); time.sleep(300)"
    command = [sys.executable, "-c", program, "serve", *flags, str(tmp_path / "link")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        running.stdout.readline()
        assert remove_abandoned(tmp_path / "tree" / OWN) == 0
        running.kill()
    assert remove_abandoned(tmp_path / "tree" / OWN) == 1
    assert not (tmp_path / "tree" / name).exists()


def test_a_start_does_not_do_more_than_it_has_time_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rule, "MOST", 3)
    for number in range(5):
        group(tmp_path, f"mars-agent-{number}")
    assert [remove_abandoned(tmp_path / OWN) for _ in range(3)] == [3, 2, 0]


def test_the_name_is_the_one_that_containment_gives(tmp_path: Path) -> None:
    containment = find_containment(tmp_path)
    containment.close()
    assert containment.owner == group_name(tmp_path)
