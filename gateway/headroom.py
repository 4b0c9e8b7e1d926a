"""What this host has and has left.

Owns reading /proc and the shapes in which it is told. Unreadable is unknown, never 0.
"""

from collections.abc import Callable
from pathlib import Path

from gateway.limits import usable_cores
from gateway.protocol import HostStatus
from gateway.slots import SlotQueue
from marsproxy.core.events import ToolHostsObserved

_KIB_PER_MB = 1_000_000 / 1024


class LocalHost:
    def __init__(
        self, name: str, slots: SlotQueue, clock: Callable[[], float], proc: Path = Path("/proc")
    ) -> None:
        self.name = name
        self.is_draining = False
        self._slots = slots
        self._clock = clock
        self._proc = proc

    def observe(self) -> ToolHostsObserved:
        """For the proxy. Its ``cores`` are our slots: what we hand out is what there is to be had."""
        return ToolHostsObserved(
            cores=self._slots.slots,
            running=self._slots.running,
            queued=self._slots.queued,
            memory_available_mb=self._memory_mb("MemAvailable"),
            memory_total_mb=self._memory_mb("MemTotal"),
            cpu_pressure=self._pressure("cpu"),
            memory_pressure=self._pressure("memory"),
            queue_wait_s=self._slots.wait_s(self._clock()),
        )

    def status(self) -> HostStatus:
        slots = self._slots
        return HostStatus(
            name=self.name,
            slots=slots.slots,
            slots_used=slots.used,
            cores=usable_cores(),
            running=slots.running,
            queued=slots.queued,
            queue_limit=slots.queue_limit,
            is_draining=self.is_draining,
            load_1m=self._load_1m(),
            memory_total_mb=self._memory_mb("MemTotal"),
            memory_available_mb=self._memory_mb("MemAvailable"),
            cpu_pressure=self._pressure("cpu"),
            memory_pressure=self._pressure("memory"),
            queue_wait_s=slots.wait_s(self._clock()),
        )

    def _pressure(self, resource: str) -> float | None:
        """Share of the last ten seconds in which some task was stalled. Kernels without PSI have no such
        file, and where it is switched off (psi=0) reading it fails."""
        try:
            words = (self._proc / "pressure" / resource).read_text().split("\n", 1)[0].split()
            kind, average = words[:2]
            if kind != "some" or not average.startswith("avg10="):
                return None
            return float(average.removeprefix("avg10=")) / 100
        except (OSError, ValueError):
            return None

    def _load_1m(self) -> float | None:
        try:
            return float((self._proc / "loadavg").read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return None

    def _memory_mb(self, field: str) -> int | None:
        try:
            lines = (self._proc / "meminfo").read_text().splitlines()
            values = dict(line.split(":", 1) for line in lines)
            return int(int(values[field].split()[0]) / _KIB_PER_MB)
        except (OSError, ValueError, KeyError, IndexError):
            return None
