"""Control groups, one per command: its limits, what it used, and that nothing of it can hide.

Owns the groups of this agent and which of the kernel's files says what (``cgroup_files`` has their formats).
Must not know what a command is.

A command's *group* is a directory of the same name in every tree that we may write (``cgroup_trees``): one
with everything, or one for each controller. A process cannot leave them without write access to them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.host_agent import cgroup_files as files
from gateway.host_agent.cgroup_trees import CONTROLLERS, Tree, make_parent

_EMPTY_AFTER_S = 2.0
"""What was killed is gone in milliseconds, unless it hangs in the kernel."""
_LONGEST_POLL_S = 0.05


@dataclass(frozen=True)
class Limits:
    """None: no limit of that kind."""

    memory_mb: int | None = None
    pids: int | None = None
    cpu_max: float | None = None
    """Cores."""
    cpu_weight: float = 1.0
    """Share beside other commands."""


@dataclass(frozen=True)
class Use:
    """None is unknown."""

    cpu_s: float | None = None
    rss_mb: float | None = None
    peak_mb: float | None = None
    """Without file cache, which the kernel takes back when it needs room: the most that any look at
    ``rss_mb`` found, and no less than the kernel's own peak without the cache that is left of it."""
    oom_kills: int | None = None


class Cgroups:
    """The trees of this agent. None of them: ``is_any`` is false and ``open`` is not to be called."""

    def __init__(self, trees: Iterable[Tree]) -> None:
        found = tuple(trees)
        self._parents = tuple(tree.parent for tree in found)
        self._trees = _needed(found)
        self.controllers = frozenset(c for tree in self._trees for c in tree.controllers) & set(CONTROLLERS)
        self.is_any = bool(self._trees)
        self.version = "none"
        if self.is_any:
            v2 = any(tree.is_v2 for tree in self._trees)
            v1 = any(not tree.is_v2 for tree in self._trees)
            self.version = "v1+v2" if v1 and v2 else "v2" if v2 else "v1"

    def open(self, name: str, limits: Limits) -> Group:
        """Raises OSError, and then leaves nothing."""
        group = Group({tree: tree.parent / name for tree in self._trees if _is_of_use(tree, limits)})
        try:
            self._make(group, limits)
        except OSError:
            group.remove()
            raise
        return group

    def _make(self, group: Group, limits: Limits) -> None:
        try:
            group.make(limits)
        except FileNotFoundError:
            group.remove()
            for tree in self._trees:
                make_parent(tree.parent, tree.is_v2)
            group.make(limits)

    def left_over(self) -> Iterator[Group]:
        """Of an earlier agent."""
        for name in sorted({path.name for tree in self._trees for path in _groups_in(tree.parent)}):
            yield Group({tree: tree.parent / name for tree in self._trees})

    def close(self) -> None:
        """Where nothing is left in it."""
        for parent in self._parents:
            _remove(parent)


def _needed(found: tuple[Tree, ...]) -> tuple[Tree, ...]:
    """Any v2 tree counts CPU time and stops groups; v1 trees that do only that are for hosts without one."""
    if any(tree.is_v2 for tree in found):
        return tuple(tree for tree in found if tree.is_v2 or not tree.controllers.isdisjoint(CONTROLLERS))
    return found


def _is_of_use(tree: Tree, limits: Limits) -> bool:
    """A v1 tree that only counts processes is for those that have a limit of them."""
    return tree.is_v2 or limits.pids is not None or not tree.controllers <= {"pids"}


