"""Which host a new session goes to.

Owns the choice; it must not know how a host is reached, and keeps nothing: of the same hosts it is the same.

A session stays where it is put, and what it will run is not known. So hosts are compared by how full they are
with what runs and waits there and with what their sessions will run next, and by the scarcer of CPU and
memory: a host with idle cores and no memory is full.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_SESSION_SLOTS = 0.2
"""What a session is expected to use between now and later. Tools take 3 % of an agent's time in one public
trace and 36 % in another (ThunderAgent, AgentCgroup)."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A host as it is now. None is unknown."""

    name: str
    labels: Mapping[str, str]
    is_up: bool
    is_draining: bool
    slots: float
    used: float
    queued: int
    sessions: int
    memory_total_mb: float | None = None
    memory_available_mb: float | None = None
    memory_reserved_mb: float = 0.0
    weight: float = 1.0
    """Of its share of sessions, beside hosts of the same size."""

    def fullness(self) -> float:
        """1 where everything is in use; more where sessions wait."""
        cpu = (self.used + self.queued + _SESSION_SLOTS * self.sessions) / self.slots
        return max(cpu, self._memory_fullness()) / self.weight

    def _memory_fullness(self) -> float:
        """What is reserved may not be in use yet, what is in use may not be ours. Unknown does not count."""
        if not self.memory_total_mb:
            return 0.0
        used_mb = 0.0 if self.memory_available_mb is None else self.memory_total_mb - self.memory_available_mb
        return max(used_mb, self.memory_reserved_mb) / self.memory_total_mb

    def obstacle(self, selector: Mapping[str, str]) -> str | None:
        """Why no session can go there."""
        if not self.is_up:
            return "is not up"
        if self.is_draining:
            return "is draining"
        if lacking := [name for name in sorted(selector) if self.labels.get(name) != selector[name]]:
            return f"has not the label {', '.join(f'{name}={selector[name]}' for name in lacking)}"
        return None


@dataclass(frozen=True, slots=True)
class Placement:
    host: str | None
    reason: str
    """Why there, or why nowhere."""


def place(
    candidates: Sequence[Candidate],
    *,
    selector: Mapping[str, str],
    host: str | None = None,
    parent_host: str | None = None,
) -> Placement:
    """``host``: that one or none. ``parent_host``: that one if it can be, as the two work on the same files.
    Otherwise where there is most room; of equals the one with fewer sessions, then the first."""
    wanted = [each for each in candidates if host is None or each.name == host]
    obstacles = {each.name: each.obstacle(selector) for each in wanted}
    fitting = [each for each in wanted if obstacles[each.name] is None]
    if not fitting:
        return Placement(None, _why_nowhere(obstacles, host))
    if host is not None:
        return Placement(host, "it was asked for")
    if any(each.name == parent_host for each in fitting):
        return Placement(parent_host, "its parent is there")
    roomiest = min(fitting, key=lambda each: (each.fullness(), each.sessions))
    return Placement(roomiest.name, "it has most room")


def _why_nowhere(obstacles: Mapping[str, str | None], host: str | None) -> str:
    if not obstacles:
        return "there is no host" if host is None else f"there is no host {host}"
    return "; ".join(f"{name} {obstacle}" for name, obstacle in obstacles.items())
