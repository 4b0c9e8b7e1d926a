"""What part of each backend's budget is this replica's while the replicas do not hear each other.

Theory of operation. As long as they hear each other all replicas know what is promised, and the budget is
one. When they part, each that has seen the same records has the same sums before it, and cuts the same way:
what a replica's own sessions hold is its own, and what is free goes to all in equal parts::

    allowance = own + (limit - held by all) / replicas

Over the replicas that adds up to the limit, or to less where sessions are nobody's any more; it is kept as
a share of the limit, so it stays true when pool or target change. What is held beyond the limit already is
taken off in the same way, so that a share may be negative: then nothing more is promised there.

Owns the shares only; what is promised is ``budgets``' business.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Held:
    """Of one backend's budget."""

    own: float
    by_all: float


def allowance_share(held: Held, limit: float | None, replicas: int) -> float:
    """Of the limit; of one that is not known, as much as the others have."""
    if not limit:
        return 1 / replicas
    return (held.own + (limit - held.by_all) / replicas) / limit


class Shares:
    """Share of each backend's limit, by the backend's name; 1 while the replicas stand together."""

    def __init__(self) -> None:
        self._tokens: dict[str, float] = {}
        self._sessions: dict[str, float] = {}
        self._replicas = 1

    @property
    def is_alone(self) -> bool:
        """Whether other replicas may promise on their own."""
        return self._replicas > 1

    def tokens(self, backend: str) -> float:
        """Of the tokens that may be promised there."""
        return self._tokens.get(backend, 1 / self._replicas)

    def sessions(self, backend: str) -> float:
        """Of the fixed number of sessions where telemetry is unknown."""
        return self._sessions.get(backend, 1 / self._replicas)

    def part(self, replicas: int, tokens: Mapping[str, float], sessions: Mapping[str, float]) -> None:
        """Among ``replicas``. A backend that is not named has never been promised anything."""
        self._replicas = replicas
        self._tokens, self._sessions = dict(tokens), dict(sessions)

    def unite(self) -> None:
        self.part(1, {}, {})