class Group:
    """Of one command."""

    def __init__(self, paths: Mapping[Tree, Path]) -> None:
        self._paths = paths
        self._most_rss_mb = 0.0
        self._v2 = next((path for tree, path in paths.items() if tree.is_v2), None)
        self._by_controller = {c: (tree, path) for tree, path in paths.items() for c in tree.controllers}

    def make(self, limits: Limits) -> None:
        for path in self._paths.values():
            path.mkdir()
        for controller, writes in _settings(limits):
            if controller not in self._by_controller:
                continue  # Who asked for a limit that nobody holds was refused before.
            tree, path = self._by_controller[controller]
            for file, value in writes(tree.is_v2):
                files.write(path / file, value)

    def entrances(self) -> list[int]:
        """Descriptors by which a child enters: "0" written to each is itself. For the caller to close."""
        fds: list[int] = []
        try:
            for path in self._paths.values():
                fds.append(os.open(path / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC))  # noqa: PERF401
        except OSError:
            for fd in fds:
                os.close(fd)
            raise
        return fds

    def pids(self) -> list[int]:
        """Living processes; a zombie is in none. They are in all trees, so any will do."""
        path = self._v2 or next(iter(self._paths.values()))
        return [int(pid) for pid in files.text(path / "cgroup.procs").split()]

    def has(self, pid: int) -> bool:
        return pid in self.pids()

    def kill(self) -> None:
        """SIGKILL to all that are in it now, in one stroke where the kernel has that (5.14)."""
        if self._v2 is not None and files.try_write(self._v2 / "cgroup.kill", "1"):
            return
        self._freeze(True)  # Who is stopped does not fork faster than we kill.
        for pid in self.pids():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        self._freeze(False)

    async def killed(self) -> bool:
        """Kill until none is left. False: something hangs in the kernel."""
        until_s = time.monotonic() + _EMPTY_AFTER_S
        pause_s = 0.0005
        while self.pids():
            if time.monotonic() > until_s:
                return False
            self.kill()
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_POLL_S)
        return True

    def use(self) -> Use:
        memory = self._by_controller.get("memory")
        cpu_s = self._cpu_s()
        if memory is None:
            return Use(cpu_s)
        tree, path = memory
        rss_mb, peak_mb, oom_kills = files.memory_v2(path) if tree.is_v2 else files.memory_v1(path)
        self._most_rss_mb = max(self._most_rss_mb, rss_mb or 0.0, peak_mb or 0.0)
        return Use(cpu_s, rss_mb, self._most_rss_mb or None, oom_kills)

    def remove(self) -> bool:
        """False: it is not empty yet."""
        removed = [_remove(path) for path in self._paths.values()]
        return all(removed)

    def _freeze(self, is_frozen: bool) -> None:
        if "freezer" in self._by_controller:
            freezer = self._by_controller["freezer"][1]
            files.try_write(freezer / "freezer.state", "FROZEN" if is_frozen else "THAWED")
        elif self._v2 is not None:
            files.try_write(self._v2 / "cgroup.freeze", "1" if is_frozen else "0")

    def _cpu_s(self) -> float | None:
        """v2 counts it in every group, with the cpu controller or without."""
        if self._v2 is not None:
            used_us = files.fields(self._v2 / "cpu.stat").get("usage_usec")
            return None if used_us is None else used_us / 1e6
        if "cpuacct" in self._by_controller:
            used_ns = files.number(self._by_controller["cpuacct"][1] / "cpuacct.usage")
            return None if used_ns is None else used_ns / 1e9
        return None


_Writes = Callable[[bool], "list[tuple[str, str]]"]


def _settings(limits: Limits) -> Iterator[tuple[str, _Writes]]:
    if limits.memory_mb is not None:
        memory_mb = limits.memory_mb
        yield "memory", lambda is_v2: files.memory_limit(memory_mb, is_v2)
    if limits.pids is not None:
        most = str(limits.pids)
        yield "pids", lambda _: [("pids.max", most)]
    weight = limits.cpu_weight
    if weight != 1.0:
        yield "cpu", lambda is_v2: [files.cpu_weight(weight, is_v2)]
    if limits.cpu_max is not None:
        cores = limits.cpu_max
        yield "cpu", lambda is_v2: [files.cpu_max(cores, is_v2)]


def _groups_in(parent: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return [Path(entry.path) for entry in os.scandir(parent) if entry.is_dir()]
    return []


def _remove(group: Path) -> bool:
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
