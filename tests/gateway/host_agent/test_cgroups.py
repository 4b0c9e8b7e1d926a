"""What is written to the kernel's files, and what is read from them, on directories that stand for groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.host_agent.cgroup_trees import Tree
from gateway.host_agent.cgroups import Cgroups, Limits, Use

ALL = frozenset({"memory", "pids", "cpu"})


@pytest.fixture
def v2(tmp_path: Path) -> Tree:
    return Tree(tmp_path, True, ALL)


@pytest.fixture
def v1(tmp_path: Path) -> Tree:
    return Tree(tmp_path, False, ALL | {"cpuacct", "freezer"})


def written(group: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in group.iterdir()}


def test_limits_in_the_words_of_v2(v2: Tree) -> None:
    Cgroups([v2]).open("ex", Limits(memory_mb=100, pids=7, cpu_max=1.5, cpu_weight=2.0))
    assert written(v2.parent / "ex") == {
        "memory.max": "100000000",
        "pids.max": "7",
        "cpu.max": "150000 100000",
        "cpu.weight": "200",
    }


def test_limits_in_the_words_of_v1(v1: Tree) -> None:
    Cgroups([v1]).open("ex", Limits(memory_mb=100, pids=7, cpu_max=1.5, cpu_weight=0.5))
    assert written(v1.parent / "ex") == {
        "memory.limit_in_bytes": "100000000",
        "pids.max": "7",
        "cpu.cfs_quota_us": "150000",
        "cpu.shares": "512",
    }


@pytest.mark.parametrize(("weight", "shares"), [(0.0001, "2"), (1e6, "262144")])
def test_weights_stay_within_what_the_kernel_takes(v1: Tree, weight: float, shares: str) -> None:
    Cgroups([v1]).open("ex", Limits(cpu_weight=weight))
    assert written(v1.parent / "ex") == {"cpu.shares": shares}


def test_use_in_the_words_of_v2(v2: Tree) -> None:
    group = Cgroups([v2]).open("ex", Limits())
    assert group.use() == Use()
    files = {
        "cpu.stat": "usage_usec 1500000\nuser_usec 1\n",
        "memory.stat": "anon 5000000\nfile 9000000\nshmem 1000000\n",
        "memory.peak": "20000000\n",
        "memory.events": "oom 3\noom_kill 2\n",
    }
    for name, text in files.items():
        (v2.parent / "ex" / name).write_text(text)
    assert group.use() == Use(cpu_s=1.5, rss_mb=5.0, peak_mb=12.0, oom_kills=2)


def test_use_in_the_words_of_v1(v1: Tree) -> None:
    group = Cgroups([v1]).open("ex", Limits())
    files = {
        "cpuacct.usage": "1500000000\n",
        "memory.stat": "cache 1\ntotal_rss 5000000\ntotal_cache 9000000\ntotal_shmem 1000000\n",
        "memory.max_usage_in_bytes": "20000000\n",
        "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    }
    for name, text in files.items():
        (v1.parent / "ex" / name).write_text(text)
    assert group.use() == Use(cpu_s=1.5, rss_mb=5.0, peak_mb=12.0, oom_kills=2)


def test_the_peak_is_the_most_that_was_seen(v2: Tree) -> None:
    """The kernel's own peak is of memory with file cache, and hides what was there before the cache."""
    group = Cgroups([v2]).open("ex", Limits())
    stat, peak = v2.parent / "ex/memory.stat", v2.parent / "ex/memory.peak"
    stat.write_text("anon 50000000\nfile 0\nshmem 0\n")
    peak.write_text("50000000\n")
    assert group.use().peak_mb == 50.0
    stat.write_text("anon 1000000\nfile 300000000\nshmem 0\n")
    peak.write_text("301000000\n")
    assert group.use().peak_mb == 50.0


def test_a_group_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    trees = [Tree(tmp_path / "a", True, frozenset()), Tree(tmp_path / "none", False, frozenset({"cpu"}))]
    (tmp_path / "a").mkdir()
    (tmp_path / "none").touch()
    with pytest.raises(OSError, match="Not a directory"):
        Cgroups(trees).open("ex", Limits())
    assert list((tmp_path / "a").iterdir()) == []


def test_a_group_of_ours_that_was_taken_away_is_made_again(tmp_path: Path) -> None:
    """By another agent, which took it for abandoned."""
    tree = Tree(tmp_path / "ours", True, ALL)
    cgroups = Cgroups([tree])
    cgroups.open("ex", Limits(memory_mb=100))
    assert written(tree.parent / "ex")["memory.max"] == "100000000"
    assert (tree.parent / "ex").is_dir()
