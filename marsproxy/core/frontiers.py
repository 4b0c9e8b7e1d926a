"""What is remembered of a session.

Owns the records only. It must not decide anything: the rules are in ``naming`` and ``joining``; and not
change a state: ``tenant`` does, which keeps the tables in step.

A session's whole history is not kept, only its last few *frontiers*: the points from which it may go on.
Each turn makes one. A frontier is named by the prefix key of its request, and once answered also by that
of request and answer together. Its life:

    RUNNING ──answered──▶ WAITING ──a later turn goes on from it──▶ CLOSED
       │  ▲                  ▲                                        │
   abandoned └─again─┐       └────────that turn is abandoned──────────┘
       ▼             │
      LOST ──────────┘

Only a WAITING or LOST frontier can be continued, so of several sessions with one prefix the one that is
in its gap gets the turn, and a second turn from a CLOSED one is seen for what it is: a fork.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from marsproxy.core.evidence import Digest
from marsproxy.core.history import History, PrefixKey


class State(Enum):
    RUNNING = "running"
    WAITING = "waiting"
    LOST = "lost"
    CLOSED = "closed"


@dataclass(slots=True, eq=False)
class Frontier:
    """A turn, as a point to go on from."""

    session: "Session"
    turn: int
    length: int
    """Messages in the request."""
    request_key: PrefixKey
    has_tools: bool
    tail: tuple[Digest, ...] = ()
    """Latest messages that the client added with this turn; none of the first turn's, which are shared."""
    state: State = State.RUNNING
    attempts: int = 0
    """In flight now."""
    superseded: "tuple[Frontier, ...]" = ()
    """Closed by this turn; open again if it is lost."""
    is_contested: bool = False
    """It was lost once and taken up by a request that does not call itself a retry: two samples may have
    made attempts at it, and a stated retry by one must not join what the other has in flight."""
    is_answered: bool = False
    answer_keys: tuple[PrefixKey, ...] = ()
    answers: tuple[Digest, ...] = ()
    call_ids: tuple[str, ...] = ()
    response_ids: tuple[str, ...] = ()

    @property
    def is_open(self) -> bool:
        return self.state is State.WAITING or self.state is State.LOST

    @property
    def is_detour(self) -> bool:
        """A call without tools in a session that has them: the session may go on from before it."""
        return self.session.has_tools and not self.has_tools

    def matched_by(self, history: History) -> int | None:
        """Leading messages of ``history`` that lead here; None if it does not start with this request."""
        if self.length > len(history) or history.keys[self.length] != self.request_key:
            return None
        after = self.length + 1
        return after if after <= len(history) and history.keys[after] in self.answer_keys else self.length


@dataclass(slots=True, eq=False)
class Session:
    """One line of history."""

    session_id: str
    tenant: str
    explicit_id: str | None = None
    last_seen: float = 0.0
    parent_session_id: str | None = None
    has_tools: bool = False
    """Whether any turn had tools."""
    lead: tuple[PrefixKey, PrefixKey] = (b"", b"")
    """Of the latest turn."""
    turn: int = 0
    """Number of the latest turn."""
    frontiers: list[Frontier] = field(default_factory=list)
    """Oldest first, few."""
    side: tuple[int, PrefixKey] | None = None
    """Length and key of the latest side call: if that one is continued, it was no side call."""
    in_flight: int = 0

    @property
    def is_busy(self) -> bool:
        """A turn of the main line is in flight."""
        return any(f.state is State.RUNNING and not f.is_detour for f in self.frontiers)

    @property
    def awaits_tools(self) -> bool:
        return any(f.state is State.WAITING and f.call_ids for f in self.frontiers)

    def fit(self, history: History) -> "Fit | None":
        """The frontier that the most leading messages of ``history`` lead to, a later one first."""
        best: Fit | None = None
        for frontier in reversed(self.frontiers):
            matched = frontier.matched_by(history)
            if matched is not None and (best is None or matched > best.matched):
                best = Fit(frontier, matched)
        return best


class Fit(NamedTuple):
    frontier: Frontier
    matched: int
