"""What was decided on each session, with the numbers that it was decided by, for those who ask why.

Owns the memory of it, which is bounded in sessions, in entries of one and in time. An entry is a small tuple
with the event or command itself in it; words are made of it when somebody asks (``marsproxy.live.words``).
"""

from collections import OrderedDict, deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from marsproxy.core.commands import Command
from marsproxy.core.events import Event, ToolHostsObserved
from marsproxy.core.sessions import Phase, SessionState

MAX_SESSIONS = 4_000
"""Whose stories are kept: twice what the live page is made for. If every one of them is full of the largest
entries that is 88 MB (measured, CPython 3.11)."""
MAX_ENTRIES = 32
"""Of one session: six turns or so."""
MAX_MARKS = 32
"""Changes of state of one session, which are drawn as its lane: ten turns or more."""
KEPT_S = 3_600.0
"""After which a story that nothing was added to is forgotten."""


class State(StrEnum):
    """What a session is doing, as one sees it."""

    HELD = "held"
    GENERATING = "generating"
    TOOL = "tool"
    EVICTED = "evicted"
    """Between two turns, and its place was given to another."""
    IDLE = "idle"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class PlaceLost:
    """In a gap that went on for longer than its place was worth, or in which nothing was heard."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """Those that a decision was made by. Tokens, seconds; ``None`` is unknown, or of no concern."""

    backend: str | None = None
    pool_tokens: int | None = None
    budget_tokens: float | None = None
    """That may be promised there."""
    reserved_tokens: float | None = None
    """That are promised there."""
    leased_tokens: int | None = None
    needed_tokens: float | None = None
    """What the session would be charged, or is."""
    waited_s: float | None = None
    gap_expected_s: float | None = None
    """Median of what gaps after such a tool have taken."""
    gap_s: float | None = None
    """What this one has taken."""
    tools: ToolHostsObserved | None = None


class Entry(NamedTuple):
    at_s: float
    """On the journal's clock."""
    what: Event | Command | PlaceLost
    numbers: Numbers | None


@dataclass(slots=True)
class SessionLog:
    """One session's story, and the states that it has been in."""

    tenant: str
    entries: deque[Entry] = field(default_factory=lambda: deque(maxlen=MAX_ENTRIES))
    marks: deque[tuple[float, State]] = field(default_factory=lambda: deque(maxlen=MAX_MARKS))
    touched_s: float = 0.0
    held_turns: int = 0
    gap_since_s: float | None = None
    gap_expected_s: float | None = None
    lost_place_s: float | None = None
    """The latest loss that is in the story."""

    @property
    def state(self) -> State:
        return self.marks[-1][1] if self.marks else State.IDLE

    @property
    def since_s(self) -> float:
        return self.marks[-1][0] if self.marks else self.touched_s

    def mark(self, state: State, at_s: float) -> bool:
        """False if it was in that state already."""
        if self.marks and self.marks[-1][1] is state:
            return False
        self.marks.append((at_s, state))
        return True


class Stories:
    """The logs by session id; the one that was touched longest ago is the first to go."""

    def __init__(self) -> None:
        self._logs: OrderedDict[str, SessionLog] = OrderedDict()

    def __len__(self) -> int:
        return len(self._logs)

    def get(self, session_id: str) -> SessionLog | None:
        return self._logs.get(session_id)

    def items(self) -> list[tuple[str, SessionLog]]:
        """The least recently touched first."""
        return list(self._logs.items())

    def values(self) -> list[SessionLog]:
        return list(self._logs.values())

    def touch(self, session_id: str, now: float) -> SessionLog | None:
        """The session's log, which is now the last to go; None without one."""
        log = self._logs.get(session_id)
        if log is not None:
            log.touched_s = now
            self._logs.move_to_end(session_id)
        return log

    def begin(self, session_id: str, tenant: str, now: float) -> list[str]:
        """A log for a session that has none. Whose were dropped: too many, or too old."""
        self._logs[session_id] = SessionLog(tenant, touched_s=now)
        return self._drop(now)

    def _drop(self, now: float) -> list[str]:
        dropped = []
        while self._logs:
            session_id, log = next(iter(self._logs.items()))
            if len(self._logs) <= MAX_SESSIONS and now - log.touched_s <= KEPT_S:
                break
            del self._logs[session_id]
            dropped.append(session_id)
        return dropped


def state_of(session: SessionState | None, log: SessionLog) -> State:
    """What the session is doing now.

    Args:
        session: its row; None where the policy has none, or none any more.
    """
    if session is None:
        return State.HELD if log.held_turns else State.OVER
    match session.phase:
        case Phase.QUEUED:
            return State.HELD
        case Phase.GENERATING:
            return State.GENERATING
        case Phase.TOOL_GAP:
            return State.TOOL
        case Phase.IDLE:
            if log.held_turns:
                return State.HELD
            return State.IDLE if session.lost_place_s is None else State.EVICTED
