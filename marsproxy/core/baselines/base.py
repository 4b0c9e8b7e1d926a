"""What every baseline needs and none is about: hooks, orders, bounds, expiry and the timer.

``Follower`` is told what happens, has it entered in the books, and asks a handful of hooks what to do
about it. A baseline is a subclass that answers them. It must keep to three rules: every turn that it is
told of by ``turn_arrived`` it forwards or holds, then and there; a held turn it forwards later, in any
hook; what it remembers of a session it drops in ``session_forgotten``. The hooks that do nothing here
need not be answered.

Of a changing fleet they know the least that works: the backends are those that a baseline was made with. One
that drains or is gone is to it as if it did not answer, which models are served where is nothing to it, and a
turn that its backend failed is given up.

The baselines' papers have no bounds. These are the ones of the policy that they are compared with: turns
held at once, seconds held, rows of the session table, expiry of idle sessions.
"""
# ruff: noqa: B027

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from marsproxy.core.baselines.books import Books, FollowedTurn
from marsproxy.core.commands import (
    Command,
    ForgetSession,
    ForwardTurn,
    HoldTurn,
    Reason,
    RejectTurn,
    SetTimer,
)
from marsproxy.core.events import (
    BackendObserved,
    BackendsChanged,
    BackendUnreachable,
    Ending,
    Event,
    HintAnswered,
    KvReclaimed,
    LeaseExpired,
    LeaseResumed,
    SessionEnded,
    StandingAlone,
    StandingTogether,
    TenantsChanged,
    TimerFired,
    ToolHostsObserved,
    ToolObserved,
    TurnArrived,
    TurnBounced,
    TurnEnded,
    TurnFirstToken,
    TurnProgressed,
    TurnResumed,
)
from marsproxy.core.headroom import BackendState, ToolHosts
from marsproxy.core.sessions import Phase, SessionState, SessionTable
from marsproxy.core.settings import PolicySettings
from marsproxy.core.tool_joins import JoinedBy

__all__ = ["FollowedTurn", "Follower", "Observation", "goes_on"]
"""All that a baseline needs, by one door."""

Observation: TypeAlias = (
    TurnFirstToken
    | TurnProgressed
    | BackendObserved
    | BackendUnreachable
    | HintAnswered
    | KvReclaimed
    | LeaseResumed
    | LeaseExpired
    | ToolObserved
    | ToolHostsObserved
)
"""What happens besides turns that come and go."""


