"""Layouts of other hosts, in directories that look like them."""

from __future__ import annotations

import os
from pathlib import Path

from gateway.host_agent.cgroup_trees import CONTROLLERS, Tree, find_trees
from gateway.host_agent.cgroups import Cgroups, Limits


def mount(number: int, point: Path, kind: str, options: str, root: str = "/") -> str:
    return f"{number} 1 0:{number} {root} {point} rw,nosuid shared:9 - {kind} cgroup rw,{options}\n"


def group(path: Path, controllers: str = "") -> Path:
    """What a process may be written into; no kernel makes the files of groups in it."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "cgroup.procs").touch()
    (path / "cgroup.controllers").write_text(controllers)
    (path / "cgroup.subtree_control").touch()
    return path


def test_a_host_without_any(tmp_path: Path) -> None:
    assert list(find_trees("ours", "", "")) == []
    assert list(find_trees("ours", mount(1, tmp_path, "ext4", "x"), "0::/\n")) == []
    assert list(find_trees("ours", mount(1, tmp_path / "none", "cgroup2", "x"), "0::/\n")) == []


def test_trees_that_nothing_can_enter_are_not_used(tmp_path: Path) -> None:
    """A plain directory makes no cgroup.procs in what is made inside: as with a tree that is read-only."""
    text = mount(1, group(tmp_path), "cgroup2", "nsdelegate")
    assert list(find_trees("ours", text, "0::/user.slice\n")) == []
    assert [path.name for path in tmp_path.iterdir() if path.is_dir() and path.name.startswith("probe")] == []


def test_this_host_is_looked_at_and_left_as_it_was() -> None:
    name = f"mars-test-{os.getpid()}"
    trees = list(find_trees(name))
    kinds = [kind for tree in trees for kind in (tree.controllers or {"v2"})]
    assert len(kinds) == len(set(kinds)), "each controller is in one tree"
    assert all(tree.parent.is_dir() and tree.parent.name == name for tree in trees)
    cgroups = Cgroups(trees)
    assert cgroups.is_any is bool(trees)
    assert cgroups.controllers <= set(CONTROLLERS)
    cgroups.close()
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines() if " cgroup" in line]
    assert [path for mount in mounts for path in Path(mount).glob(f"**/{name}")] == []


def test_v1_trees_that_only_count_are_for_hosts_without_v2(tmp_path: Path) -> None:
    v2 = Tree(tmp_path / "v2", True, frozenset())
    count = Tree(tmp_path / "cpuacct", False, frozenset({"cpuacct"}))
    pids = Tree(tmp_path / "pids", False, frozenset({"pids"}))
    for tree in (v2, count, pids):
        tree.parent.mkdir()
    assert Cgroups([v2, count, pids]).version == "v1+v2"
    assert Cgroups([count]).version == "v1"
    assert Cgroups([v2]).version == "v2"
    assert Cgroups([]).version == "none"
    Cgroups([v2, count, pids]).open("ex-1", Limits())
    assert [(tree.parent / "ex-1").exists() for tree in (v2, count, pids)] == [True, False, False]
    Cgroups([count, pids]).open("ex-2", Limits(pids=5))
    assert (tmp_path / "pids/ex-2/pids.max").read_text() == "5"
    assert (tmp_path / "cpuacct/ex-2").is_dir()
