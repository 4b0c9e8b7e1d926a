"""One host that runs tools, in virtual time: what its tools share, and how fast each gets on.

A fluid model, uncalibrated. A tool is so many seconds of progress, one per second on an idle host.

- Cores: while the tools ask for more cores than there are, all that use any get on at ``cores /
  demand``: an ideal fair scheduler without cost of switching. Tools that only wait are not slowed.
- Memory: while the tools hold more than there is, everything on the host gets on slower by
  ``(held / memory) ** thrash_exponent``. No tool is killed, and memory comes back when a tool ends.

Tools of one class all progress at one rate, so each class has one counter of attained service and
a heap of the readings at which its tools are done. A change of the rates touches the two counters,
not the tools: O(log n) an event.

Must not know: queues, slots, other hosts.
"""

import math
from dataclasses import dataclass, field
from heapq import heappop, heappush

from loadgen.workload import ToolCall

THRASH_EXPONENT = 2.0
"""A choice, not a measurement. With n equal tools that together need more than the memory, the host as
a whole does n ** (1 - k) of the work: 1 would lose nothing, so overcommitment would cost nothing; 2 is the
mildest whole number that does: twice the memory, half the work. A host that swaps falls faster, and
one without swap kills, so what a memory budget is worth is understated here."""

PRESSURE_WINDOW_S = 10.0
"""Time constant of the averages, as PSI's ``avg10`` (Linux, Documentation/accounting/psi.rst)."""

ROUNDING = 1e-9
"""Relative: sums of floats that were added and taken away again."""


@dataclass(slots=True, eq=False)
class HostedTool:
    """A tool from its submission on; ``host`` is where it runs."""

    key: str
    call: ToolCall
    queued_s: float
    started_s: float | None = None
    host: "FluidHost | None" = None
    is_gone: bool = False
    """Finished or cancelled: an entry of a heap that is left over."""


@dataclass(slots=True)
class RateClass:
    """Tools that get on at the same rate."""

    rate: float = 1.0
    attained_s: float = 0.0
    """Progress that a tool which had always been here would have."""
    heap: list[tuple[float, int, HostedTool]] = field(default_factory=list)
    """By the reading of ``attained_s`` at which the tool is done, then by start."""

    def head(self) -> HostedTool | None:
        while self.heap and self.heap[0][2].is_gone:
            heappop(self.heap)
        return self.heap[0][2] if self.heap else None

    def head_ends_in_s(self) -> float:
        if self.head() is None:
            return math.inf
        return max(0.0, self.heap[0][0] - self.attained_s) / self.rate

    def pop(self) -> HostedTool:
        done_at_s, _, tool = heappop(self.heap)
        self.attained_s = max(self.attained_s, done_at_s)
        return tool


@dataclass(slots=True)
class Average:
    """Exponential average of a value that changes in steps, 0 to 1."""

    value: float = 0.0

    def hold(self, level: float, seconds: float) -> None:
        """``level`` was the value for so long."""
        self.value += (level - self.value) * (1 - math.exp(-seconds / PRESSURE_WINDOW_S))


class FluidHost:
    def __init__(
        self, cores: float, memory_mb: float | None, thrash_exponent: float = THRASH_EXPONENT
    ) -> None:
        self.cores = cores
        self.memory_mb = memory_mb
        self.thrash_exponent = thrash_exponent
        self.running = 0
        self.cores_wanted = 0.0
        self.memory_used_mb = 0.0
        self.memory_peak_mb = 0.0
        self.cpu_pressure = Average()
        self.memory_pressure = Average()
        self._computing = RateClass()
        self._waiting = RateClass()
        self._settled_s = 0.0
        self._started = 0

    @property
    def load(self) -> tuple[float, int]:
        """The scarcer of cores and memory as a share of what there is, then tools."""
        memory = self.memory_used_mb / self.memory_mb if self.memory_mb else 0.0
        return max(self.cores_wanted / self.cores, memory), self.running

    @property
    def thrashing(self) -> float:
        """Factor by which lack of memory slows everything, 1 if there is none."""
        if self.memory_mb is None or self.memory_used_mb <= self.memory_mb * (1 + ROUNDING):
            return 1.0
        return math.pow(self.memory_used_mb / self.memory_mb, self.thrash_exponent)

    @property
    def is_short_of_cores(self) -> bool:
        return self.cores_wanted > self.cores * (1 + ROUNDING)

    @property
    def cores_busy(self) -> float:
        """Cores that are doing the tools' work, rather than waiting for memory."""
        return min(self.cores_wanted, self.cores) / self.thrashing

    @property
    def next_finish_s(self) -> float:
        return self._settled_s + self._next_class().head_ends_in_s()

    def fits(self, memory_mb: float) -> bool:
        if self.memory_mb is None or self.running == 0:
            return True
        return self.memory_used_mb + memory_mb <= self.memory_mb * (1 + ROUNDING)

    def start(self, tool: HostedTool, now: float) -> None:
        self.settle(now)
        tool.started_s, tool.host = now, self
        rate_class = self._computing if tool.call.cores > 0 else self._waiting
        self._started += 1
        heappush(rate_class.heap, (rate_class.attained_s + tool.call.traced_s, self._started, tool))
        self._count(tool, +1)

    def finish_next(self, now: float) -> HostedTool:
        """The tool of ``next_finish_s``, which is ``now``."""
        rate_class = self._next_class()
        self.settle(now)
        tool = rate_class.pop()
        tool.is_gone = True
        self._count(tool, -1)
        return tool

    def cancel(self, tool: HostedTool, now: float) -> None:
        self.settle(now)
        tool.is_gone = True
        self._count(tool, -1)

    def settle(self, now: float) -> None:
        """Book the time up to ``now`` at the rates that held."""
        seconds = now - self._settled_s
        assert seconds >= 0, f"time goes back from {self._settled_s} to {now}"
        self._settled_s = now
        for rate_class in (self._computing, self._waiting):
            rate_class.attained_s += seconds * rate_class.rate
        self.cpu_pressure.hold(float(self.is_short_of_cores), seconds)
        # Each tool stalls for this share of the time, so some tool does for at least as much.
        self.memory_pressure.hold(1 - 1 / self.thrashing, seconds)

    def _next_class(self) -> RateClass:
        return min(self._computing, self._waiting, key=RateClass.head_ends_in_s)

    def _count(self, tool: HostedTool, change: int) -> None:
        self.running += change
        self.cores_wanted += change * tool.call.cores
        self.memory_used_mb += change * tool.call.memory_mb
        if self.running == 0:
            # Nothing is left of anything: rounding errors go, and readings stay small.
            self.cores_wanted = self.memory_used_mb = 0.0
            self._computing, self._waiting = RateClass(), RateClass()
        self.memory_peak_mb = max(self.memory_peak_mb, self.memory_used_mb)
        slowed = self.thrashing
        self._waiting.rate = 1 / slowed
        self._computing.rate = (self.cores / self.cores_wanted if self.is_short_of_cores else 1.0) / slowed