class Follower(ABC):
    """A ``SchedulingPolicy`` but for the decisions.

    Args:
        backends: names of the vLLM servers, at least one.
    """

    def __init__(self, settings: PolicySettings, backends: Sequence[str]) -> None:
        assert backends, "a policy without a backend has nowhere to send a turn"
        self.limits = settings.admission
        self._books = Books(settings.sessions, backends)
        self._away: frozenset[str] = frozenset()
        """Backends that drain or are gone, whatever they say."""
        self._commands: list[Command] = []
        self._timer_s: float | None = None
        self._under_way: dict[str, None] = {}
        """Turns that were in flight before they were told of here. The baseline decides on them as on any
        other; but they have gone, and cannot be held or refused."""

    # -- what it knows ----------------------------------------------------------------------------

    @property
    def sessions(self) -> SessionTable:
        return self._books.sessions

    @property
    def turns(self) -> Mapping[str, FollowedTurn]:
        """All turns under way, held and in flight, by id."""
        return self._books.turns

    @property
    def held(self) -> Mapping[str, FollowedTurn]:
        """Those that wait, in order of arrival."""
        return self._books.held

    @property
    def open_turns(self) -> int:
        return len(self.turns)

    @property
    def backends(self) -> dict[str, BackendState]:
        return self._books.backends

    @property
    def tool_hosts(self) -> ToolHosts:
        return self._books.tool_hosts

    def tool_joined_by(self, exec_id: str) -> JoinedBy | None:
        """These join no tools: their gaps are the server's."""
        return None

    # -- hooks ------------------------------------------------------------------------------------

    @abstractmethod
    def turn_arrived(self, turn: FollowedTurn, now: float) -> None:
        """Forward or hold it. The session's ``context_tokens`` include the new prompt."""

    def turn_ended(self, turn: FollowedTurn, event: TurnEnded | None, now: float) -> None:
        """It is over, and the books say so. ``event`` is None for a turn that had been held too long; a
        turn whose ``backend`` is None was never forwarded."""

    def session_forgotten(self, session: SessionState) -> None:
        """It ended, expired, or makes room for another, and goes now. No turn of it is open."""

    def observed(self, event: Observation, now: float) -> None:
        """Anything else, after the books took note of it."""

    def next_tick_s(self) -> float | None:
        """When ``tick`` is wanted; None for not at all, until something else happens. Asked after every
        event; to be answered from what is stored, without search."""
        return None

    def tick(self, now: float) -> None:
        """The time that ``next_tick_s`` named has come."""

    def settle(self, now: float) -> None:
        """The event is dealt with: the place to let held turns go, if there is room now."""

    def reserved_tokens(self, now: float) -> dict[str, float]:
        return {}

    def budget_tokens(self, now: float) -> dict[str, float]:
        return {}

    def stand_alone(self, replicas: int, elsewhere: Sequence[SessionState]) -> None:
        """Other replicas go on with the sessions ``elsewhere`` and decide for themselves: these are at rest
        as far as one can see here. Its limits a baseline shares with ``replicas``, itself included."""

    def stand_together(self) -> None:
        """The limits are whole again."""

    # -- orders that hooks give -------------------------------------------------------------------

    def forward(
        self, turn: FollowedTurn, backend: str, priority: int = 0, *, may_break_leases: bool = True
    ) -> None:
        """Let a turn go that has just arrived or was held."""
        assert turn.backend is None, "a turn is forwarded once"
        self._books.forwarded(turn, backend)
        if turn.id in self._under_way:
            return
        decision = turn.turn_class.value
        self.order(ForwardTurn(turn.id, backend, priority, decision, may_break_leases))

    def hold(self, turn: FollowedTurn, reason: Reason, now: float) -> bool:
        """Keep a turn that has just arrived. False: too many wait already, and it was refused; it is
        over, without ``turn_ended``."""
        if len(self.held) >= self.limits.max_held_turns:
            self._refuse(turn, Reason.QUEUE_FULL, now)
            return False
        self._books.hold(turn)
        if turn.id not in self._under_way:
            self.order(HoldTurn(turn.id, reason, len(self.held)))
        return True

    def order(self, command: Command) -> None:
        """Any other command: hints, changes of priority."""
        self._commands.append(command)

    def place(self, session: SessionState, backend: str) -> None:
        """The session's turns will go there from now on."""
        self._books.move(session, session.phase, backend)

    def home_of(self, session: SessionState) -> str:
        """The backend that may still have its blocks; for a new one, that with the fewest at work."""
        return self._books.home_of(session)

    def least_loaded(self) -> str:
        return self._books.least_loaded()

    # -- events -----------------------------------------------------------------------------------

    def handle(self, event: Event, now: float) -> list[Command]:
        self._commands = []
        match event:
            case TurnArrived():
                self._arrived(event, now)
            case TurnEnded():
                self._ended(event, now)
            case SessionEnded():
                self._session_ended(event)
            case TimerFired():
                self._time_passed(now)
            case TurnBounced():
                self._bounced(event, now)
            case BackendsChanged():
                self._backends_changed(event, now)
            case BackendObserved(name) | BackendUnreachable(name) if name not in self.backends:
                pass
            case TenantsChanged():
                pass  # limits are kept in front of every policy, and none of the papers has weights
            case TurnResumed():
                self._resumed(event, now)
            case StandingAlone():
                self._stand_alone(event)
            case StandingTogether():
                self.stand_together()
            case _:
                self._take_note(event, now)
                self.observed(event, now)
        self.settle(now)
        self._rearm()
        return self._commands

    def _arrived(self, event: TurnArrived, now: float) -> None:
        assert event.turn_id not in self.turns, "a turn arrives once"
        session = self._session_of(event, now)
        if session is None:
            if event.turn_id not in self._under_way:
                self.order(RejectTurn(event.turn_id, Reason.TABLE_FULL, self.limits.retry_after_s))
            return
        turn = self._books.open(event, session, now)
        self.turn_arrived(turn, now)
        self._forget_if_over(session)

    def _resumed(self, event: TurnResumed, now: float) -> None:
        """Its replica brings it along as it stands there. Here it may be known, as it stood before."""
        turn = self.turns.get(event.arrival.turn_id)
        if event.backend is not None and (turn is None or turn.backend is None):
            self._under_way[event.arrival.turn_id] = None
            self._note_home(event.arrival, event.backend, now)
        if turn is None:
            self._arrived(event.arrival, now)
        elif event.backend is None and turn.backend is not None:
            self.order(ForwardTurn(turn.id, turn.backend, 0, turn.turn_class.value))

    def _note_home(self, arrival: TurnArrived, backend: str, now: float) -> None:
        """A session that is nowhere in particular is where its turn is."""
        session = self._session_of(arrival, now)
        if session is None or session.open_turns or session.is_counted:
            return
        if backend in self.backends:
            self.place(session, backend)

    def _stand_alone(self, event: StandingAlone) -> None:
        known = (self.sessions.get(session_id) for session_id in event.sessions_elsewhere)
        elsewhere = [session for session in known if session is not None]
        self.stand_alone(event.replicas, elsewhere)

    def _session_of(self, event: TurnArrived, now: float) -> SessionState | None:
        """The session's row, made if need be; None when the table is full of sessions at work."""
        if (known := self.sessions.get(event.session_id)) is not None:
            return known
        if self.sessions.is_full():
            victim = self.sessions.longest_quiet()
            if victim is None:
                return None
            self._forget(victim)
        session = SessionState(event.session_id, event.tenant, event.family, now, now)
        session.parent_id = event.parent_session_id
        self.sessions.add(session)
        return session

    def _ended(self, event: TurnEnded, now: float) -> None:
        turn = self.turns.get(event.turn_id)
        self._under_way.pop(event.turn_id, None)
        if turn is None:
            return
        if event.ending is Ending.FINISHED and not turn.is_side:
            self._books.learn(turn, event)
        self._books.close(turn, event, now)
        self.turn_ended(turn, event, now)
        self._forget_if_over(turn.session)

    def _bounced(self, event: TurnBounced, now: float) -> None:
        turn = self.turns.get(event.turn_id)
        if turn is not None and turn.backend == event.backend:
            self.order(RejectTurn(turn.id, Reason.BACKEND_LOST, self.limits.retry_after_s))
            self._ended(TurnEnded(turn.id, Ending.FAILED), now)

    def _backends_changed(self, event: BackendsChanged, now: float) -> None:
        taking = {spec.name for spec in event.backends if not spec.is_draining}
        self._away = frozenset(self.backends) - taking
        for name in sorted(self._away):
            self._take_note(BackendUnreachable(name), now)
            self.observed(BackendUnreachable(name), now)

    def _refuse(self, turn: FollowedTurn, reason: Reason, now: float) -> None:
        if turn.id not in self._under_way:
            self.order(RejectTurn(turn.id, reason, self.limits.retry_after_s))
        self._books.close(turn, None, now)

    def _session_ended(self, event: SessionEnded) -> None:
        session = self.sessions.get(event.session_id)
        if session is not None:
            session.is_over = True
            self._forget_if_over(session)

    def _forget_if_over(self, session: SessionState) -> None:
        if session.is_over and not session.open_turns:
            self._forget(session)

    def _forget(self, session: SessionState) -> None:
        self.session_forgotten(session)
        self._books.move(session, Phase.IDLE, None)
        self.sessions.remove(session)
        self.order(ForgetSession(session.id))

    def _take_note(self, event: Observation, now: float) -> None:
        match event:
            case BackendObserved():
                self.backends[event.backend].observe(event, now)
                self.backends[event.backend].is_reachable = event.backend not in self._away
            case BackendUnreachable():
                self.backends[event.backend].is_reachable = False
            case ToolHostsObserved():
                self.tool_hosts.observe(event, now)
            case TurnProgressed():
                self._books.progressed(event)
            case _:
                pass

    # -- time -------------------------------------------------------------------------------------

    def _time_passed(self, now: float) -> None:
        self._timer_s = None
        for session in self.sessions.expired(now):
            self._forget(session)
        while self.held and self._hold_limit_s() <= now:
            turn = next(iter(self.held.values()))
            self._refuse(turn, Reason.HELD_TOO_LONG, now)
            self.turn_ended(turn, None, now)
            self._forget_if_over(turn.session)
        tick_s = self.next_tick_s()
        if tick_s is not None and tick_s <= now:
            self.tick(now)

    def _hold_limit_s(self) -> float:
        return next(iter(self.held.values())).arrived_s + self.limits.max_hold_s

    def _rearm(self) -> None:
        """Ask to be called when the next thing falls due, unless that is already arranged."""
        hold_limit_s = self._hold_limit_s() if self.held else None
        due = (hold_limit_s, self.sessions.next_expiry_s(), self.next_tick_s())
        due_s = min((at_s for at_s in due if at_s is not None), default=None)
        if due_s is not None and (self._timer_s is None or due_s < self._timer_s):
            self._timer_s = due_s
            self.order(SetTimer(due_s))


def goes_on(event: TurnEnded, session: SessionState) -> bool:
    """Whether the session is likely to come back by itself. Where clients announce no end, an answer that
    calls no tool stands for it, and so does a client that went away. A failure is retried by an agent that
    was at work."""
    if event.ending is Ending.FAILED:
        return session.turns > 0
    return event.ending is Ending.FINISHED and event.tool_calls > 0
