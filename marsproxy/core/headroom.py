"""What is known of the machines right now, and how old the knowledge is. ``None`` is not zero."""

from dataclasses import dataclass, field

from marsproxy.core.events import BackendObserved, ToolHostsObserved
from marsproxy.core.sessions import SessionState


@dataclass(slots=True)
class BackendState:
    """One vLLM: its last reading, and what has been promised to sessions on it."""

    name: str
    kv_tokens_total: int | None = None
    observed_at_s: float | None = None
    is_reachable: bool = True
    counted: dict[str, SessionState] = field(default_factory=dict)
    """Sessions charged to the budget, by id."""

    def observe(self, event: BackendObserved, now: float) -> None:
        self.kv_tokens_total = event.kv_tokens_total or self.kv_tokens_total
        self.observed_at_s = now
        self.is_reachable = True

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
class ToolHosts:
    """The gateway's last word on its hosts."""

    last: ToolHostsObserved | None = None
    observed_at_s: float = 0.0

    def observe(self, event: ToolHostsObserved, now: float) -> None:
        self.last = event
        self.observed_at_s = now

    def are_busy(self, now: float, *, per_core: float, stale_s: float) -> bool:
        """Whether more agents would only make the tools' queue longer. Unknown is "no"."""
        if self.last is None or now - self.observed_at_s > stale_s:
            return False
        if self.last.cores is None or self.last.running is None or self.last.queued is None:
            return False
        return self.last.running + self.last.queued >= per_core * self.last.cores
