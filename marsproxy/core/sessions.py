"""The session table: who is known, in which phase, holding what.

Theory of operation
-------------------

A session is in exactly one phase::

    QUEUED ──admitted──▶ GENERATING ──last turn ended, more expected──▶ TOOL_GAP ──gap over──▶ IDLE
     │  ▲                   ▲   │                                         │                    │ ▲
     │  │                   └───┼─────────────continuation────────────────┘                    │ │
     │  │                       └─last turn aborted, or ended with nothing expected────────────┼▶│
     │  └─────────────────────────────────── a turn that does not fit at once ─────────────────┘ │
     └────────────────────────────────────── refused, or given up ──────────────────────────────▶┘

``is_counted`` says whether its footprint is charged to its backend's KV budget: in GENERATING and
TOOL_GAP, and in no other phase. A session is charged from admission until it goes idle, ends or
expires: through tool gaps, whose continuations would otherwise find their blocks gone. A session
leaves the table by an explicit end, by expiry, or as the longest quiet one of a full table; never
while a turn of it is held or in flight. Side calls change neither phase nor charge.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from itertools import takewhile

from marsproxy.core.settings import SessionSettings


class Phase(Enum):
    QUEUED = "queued"
    GENERATING = "generating"
    TOOL_GAP = "tool_gap"
    IDLE = "idle"


@dataclass(slots=True)
class SessionState:
    id: str
    tenant: str
    family: str
    first_arrival_s: float
    last_event_s: float
    phase: Phase = Phase.IDLE
    backend: str | None = None
    is_counted: bool = False
    charged_tokens: float = 0.0
    """What it was charged, without what its family shares."""
    charged_context: int = 0
    """The context that the charge was for."""
    warm_until_tokens: float = 0.0
    """Count of tokens computed on its backend at which its idle blocks are taken to be half gone."""
    turns: int = 0
    """Turns that finished."""
    context_tokens: int = 0
    """Prompt and answer of the latest turn: usage where known, else the estimate."""
    known_tokens: int = 0
    """The same of the latest turn whose usage came back: what its backend has had in its cache."""
    peak_tokens: int = 0
    open_turns: set[str] = field(default_factory=set)
    """Held or in flight, side calls included."""
    main_turns: set[str] = field(default_factory=set)
    """Forwarded turns that hold the session's phase at GENERATING; side calls do not."""
    held_turns: list[str] = field(default_factory=list)
    """In order of arrival. A counted session has none: its turns go at once."""
    parent_id: str | None = None
    gap_since_s: float | None = None
    """When its last turn in flight ended; None while one is, or one is held."""
    gap_signature: str | None = None
    """Tool whose run the session is waiting for, if the answer named one."""
    is_after_text: bool = False
    """The last answer called no tool, and nothing has come after it yet."""
    rests_after_text: bool = False
    """The same, however long ago."""
    goes_on_after_text: bool = False
    """It went on by itself the last time: an agent that acts through plain text."""
    is_lease_wanted: bool = True
    """Whether what its latest turn leaves is worth a lease."""
    has_lost_lease: bool = False
    """The lease on what its latest turn left is over, and the turn after it has not come."""
    needed_tokens: float | None = None
    """What it would be charged where it was last tried for room. For those who explain; decides nothing."""
    gap_expected_s: float | None = None
    """Median of what its latest gap was expected to take; None where nothing was asked. For the same."""
    lost_place_s: float | None = None
    """When it lost its place in its latest gap, if it did. For the same."""
    is_over: bool = False
    """Somebody said so; forgotten as soon as its open turns are answered."""

    def grow_to(self, tokens: int) -> None:
        self.context_tokens = self.known_tokens = tokens
        self.peak_tokens = max(self.peak_tokens, tokens)


class SessionTable:
    """Sessions by id. Those without an open turn are also kept in the order in which they fell quiet."""

    def __init__(self, settings: SessionSettings) -> None:
        self._settings = settings
        self._by_id: dict[str, SessionState] = {}
        self._quiet: OrderedDict[str, SessionState] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[SessionState]:
        return iter(self._by_id.values())

    def get(self, session_id: str) -> SessionState | None:
        return self._by_id.get(session_id)

    def add(self, session: SessionState) -> None:
        """The session's first turn must be opened in the same breath: nothing else makes it expire."""
        self._by_id[session.id] = session

    def remove(self, session: SessionState) -> None:
        del self._by_id[session.id]
        self._quiet.pop(session.id, None)

    def open_turn(self, session: SessionState, turn_id: str, now: float) -> None:
        """From now on the session can neither expire nor be dropped."""
        session.open_turns.add(turn_id)
        session.last_event_s = now
        self._quiet.pop(session.id, None)

    def close_turn(self, session: SessionState, turn_id: str, now: float) -> None:
        session.open_turns.remove(turn_id)
        session.main_turns.discard(turn_id)
        session.last_event_s = now
        if not session.open_turns:
            self._quiet[session.id] = session

    def is_full(self) -> bool:
        return len(self._by_id) >= self._settings.max_sessions

    def longest_quiet(self) -> SessionState | None:
        """The least recently active session that has no open turn; None if all have one."""
        return next(iter(self._quiet.values()), None)

    def expired(self, now: float) -> list[SessionState]:
        """Sessions due to be forgotten. They stay in the table until removed."""
        return list(takewhile(lambda session: self._expires_s(session) <= now, self._quiet.values()))

    def next_expiry_s(self) -> float | None:
        first = self.longest_quiet()
        return None if first is None else self._expires_s(first)

    def _expires_s(self, session: SessionState) -> float:
        return session.last_event_s + self._settings.idle_expiry_s
