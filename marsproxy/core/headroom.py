"""What is known of the machines right now, and how old the knowledge is. ``None`` is not zero."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

from marsproxy.core.events import BackendObserved, ToolHostsObserved
from marsproxy.core.sessions import SessionState

ALL_HOSTS = ""
"""Name under which a gateway speaks of all its hosts together."""
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
    models: frozenset[str] | None = None
    """Those that it serves; None where it did not say."""
    is_draining: bool = False
    """It takes no new session, and none back that has lost its place."""
    has_left: bool = False
    """It is gone, and turns that were in flight there have not ended yet."""
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

    def leave(self) -> None:
        """It is gone; should one of its name come again, nothing is known of that."""
        self.has_left = True
        self.is_reachable = self.takes_hints = False
        self.kv_tokens_total = self.observed_at_s = self.preemptions_total = None

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
    """The gateway's last word on each of its hosts.

    Hosts are known by name, or, from a gateway that does not name them, all together as "". A named one that
    was heard of lately says more, so then "" counts for nothing.
    """

    def __init__(self) -> None:
        self._hosts: dict[str, _HostReading] = {}
        self._fresh: list[ToolHostsObserved] = []
        """Those not stale, until one is heard of again or the oldest of them grows stale."""
        self._together: ToolHostsObserved | None = None
        """Their sum."""
        self._oldest_s: float | None = None
        """Reading of the oldest of them; None before they were put together."""

    @property
    def last(self) -> ToolHostsObserved | None:
        """All hosts together, as they were last heard of; None before anything was."""
        return together([reading.last for reading in self._told()])

    @property
    def observed_at_s(self) -> float:
        return max((reading.observed_at_s for reading in self._hosts.values()), default=0.0)

    def observe(self, event: ToolHostsObserved, now: float) -> None:
        if event.host in self._hosts or len(self._hosts) < MAX_TOOL_HOSTS:
            self._hosts[event.host] = _HostReading(event, now)
            self._oldest_s = None

    def fresh(self, now: float, stale_s: float) -> ToolHostsObserved | None:
        """All hosts together, without those that have not been heard of lately; None if that is all."""
        self._refresh(now, stale_s)
        return self._together

    def each(self, now: float, stale_s: float) -> list[ToolHostsObserved]:
        """The same one by one; [] if none was heard of lately."""
        self._refresh(now, stale_s)
        return self._fresh

    def wait_s(self, host: str | None, now: float, stale_s: float) -> float | None:
        """How long tools wait for a slot of that host; the longest of all waits if it is not known."""
        reading = self._hosts.get(host or ALL_HOSTS)
        if reading is not None and now - reading.observed_at_s <= stale_s:
            return reading.last.queue_wait_s
        all_hosts = self.fresh(now, stale_s)
        return None if all_hosts is None else all_hosts.queue_wait_s

    def _refresh(self, now: float, stale_s: float) -> None:
        if self._oldest_s is None or now - self._oldest_s > stale_s:
            known = [each for each in self._hosts.values() if now - each.observed_at_s <= stale_s]
            known = [each for each in known if each.last.host != ALL_HOSTS] or known
            self._fresh = [reading.last for reading in known]
            self._together = together(self._fresh)
            self._oldest_s = min((reading.observed_at_s for reading in known), default=inf)

    def _told(self) -> list[_HostReading]:
        named = [reading for name, reading in self._hosts.items() if name != ALL_HOSTS]
        return named or list(self._hosts.values())


def together(hosts: Sequence[ToolHostsObserved]) -> ToolHostsObserved | None:
    """One host that stands for all: amounts are added, pressure and wait are the worst host's. An amount that
    one of them does not tell is unknown. None for no hosts."""
    if len(hosts) < 2:
        return hosts[0] if hosts else None
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
