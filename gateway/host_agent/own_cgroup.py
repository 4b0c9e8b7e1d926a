"""The limits that this process lives under: those of its cgroups, version 2 or 1, and of theirs above.

Owns finding and reading them. None: there is no limit, or none that can be read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_NO_LIMIT_BYTES = 1 << 60
"""Version 1 says "no limit" by a number near 2^63."""


class OwnCgroup:
    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._memory = _lineage(proc, "memory")
        self._cpu = _lineage(proc, "cpu")
        self._cpuacct = _lineage(proc, "cpuacct")

    def quota_cores(self) -> float | None:
        quotas = [quota for quota in map(_quota, self._cpu) if quota is not None]
        return min(quotas) if quotas else None

    def memory(self) -> tuple[int, int] | None:
        """Bytes: the smallest limit, and the least that is left of any."""
        found = [each for each in map(_memory, self._memory) if each is not None]
        if not found:
            return None
        return min(limit for limit, _ in found), min(left for _, left in found)

    def cpu_s(self) -> float | None:
        """Used by the cgroup whose quota is the least, so far."""
        limited = [path for path in self._cpu if _quota(path) is not None]
        if not limited:
            return None
        tightest = min(limited, key=lambda path: _quota(path) or 0.0)
        micro_s = _field(tightest / "cpu.stat", "usage_usec")
        if micro_s is not None:
            return micro_s / 1e6
        at = self._cpu.index(tightest)
        nano_s = _number(self._cpuacct[at] / "cpuacct.usage") if at < len(self._cpuacct) else None
        return None if nano_s is None else nano_s / 1e9


def _lineage(proc: Path, controller: str) -> list[Path]:
    """Our cgroup for a controller and those above it, ours first: in version 2's tree if that has the
    controller, else in version 1's."""
    try:
        ours = _own_paths((proc / "self" / "cgroup").read_text())
        mounts = list(_mounts((proc / "self" / "mountinfo").read_text()))
    except (OSError, ValueError):
        return []
    for name in (controller, ""):
        for names, root, mount in mounts:
            if name in names and name in ours:
                return list(_upwards(mount, root, ours[name]))
    return []


def _own_paths(text: str) -> dict[str, str]:
    """By controller; "" is version 2."""
    paths = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        paths.update(dict.fromkeys(controllers.split(","), path))
    return paths


def _mounts(text: str) -> Iterator[tuple[set[str], str, Path]]:
    """Controllers ("" is version 2), which part of the tree is mounted, where."""
    for line in text.splitlines():
        mounted, filesystem = line.split(" - ", 1)
        kind, _, options = filesystem.split(" ", 2)
        root, where = mounted.split()[3:5]
        if kind == "cgroup2":
            yield {""}, root, Path(where)
        elif kind == "cgroup":
            yield set(options.split(",")), root, Path(where)


def _upwards(mount: Path, root: str, own: str) -> Iterator[Path]:
    try:
        below = PurePosixPath(own).relative_to(root)
    except ValueError:  # it is not in what we can see; the top of that is as near as we get
        below = PurePosixPath()
    if ".." in below.parts:
        below = PurePosixPath()
    yield mount / below
    for above in below.parents:
        if above != below:
            yield mount / above


def _quota(path: Path) -> float | None:
    """Cores."""
    try:
        quota, period = (path / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    micro_s, period_micro_s = _number(path / "cpu.cfs_quota_us"), _number(path / "cpu.cfs_period_us")
    if micro_s is None or micro_s <= 0 or not period_micro_s:
        return None
    return micro_s / period_micro_s


def _memory(path: Path) -> tuple[int, int] | None:
    """Bytes: limit, and what is left. Files read but not in use count as left, as in MemAvailable."""
    limit, used = _number(path / "memory.max"), _number(path / "memory.current")
    idle = _field(path / "memory.stat", "inactive_file")
    if limit is None:
        limit, used = _number(path / "memory.limit_in_bytes"), _number(path / "memory.usage_in_bytes")
        idle = _field(path / "memory.stat", "total_inactive_file")
    if limit is None or used is None or limit >= _NO_LIMIT_BYTES:
        return None
    return limit, max(0, limit - used + (idle or 0))


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _field(path: Path, name: str) -> int | None:
    try:
        values = dict(line.split(" ", 1) for line in path.read_text().splitlines())
        return int(values[name])
    except (OSError, ValueError, KeyError):
        return None
