"""The hosts that run the tools, in virtual time; the caller owns the clock.

A tool is queued, starts and finishes, and each of these is one ``ToolStep``. With ``SHARING`` (agents
that run their own commands) everything starts at once and shares a host; with ``SLOTS`` (what the
tool gateway does) tools wait in one queue, first come first served, for a slot and for their
memory on the least loaded host. What a host then does with them is ``tool_host``'s.

A tool that takes neither cores nor memory (a client's own time, an approval) is not on any host: it
takes as long as it is described, and nothing here counts it. Without a shape all tools do, but they
are counted.

Call ``advance`` up to ``now`` before anything else happens at ``now``; the others do it themselves if
it was left out, and return what was due with what they did.

Must not know: sessions, policies, the wall clock.
"""

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum
from heapq import heappop, heappush
from math import inf

from loadgen.errors import LoadgenError
from loadgen.sim.tool_host import THRASH_EXPONENT, FluidHost, HostedTool
from loadgen.workload import ToolCall
from marsproxy.core.events import ToolHostsObserved, ToolPhase

QUEUE_WAIT_GAIN = 0.2
"""Weight of the latest tool in the smoothed wait for a slot: five tools are what is remembered."""


class Discipline(Enum):
    SHARING = "sharing"
    SLOTS = "slots"


@dataclass(frozen=True, slots=True)
class ToolHostShape:
    cores: float
    """Of each host."""
    memory_mb: float | None = None
    """Of each host; None is more than anything needs."""
    discipline: Discipline = Discipline.SLOTS
    hosts: int = 1
    slots_per_core: float = 1.0
    """Tools that may run at a time for each core; one slot at least."""
    thrash_exponent: float = THRASH_EXPONENT
    """How fast a host slows down whose tools hold more memory than it has."""

    def __post_init__(self) -> None:
        if not 0 < self.cores < inf:
            raise LoadgenError(f"cores of a tool host are {self.cores}; allowed: more than 0")
        if self.memory_mb is not None and not 0 < self.memory_mb < inf:
            raise LoadgenError(f"memory of a tool host is {self.memory_mb} MB; allowed: more than 0")
        if self.hosts < 1:
            raise LoadgenError(f"{self.hosts} tool hosts; allowed: 1 or more")
        if not 0 < self.slots_per_core < inf:
            raise LoadgenError(f"slots per core are {self.slots_per_core}; allowed: more than 0")
        if not 0 <= self.thrash_exponent < inf:
            raise LoadgenError(f"thrash exponent is {self.thrash_exponent}; allowed: 0 or more")

    @property
    def slots(self) -> int:
        """Of each host."""
        return max(1, int(self.slots_per_core * self.cores))


@dataclass(frozen=True, slots=True)
class ToolStep:
    key: str
    phase: ToolPhase
    at_s: float
    queue_s: float | None = None
    """From queued to started; known from the start on."""
    run_s: float | None = None
    """From started to finished; known at the end."""
    memory_peak_mb: float | None = None
    """What the tool held; known at the end."""


