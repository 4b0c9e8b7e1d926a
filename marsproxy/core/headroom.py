"""What is known of the machines right now, and how old the knowledge is. ``None`` is not zero."""

from dataclasses import dataclass, field
from math import inf

from marsproxy.core.events import BackendObserved, ToolHostsObserved
from marsproxy.core.sessions import SessionState

MAX_TOOL_HOSTS = 4_096
"""Hosts that are remembered; a fleet is smaller, and a report cannot make the table grow for ever."""


@dataclass(slots=True)
class BackendState:
    """One vLLM: its last reading, and what has been promised to sessions on it."""

    name: str
    kv_tokens_total: int | None = None
    observed_at_s: float | None = None
    is_reachable: bool = True
    takes_hints: bool = False
    preemptions_total: int | None = None
    counted: dict[str, SessionState] = field(default_factory=dict)
    """Sessions charged to the budget, by id, in the order in which they were charged."""
    reserved_tokens: float = 0.0
    """Sum of the charges; what families share is in it once."""
    context_tokens: int = 0
    """Sum of the contexts of counted sessions; what families share is in it once."""
    computed_tokens: int = 0
    """Prompt tokens that were not cached, and answers, ever since: what pushes idle blocks out."""
    families: dict[str, int] = field(default_factory=dict)
    """Counted sessions of each family."""

    def observe(self, event: BackendObserved, now: float) -> None:
        self.kv_tokens_total = event.kv_tokens_total or self.kv_tokens_total
        self.observed_at_s = now
        self.is_reachable = True
        self.takes_hints = event.takes_hints

    def is_fresh(self, now: float, stale_s: float) -> bool:
        return self.is_reachable and self.observed_at_s is not None and now - self.observed_at_s <= stale_s

    def charge(self, session: SessionState) -> None:
        session.is_counted = True
        session.backend = self.name
        self.counted[session.id] = session

    def release(self, session: SessionState) -> None:
        session.is_counted = False
        del self.counted[session.id]

    def known_pool_tokens(self, now: float, stale_s: float) -> int | None:
        """Size of the KV pool in tokens; None while telemetry is missing or stale."""
        return self.kv_tokens_total if self.is_fresh(now, stale_s) else None


@dataclass(slots=True)
class _HostReading:
    last: ToolHostsObserved
    observed_at_s: float


class ToolHosts:
    """The gateway's last word on each of its hosts."""

    def __init__(self) -> None:
        self._hosts: dict[str, _HostReading] = {}
        self._together: ToolHostsObserved | None = None
        """Those not stale, until one is heard of again or the oldest of them grows stale."""
        self._oldest_s: float | None = None
        """Reading of the oldest of them; None before they were put together."""

    @property
    def last(self) -> ToolHostsObserved | None:
        """All hosts together, as they were last heard of; None before anything was."""
        if not self._hosts:
            return None
        return _sum([reading.last for reading in self._hosts.values()])

    @property
    def observed_at_s(self) -> float:
        return max((reading.observed_at_s for reading in self._hosts.values()), default=0.0)

    def observe(self, event: ToolHostsObserved, now: float) -> None:
        if event.host in self._hosts or len(self._hosts) < MAX_TOOL_HOSTS:
            self._hosts[event.host] = _HostReading(event, now)
            self._oldest_s = None

    def wait_s(self, host: str | None, now: float, stale_s: float) -> float | None:
        """How long tools wait for a slot of that host; of all together if it is not known by itself."""
        reading = self._hosts.get(host or "")
        if reading is None or now - reading.observed_at_s > stale_s:
            together = self.fresh(now, stale_s)
            return None if together is None else together.queue_wait_s
        return reading.last.queue_wait_s

    def fresh(self, now: float, stale_s: float) -> ToolHostsObserved | None:
        """All hosts together, without those that have not been heard of lately; None if that is all."""
        if self._oldest_s is None or now - self._oldest_s > stale_s:
            known = [reading for reading in self._hosts.values() if now - reading.observed_at_s <= stale_s]
            self._together = _sum([reading.last for reading in known]) if known else None
            self._oldest_s = min((reading.observed_at_s for reading in known), default=inf)
        return self._together


def _sum(hosts: list[ToolHostsObserved]) -> ToolHostsObserved:
    """One host that stands for all: amounts are added, pressure is the worst, unknown stays unknown."""
    if len(hosts) == 1:
        return hosts[0]
    return ToolHostsObserved(
        cores=_total([host.cores for host in hosts]),
        running=_count([host.running for host in hosts]),
        queued=_count([host.queued for host in hosts]),
        memory_available_mb=_count([host.memory_available_mb for host in hosts]),
        memory_total_mb=_count([host.memory_total_mb for host in hosts]),
        cpu_pressure=_worst([host.cpu_pressure for host in hosts]),
        memory_pressure=_worst([host.memory_pressure for host in hosts]),
        queue_wait_s=_worst([host.queue_wait_s for host in hosts]),
    )


def _total(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _count(values: list[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _worst(values: list[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)
