"""Which cgroup trees this host has mounted, and where in each this process may put groups of its own.

Owns reading /proc/self/mountinfo and /proc/self/cgroup, and trying out. Hosts differ: one v2 tree with
everything (systemd today), v1 trees per controller beside an empty v2 tree, or nothing that may be written.
What is found is used, in any mixture; nothing is mounted, and nobody else's groups are changed but for the
controllers that a v2 group passes on to ours.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.host_agent.abandoned_groups import remove_abandoned

CONTROLLERS = ("memory", "pids", "cpu")
"""That hold limits. v1 counts CPU time in ``cpuacct`` and stops groups in ``freezer``."""
_OF_V1 = (*CONTROLLERS, "cpuacct", "freezer")


@dataclass(frozen=True)
class Tree:
    """The group of ours in one mounted tree; each command gets one inside it."""

    parent: Path
    is_v2: bool
    controllers: frozenset[str]
    """Of v2: those that groups inside ``parent`` have."""


def find_trees(name: str, mountinfo: str | None = None, own_groups: str | None = None) -> Iterator[Tree]:
    """``name`` is what our group is called. Makes it where it can; those trees where a process of ours can
    be put into a group inside it."""
    mounts = mountinfo if mountinfo is not None else Path("/proc/self/mountinfo").read_text()
    own = _own_groups(own_groups if own_groups is not None else Path("/proc/self/cgroup").read_text())
    seen: set[str] = set()
    for mount in _mounts(mounts):
        kinds = [kind for kind in (("",) if mount.is_v2 else _OF_V1) if kind in mount.kinds and kind in own]
        if not kinds or not seen.isdisjoint(kinds):
            continue
        tree = _best_tree(mount, own[kinds[0]], name)
        if tree is not None:
            remove_abandoned(tree.parent)
            seen.update(kinds)
            yield tree if mount.is_v2 else Tree(tree.parent, False, frozenset(kinds))


@dataclass(frozen=True)
class _Mount:
    point: Path
    root: str
    """The group that is mounted there."""
    is_v2: bool
    kinds: frozenset[str]
    """v1: its controllers; v2: the empty name, as /proc/self/cgroup has it."""


def _mounts(text: str) -> Iterator[_Mount]:
    """proc(5): fields before " - " are 4 root, 5 mount point; after it type, source, options."""
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, _, *options) = before.split(), (after.split() or ["", ""])
        if kind == "cgroup2":
            yield _Mount(Path(fields[4]), fields[3], True, frozenset({""}))
        elif kind == "cgroup" and options:
            yield _Mount(Path(fields[4]), fields[3], False, frozenset(options[0].split(",")))


def _own_groups(text: str) -> Mapping[str, str]:
    own: dict[str, str] = {}
    for line in text.splitlines():
        _, kinds, path = line.split(":", 2)
        own.update(dict.fromkeys(kinds.split(","), path))
    return own


def _best_tree(mount: _Mount, own: str, name: str) -> Tree | None:
    """Inside our own group, so that what bounds us bounds the commands; at the top of the tree if only there
    a v2 group passes controllers on (a group with processes in it may not, but for the top one)."""
    places = [mount.point]
    if own != mount.root:
        places.insert(0, mount.point / os.path.relpath(own, mount.root))
    best: Tree | None = None
    for place in places:
        tree = _tree_at(place / name, mount.is_v2)
        if tree is None or (best is not None and not tree.controllers > best.controllers):
            _remove(place / name)
        else:
            if best is not None:
                _remove(best.parent)
            best = tree
    return best


def make_parent(parent: Path, is_v2: bool) -> None:
    """Again, should another agent have taken it for one that is abandoned. Raises OSError."""
    if is_v2:
        _pass_on_controllers(parent.parent)
    parent.mkdir(exist_ok=True)
    if is_v2:
        _pass_on_controllers(parent)


def _tree_at(parent: Path, is_v2: bool) -> Tree | None:
    try:
        make_parent(parent, is_v2)
        probe = parent / f"probe-{os.getpid()}"
        probe.mkdir(exist_ok=True)
        try:
            if not _can_enter(probe):
                return None
            controllers = (probe / "cgroup.controllers").read_text().split() if is_v2 else ()
            return Tree(parent, is_v2, frozenset(controllers) & frozenset(CONTROLLERS))
        finally:
            _remove(probe)
    except OSError:
        return None


def _pass_on_controllers(group: Path) -> None:
    for controller in CONTROLLERS:
        with contextlib.suppress(OSError):  # It has none such, or may not.
            (group / "cgroup.subtree_control").write_text(f"+{controller}")


def _can_enter(group: Path) -> bool:
    """Tried by a child: in v2 it depends on who owns the groups on the way from ours, too."""
    procs = os.open(group / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
    try:
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                os.write(procs, b"0")
                os._exit(0)
            os._exit(1)
        return os.waitpid(child, 0)[1] == 0
    finally:
        os.close(procs)


def _remove(group: Path) -> None:
    with contextlib.suppress(OSError):
        group.rmdir()