class ToolHosts:
    def __init__(self, shape: ToolHostShape | None) -> None:
        self.shape = shape
        self._hosts = [make_host(shape) for _ in range(shape.hosts)] if shape else []
        self._tools: dict[str, HostedTool] = {}
        self._queue: OrderedDict[str, HostedTool] = OrderedDict()
        self._apart: list[tuple[float, int, HostedTool]] = []
        """On no host, by the time of their end."""
        self._submitted = 0
        self._running_apart = 0
        self._queue_wait_s: float | None = None

    @property
    def queued(self) -> int:
        return len(self._queue)

    @property
    def running(self) -> int:
        return self._running_apart + sum(host.running for host in self._hosts)

    @property
    def cores_busy(self) -> float:
        return sum(host.cores_busy for host in self._hosts)

    @property
    def memory_used_mb(self) -> float:
        return sum(host.memory_used_mb for host in self._hosts)

    @property
    def memory_peak_mb(self) -> float:
        """Most that any one host has held so far."""
        return max((host.memory_peak_mb for host in self._hosts), default=0.0)

    @property
    def next_change_s(self) -> float | None:
        """When ``advance`` has something to do."""
        at_s = min((host.next_finish_s for host in self._hosts), default=inf)
        at_s = min(at_s, self._next_apart_s())
        return None if at_s == inf else at_s

    def submit(self, key: str, call: ToolCall, now: float) -> list[ToolStep]:
        """The tool is queued, and has started if it could at once. A key is in use until its tool is over."""
        steps = self.advance(now)
        assert key not in self._tools, f"tool {key} is there twice"
        tool = self._tools[key] = HostedTool(key, call, queued_s=now)
        steps.append(ToolStep(key, ToolPhase.QUEUED, now))
        if not self._hosts or is_apart(call):
            return [*steps, self._start_apart(tool, now)]
        self._queue[key] = tool
        return steps + self._start_queued(now)

    def advance(self, now: float) -> list[ToolStep]:
        """All steps that are due up to ``now``, in order."""
        steps: list[ToolStep] = []
        while (at_s := self.next_change_s) is not None and at_s <= now:
            steps.append(self._finish_next(at_s))
            steps += self._start_queued(at_s)
        return steps

    def cancel(self, key: str, now: float) -> list[ToolStep]:
        """The tool is gone without another step; those that it kept waiting start. Unknown keys are over."""
        steps = self.advance(now)
        tool = self._tools.pop(key, None)
        if tool is None:
            return steps
        if self._queue.pop(key, None) is None:
            if tool.host is not None:
                tool.host.cancel(tool, now)
            else:
                self._leave_apart(tool)
        return steps + self._start_queued(now)

    def observed(self, now: float) -> ToolHostsObserved:
        """All hosts together, as one gateway reports them; of the pressures, the worst host's."""
        for host in self._hosts:
            host.settle(now)
        shape = self.shape
        if shape is None:
            return ToolHostsObserved(running=self.running, queued=0)
        has_memory = shape.memory_mb is not None
        return ToolHostsObserved(
            cores=shape.cores * shape.hosts,
            running=self.running,
            queued=self.queued,
            memory_available_mb=self._memory_available_mb(shape.memory_mb),
            memory_total_mb=None if shape.memory_mb is None else int(shape.memory_mb * shape.hosts),
            cpu_pressure=max(host.cpu_pressure.value for host in self._hosts),
            memory_pressure=max(host.memory_pressure.value for host in self._hosts) if has_memory else None,
            queue_wait_s=self._queue_wait_s,
        )

    def _memory_available_mb(self, memory_mb: float | None) -> int | None:
        if memory_mb is None:
            return None
        return int(sum(max(0.0, memory_mb - host.memory_used_mb) for host in self._hosts))

    def _start_queued(self, now: float) -> list[ToolStep]:
        """From the head of the queue, as long as it fits: nothing overtakes."""
        steps: list[ToolStep] = []
        while self._queue:
            tool = next(iter(self._queue.values()))
            host = self._host_for(tool.call)
            if host is None:
                break
            self._queue.popitem(last=False)
            host.start(tool, now)
            steps.append(started(tool, now))
            self._learn_wait(now - tool.queued_s)
        return steps

    def _host_for(self, call: ToolCall) -> FluidHost | None:
        shape = self.shape
        assert shape is not None
        hosts = self._hosts
        if shape.discipline is Discipline.SLOTS:
            hosts = [host for host in hosts if host.running < shape.slots and host.fits(call.memory_mb)]
        return min(hosts, key=lambda host: host.load, default=None)

    def _learn_wait(self, wait_s: float) -> None:
        before_s = wait_s if self._queue_wait_s is None else self._queue_wait_s
        self._queue_wait_s = before_s + QUEUE_WAIT_GAIN * (wait_s - before_s)

    def _finish_next(self, at_s: float) -> ToolStep:
        if self._next_apart_s() <= at_s:
            tool = heappop(self._apart)[2]
            self._leave_apart(tool)
        else:
            host = min(self._hosts, key=lambda host: host.next_finish_s)
            tool = host.finish_next(at_s)
        del self._tools[tool.key]
        return finished(tool, at_s)

    def _start_apart(self, tool: HostedTool, now: float) -> ToolStep:
        self._submitted += 1
        heappush(self._apart, (now + tool.call.traced_s, self._submitted, tool))
        self._running_apart += not is_apart(tool.call)
        tool.started_s = now
        return started(tool, now)

    def _leave_apart(self, tool: HostedTool) -> None:
        tool.is_gone = True
        self._running_apart -= not is_apart(tool.call)

    def _next_apart_s(self) -> float:
        while self._apart and self._apart[0][2].is_gone:
            heappop(self._apart)
        return self._apart[0][0] if self._apart else inf


def make_host(shape: ToolHostShape) -> FluidHost:
    return FluidHost(shape.cores, shape.memory_mb, shape.thrash_exponent)


def is_apart(call: ToolCall) -> bool:
    """It uses nothing that a host has."""
    return call.cores == 0 and call.memory_mb == 0


def started(tool: HostedTool, now: float) -> ToolStep:
    return ToolStep(tool.key, ToolPhase.STARTED, now, queue_s=now - tool.queued_s)


def finished(tool: HostedTool, now: float) -> ToolStep:
    assert tool.started_s is not None
    return ToolStep(
        tool.key,
        ToolPhase.FINISHED,
        now,
        queue_s=tool.started_s - tool.queued_s,
        run_s=now - tool.started_s,
        memory_peak_mb=tool.call.memory_mb,
    )
