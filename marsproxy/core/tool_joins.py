"""Which session a tool's run belongs to, when its caller does not say so by the session's id.

A session that waits for tools leaves *clues*: the ids of its tool calls and the digests of the commands in
them. A run that has such a clue is the session's if the session is the only one that waits with it. Once
two wait with the same clue it is *contested* until nobody waits with it any more: a report may be late, so
the one who is left need not be the one it is of. Better no join than a wrong one: without one a gap is as
long as gaps are, with a wrong one a stranger's memory is kept or let go.

Principals (whom a gateway tells apart) and tenants (whom the proxy tells apart) have no names in common.
A session's id is handed to none but its own client, so a run that names one proves that its principal
works for the session's tenant; from then on, clues join that principal to no other tenant, and no other
principal to that one. A join by a clue proves nothing.

Owns the clues and these proofs. Knows neither gaps nor time.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum

from marsproxy.core.events import ToolObserved
from marsproxy.core.sessions import SessionState


class JoinedBy(Enum):
    """What joined a run to a session."""

    SESSION_ID = "session_id"
    CALL_ID = "call_id"
    COMMAND = "command"


MAX_CLUES = 32
"""Of one answer: its calls' ids and their commands. Answers with more parallel calls are rare."""
MAX_PROOFS = 10_000
"""Tenants and principals whose partners are remembered; who was quiet for longest goes first."""
MAX_PARTNERS = 16
"""Of one of them; who has more is not told apart by them."""


@dataclass(slots=True)
class _Waiting:
    """Who waits with one clue."""

    sessions: dict[str, SessionState] = field(default_factory=dict)
    is_contested: bool = False


class ToolJoins:
    def __init__(self) -> None:
        self._waiting: dict[str, _Waiting] = {}
        self._clues: dict[str, tuple[str, ...]] = {}
        self._tenants = Partners()
        self._principals = Partners()

    def __len__(self) -> int:
        """Clues that somebody waits with."""
        return len(self._waiting)

    def expect(self, session: SessionState, call_ids: Iterable[str], digests: Iterable[str]) -> None:
        self.forget(session)
        clues = tuple(dict.fromkeys(_clues(call_ids, digests)))[:MAX_CLUES]
        for clue in clues:
            waiting = self._waiting.setdefault(clue, _Waiting())
            waiting.sessions[session.id] = session
            waiting.is_contested |= len(waiting.sessions) > 1
        if clues:
            self._clues[session.id] = clues

    def forget(self, session: SessionState) -> None:
        """It waits no more. Fine if it did not."""
        for clue in self._clues.pop(session.id, ()):
            waiting = self._waiting[clue]
            del waiting.sessions[session.id]
            if not waiting.sessions:
                del self._waiting[clue]

    def try_find(self, run: ToolObserved) -> tuple[SessionState, JoinedBy] | None:
        """By its clues, the tool call's id first."""
        for clue, joined_by in _clues_of(run):
            waiting = self._waiting.get(clue)
            if waiting is None or waiting.is_contested:
                continue
            session = next(iter(waiting.sessions.values()))
            if self._may_be_of(run, session):
                return session, joined_by
        return None

    def proven(self, run: ToolObserved, session: SessionState) -> None:
        """The run named the session."""
        if run.principal is not None:
            self._tenants.add(run.principal, session.tenant)
            self._principals.add(session.tenant, run.principal)

    def _may_be_of(self, run: ToolObserved, session: SessionState) -> bool:
        if run.principal is None:
            return True
        return self._tenants.may_be(run.principal, session.tenant) and self._principals.may_be(
            session.tenant, run.principal
        )


class Partners:
    """Who was proven to belong to whom; whoever has no proof yet may be anybody's."""

    def __init__(self) -> None:
        self._of: OrderedDict[str, set[str]] = OrderedDict()

    def add(self, name: str, partner: str) -> None:
        partners = self._of.setdefault(name, set())
        if len(partners) < MAX_PARTNERS:
            partners.add(partner)
        self._of.move_to_end(name)
        if len(self._of) > MAX_PROOFS:
            self._of.popitem(last=False)

    def may_be(self, name: str, partner: str) -> bool:
        partners = self._of.get(name)
        return partners is None or partner in partners


def _clues(call_ids: Iterable[str], digests: Iterable[str]) -> Iterator[str]:
    yield from (f"call {call_id}" for call_id in call_ids)
    yield from (f"command {digest}" for digest in digests)


def _clues_of(run: ToolObserved) -> Iterator[tuple[str, JoinedBy]]:
    if run.tool_call_id is not None:
        yield f"call {run.tool_call_id}", JoinedBy.CALL_ID
    if run.command_digest is not None:
        yield f"command {run.command_digest}", JoinedBy.COMMAND
