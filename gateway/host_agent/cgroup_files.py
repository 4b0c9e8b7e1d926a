"""The kernel's own files of control groups: their names and formats, of cgroup v2 and v1 (Linux
Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/).

Owns what is written for a limit and how a reading is made of what a file says. Must not know whose group it
is.
"""

from __future__ import annotations

import os
from pathlib import Path

_MB = 1_000_000
_CPU_PERIOD_US = 100_000
"""The kernel's default for both versions."""
_V1_SHARES = 1024
_V2_WEIGHT = 100
"""The kernel's defaults: what a group that said nothing has."""
_OPTIONAL = ("memory.swap.max", "memory.memsw.limit_in_bytes")
"""Kernels without swap accounting have no such file."""


def memory_limit(megabytes: int, is_v2: bool) -> list[tuple[str, str]]:
    """With swap in it: a command that swaps is slower than one that is ended, and drags others down."""
    in_bytes = str(megabytes * _MB)
    if is_v2:
        return [("memory.max", in_bytes), ("memory.swap.max", "0")]
    return [("memory.limit_in_bytes", in_bytes), ("memory.memsw.limit_in_bytes", in_bytes)]


def cpu_weight(weight: float, is_v2: bool) -> tuple[str, str]:
    if is_v2:
        return "cpu.weight", str(min(max(round(weight * _V2_WEIGHT), 1), 10_000))
    return "cpu.shares", str(min(max(round(weight * _V1_SHARES), 2), 262_144))


def cpu_max(cores: float, is_v2: bool) -> tuple[str, str]:
    quota_us = max(1000, round(cores * _CPU_PERIOD_US))  # The kernel takes no less.
    if is_v2:
        return "cpu.max", f"{quota_us} {_CPU_PERIOD_US}"
    return "cpu.cfs_quota_us", str(quota_us)


def write(path: Path, value: str) -> None:
    if path.name in _OPTIONAL:
        try_write(path, value)
    else:
        path.write_text(value)


def try_write(path: Path, value: str) -> bool:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)  # Never made if it is not there.
    except OSError:
        return False
    try:
        os.write(fd, value.encode())
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def memory_v2(path: Path) -> tuple[float | None, float | None, int | None]:
    """Resident now, most ever, both in MB and without file cache, and kills for lack of it."""
    stat = fields(path / "memory.stat")
    cache = max(stat.get("file", 0) - stat.get("shmem", 0), 0)
    oom_kills = fields(path / "memory.events").get("oom_kill")
    return _mb(stat.get("anon")), _peak_mb(number(path / "memory.peak"), cache), oom_kills


def memory_v1(path: Path) -> tuple[float | None, float | None, int | None]:
    """The same."""
    stat = fields(path / "memory.stat")
    cache = max(stat.get("total_cache", 0) - stat.get("total_shmem", 0), 0)
    oom_kills = fields(path / "memory.oom_control").get("oom_kill")
    return _mb(stat.get("total_rss")), _peak_mb(number(path / "memory.max_usage_in_bytes"), cache), oom_kills


def _peak_mb(peak: int | None, cache: int) -> float | None:
    return None if peak is None else max(peak - cache, 0) / _MB


def _mb(size: int | None) -> float | None:
    return None if size is None else size / _MB


def fields(path: Path) -> dict[str, int]:
    """Of a file with a name and a number in each line; empty if it cannot be read."""
    pairs = [line.split() for line in text(path).splitlines()]
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def number(path: Path) -> int | None:
    said = text(path).strip()
    return int(said) if said.isdigit() else None


def text(path: Path) -> str:
    """Empty if it cannot be read."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - half the system calls of Path's
            return file.read().decode()
    except OSError:
        return ""
