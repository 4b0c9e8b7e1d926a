"""The books that every baseline keeps: sessions, turns, what is held, and what is known of the machines.

Changes nothing by itself and orders nothing: ``base`` tells it what came to pass. Of a session's phase
and backend it is the only writer, so that its counts are right.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from marsproxy.core.estimate import TokenRatio
from marsproxy.core.events import TurnArrived, TurnEnded, TurnProgressed
from marsproxy.core.evidence import TurnKind
from marsproxy.core.headroom import BackendState, ToolHosts
from marsproxy.core.priority import TurnClass
from marsproxy.core.sessions import Phase, SessionState, SessionTable
from marsproxy.core.settings import SessionSettings


@dataclass(slots=True)
class FollowedTurn:
    """A turn between its arrival and its ending."""

    arrival: TurnArrived
    session: SessionState
    turn_class: TurnClass
    """NEW, CONTINUATION or SIDE: whether the session has had a turn before."""
    arrived_s: float
    prompt_tokens: int = 0
    """As far as one can know before usage has come."""
    backend: str | None = None
    """Where it was forwarded to; None while it is held."""

    @property
    def id(self) -> str:
        return self.arrival.turn_id

    @property
    def is_side(self) -> bool:
        return self.turn_class is TurnClass.SIDE


class Books:
    """A session is at work on its backend while a turn of it is open or a tool runs. Side calls change
    neither its phase nor its size."""

    def __init__(self, settings: SessionSettings, backends: Sequence[str]) -> None:
        self.sessions = SessionTable(settings)
        self.turns: dict[str, FollowedTurn] = {}
        self.held: OrderedDict[str, FollowedTurn] = OrderedDict()
        self.backends = {name: BackendState(name) for name in backends}
        self.tool_hosts = ToolHosts()
        self._at_work = dict.fromkeys(backends, 0)
        """Sessions of each backend, for placing new ones."""
        self._ratio = TokenRatio()

    def open(self, event: TurnArrived, session: SessionState, now: float) -> FollowedTurn:
        turn = FollowedTurn(event, session, _classify(event, session), now)
        self.turns[event.turn_id] = turn
        self.sessions.open_turn(session, event.turn_id, now)
        if not turn.is_side:
            turn.prompt_tokens = self._context_of(event, session)
            session.grow_to(turn.prompt_tokens)
        return turn

    def forwarded(self, turn: FollowedTurn, backend: str) -> None:
        self.held.pop(turn.id, None)
        turn.backend = backend
        if not turn.is_side:
            turn.session.main_turns.add(turn.id)
            self.move(turn.session, Phase.GENERATING, backend)

    def hold(self, turn: FollowedTurn) -> None:
        self.held[turn.id] = turn
        if turn.session.phase is not Phase.GENERATING:
            self.move(turn.session, Phase.QUEUED, turn.session.backend)

    def progressed(self, event: TurnProgressed) -> None:
        turn = self.turns.get(event.turn_id)
        if turn is not None and not turn.is_side:
            grown = turn.prompt_tokens + event.completion_tokens
            turn.session.grow_to(max(turn.session.context_tokens, grown))

    def learn(self, turn: FollowedTurn, event: TurnEnded) -> None:
        turn.session.turns += 1
        if event.prompt_tokens is not None:
            self._ratio.learn(turn.arrival.prompt_tokens_estimate, event.prompt_tokens)
            turn.session.grow_to(event.prompt_tokens + (event.completion_tokens or 0))

    def close(self, turn: FollowedTurn, event: TurnEnded | None, now: float) -> None:
        session = turn.session
        del self.turns[turn.id]
        was_held = self.held.pop(turn.id, None) is not None
        self.sessions.close_turn(session, turn.id, now)
        if turn.is_side or session.main_turns:
            return
        if any(turn_id in self.held for turn_id in session.open_turns):
            self.move(session, Phase.QUEUED, session.backend)
        elif not was_held and event is not None and event.tool_calls > 0:
            self.move(session, Phase.TOOL_GAP, session.backend)
        else:
            self.move(session, Phase.IDLE, session.backend)

    def move(self, session: SessionState, phase: Phase, backend: str | None) -> None:
        if session.backend is not None and session.phase is not Phase.IDLE:
            self._at_work[session.backend] -= 1
        session.phase, session.backend = phase, backend
        if backend is not None and phase is not Phase.IDLE:
            self._at_work[backend] += 1

    def home_of(self, session: SessionState) -> str:
        if session.backend is not None and self.backends[session.backend].is_reachable:
            return session.backend
        return self.least_loaded()

    def least_loaded(self) -> str:
        return min(
            self.backends, key=lambda name: (not self.backends[name].is_reachable, self._at_work[name])
        )

    def _context_of(self, event: TurnArrived, session: SessionState) -> int:
        """A history only grows, unless it was condensed."""
        estimate = self._ratio.corrected(event.prompt_tokens_estimate)
        return estimate if event.kind is TurnKind.CONDENSED else max(session.context_tokens, estimate)


def _classify(event: TurnArrived, session: SessionState) -> TurnClass:
    if event.kind is TurnKind.SIDE:
        return TurnClass.SIDE
    has_history = session.turns > 0 or event.kind in (TurnKind.CONTINUATION, TurnKind.CONDENSED)
    return TurnClass.CONTINUATION if has_history else TurnClass.NEW
