"""What this host has and has left.

Owns reading /proc and the agent's own cgroup. Unreadable is unknown, never 0. Where the agent is in a
container, the smaller of machine and container counts. It must not know commands beyond their names.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gateway.host_agent.operations import Caller, Operations
from gateway.host_agent.own_cgroup import OwnCgroup
from gateway.host_agent.wire import Frame, Op

_MB = 1_000_000
_KIB = 1024
CPU_INTERVAL_S = 0.2
"""Readings of the processors' time that are closer say little: it is counted in hundredths of a second."""

Usage = Callable[[], Mapping[str, Mapping[str, "float | None"]]]


class Observer:
    def __init__(
        self,
        directory: Path,
        usage: Usage,
        clock: Callable[[], float] = time.monotonic,
        proc: Path = Path("/proc"),
    ) -> None:
        self._directory = directory
        self._usage = usage
        self._proc = proc
        self._cgroup = OwnCgroup(proc)
        self._cpu = _CpuBusy(proc, self._cgroup, clock)

    def operations(self) -> Operations:
        return {Op.OBSERVE: self._observe}

    def capabilities(self) -> dict[str, Any]:
        return {"has_pressure": self._pressure("cpu") is not None}

    async def _observe(self, request: Frame, caller: Caller) -> Frame:
        return Frame({**self.reading(), "execs": self._usage()})

    def reading(self) -> dict[str, float | int | None]:
        total_mb, available_mb = self._memory_mb()
        return {
            "cores": self.cores(),
            "load_1m": self._load_1m(),
            "cpu_busy": self._cpu.read(),
            "cpu_pressure": self._pressure("cpu"),
            "memory_pressure": self._pressure("memory"),
            "memory_total_mb": total_mb,
            "memory_available_mb": available_mb,
            "disk_free_mb": self._disk_free_mb(),
            "processes": self._processes(),
        }

    def cores(self) -> float:
        """That our commands may use: by affinity, and by quota where that is less."""
        affinity = float(len(os.sched_getaffinity(0)))
        quota = self._cgroup.quota_cores()
        return affinity if quota is None else min(affinity, quota)

    def _load_1m(self) -> float | None:
        try:
            return float((self._proc / "loadavg").read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return None

    def _pressure(self, resource: str) -> float | None:
        """Share of the last ten seconds in which some task was stalled. Kernels without PSI have no such
        file, and where it is switched off (psi=0) reading it fails."""
        try:
            kind, average = (self._proc / "pressure" / resource).read_text().split("\n", 1)[0].split()[:2]
            if kind != "some" or not average.startswith("avg10="):
                return None
            return float(average[len("avg10=") :]) / 100
        except (OSError, ValueError):
            return None

    def _memory_mb(self) -> tuple[int | None, int | None]:
        total, available = self._machine_memory("MemTotal"), self._machine_memory("MemAvailable")
        own = self._cgroup.memory()
        if own is not None:
            limit, left = own
            total = limit if total is None else min(total, limit)
            available = left if available is None else min(available, left)
        return (None if total is None else total // _MB, None if available is None else available // _MB)

    def _machine_memory(self, field: str) -> int | None:
        """Bytes."""
        try:
            lines = (self._proc / "meminfo").read_text().splitlines()
            values = dict(line.split(":", 1) for line in lines)
            return int(values[field].split()[0]) * _KIB
        except (OSError, ValueError, KeyError, IndexError):
            return None

    def _disk_free_mb(self) -> int | None:
        try:
            found = os.statvfs(self._directory)
        except OSError:
            return None
        return found.f_bavail * found.f_frsize // _MB

    def _processes(self) -> int | None:
        try:
            return sum(1 for entry in os.scandir(self._proc) if entry.name.isdigit()) or None
        except OSError:
            return None


class _CpuBusy:
    """Share of the time since the reading before in which the cores worked: those of the machine, or of our
    quota where that is used up more."""

    def __init__(self, proc: Path, cgroup: OwnCgroup, clock: Callable[[], float]) -> None:
        self._proc = proc
        self._cgroup = cgroup
        self._clock = clock
        self._last_share: float | None = None
        self._last_at_s = clock()
        self._last_ticks = self._ticks()
        self._last_used_s = cgroup.cpu_s()

    def read(self) -> float | None:
        now = self._clock()
        elapsed_s = now - self._last_at_s
        if elapsed_s < CPU_INTERVAL_S:
            return self._last_share
        ticks, used_s = self._ticks(), self._cgroup.cpu_s()
        shares = [self._of_machine(ticks), self._of_quota(used_s, elapsed_s)]
        known = [min(1.0, max(0.0, share)) for share in shares if share is not None]
        self._last_share = max(known) if known else None
        self._last_at_s, self._last_ticks, self._last_used_s = now, ticks, used_s
        return self._last_share

    def _of_machine(self, ticks: tuple[int, int] | None) -> float | None:
        if ticks is None or self._last_ticks is None or ticks[1] <= self._last_ticks[1]:
            return None
        return (ticks[0] - self._last_ticks[0]) / (ticks[1] - self._last_ticks[1])

    def _of_quota(self, used_s: float | None, elapsed_s: float) -> float | None:
        quota = self._cgroup.quota_cores()
        if used_s is None or self._last_used_s is None or quota is None:
            return None
        return (used_s - self._last_used_s) / (elapsed_s * quota)

    def _ticks(self) -> tuple[int, int] | None:
        """Of all cores: worked, and in all. ``guest`` and ``guest_nice`` are in ``user`` and ``nice`` too."""
        try:
            words = (self._proc / "stat").read_text().split("\n", 1)[0].split()
            user, nice, system, idle, iowait, irq, softirq, steal = (int(word) for word in words[1:9])
        except (OSError, ValueError):
            return None
        busy = user + nice + system + irq + softirq + steal
        return busy, busy + idle + iowait
