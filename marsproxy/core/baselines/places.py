"""Agents that hold places: so many may be active on a backend at once, and the others wait.

An agent takes a place with its first turn and holds it through its tool gaps, until it is done: its answer
calls no tool, its client went away, somebody said that it is over, or it has expired. While it is active its
turns go at once. Those that were active before come before new ones, each in order of arrival.

How many places there are is the subclass's to say.
"""

from abc import abstractmethod
from collections.abc import Sequence

from marsproxy.core.baselines.base import FollowedTurn, Follower, Observation, goes_on
from marsproxy.core.baselines.waiting import WaitingAgents
from marsproxy.core.commands import Reason
from marsproxy.core.events import BackendUnreachable, TurnEnded
from marsproxy.core.sessions import SessionState
from marsproxy.core.settings import PolicySettings


class Places(Follower):
    """An active agent is a counted session of its backend."""

    def __init__(self, settings: PolicySettings, backends: Sequence[str]) -> None:
        super().__init__(settings, backends)
        self._waiting = WaitingAgents(backends)
        self._elsewhere = dict.fromkeys(backends, 0)
        """Places that other replicas may fill while this one does not hear them."""

    @abstractmethod
    def places_on(self, backend: str) -> int:
        """How many agents may be active there now."""

    def may_enter(self, backend: str) -> bool:
        return self.room_on(backend) > 0

    def may_stay(self, backend: str) -> bool:
        """Whether one that is active there goes on with its next turn."""
        return True

    def room_on(self, backend: str) -> int:
        return self.places_on(backend) - self._elsewhere.get(backend, 0) - self.active_on(backend)

    def active_on(self, backend: str) -> int:
        return len(self.backends[backend].counted)

    # -- turns ------------------------------------------------------------------------------------

    def turn_arrived(self, turn: FollowedTurn, now: float) -> None:
        session = turn.session
        if turn.is_side:
            self.forward(turn, self.home_of(session))
        elif session.is_counted and self._stays(session):
            self.forward(turn, backend_of(session))
        elif session.id in self._waiting:
            self._wait(turn, now)
        else:
            self._enter(turn, now)

    def turn_ended(self, turn: FollowedTurn, event: TurnEnded | None, now: float) -> None:
        session = turn.session
        if turn.is_side:
            return
        if turn.backend is None:
            self._waiting.remove(turn)
        elif not session.main_turns and (event is None or not goes_on(event, session)):
            self._deactivate(session)

    def session_forgotten(self, session: SessionState) -> None:
        self._deactivate(session)

    def observed(self, event: Observation, now: float) -> None:
        if isinstance(event, BackendUnreachable):
            self._waiting.unbind(event.backend)

    def settle(self, now: float) -> None:
        """Fill what is free, the emptiest backend being no better than any other: each has its lane."""
        if self.held:
            for backend in self._reachable():
                self._fill(backend)

    # -- replicas ---------------------------------------------------------------------------------

    def stand_alone(self, replicas: int, elsewhere: Sequence[SessionState]) -> None:
        """Who is active through this replica stays so, and of the free places it has its share."""
        free = {name: self.room_on(name) for name in self.backends}
        active = {name: self.active_on(name) for name in self.backends}
        for session in elsewhere:
            self._deactivate(session)
        for name in self.backends:
            gone = active[name] - self.active_on(name)
            self._elsewhere[name] = gone + free[name] - free[name] // replicas

    def stand_together(self) -> None:
        self._elsewhere = dict.fromkeys(self.backends, 0)

    # -- places -----------------------------------------------------------------------------------

    def _stays(self, session: SessionState) -> bool:
        """Beside a turn in flight always; else the backend must still be there."""
        backend = backend_of(session)
        if session.main_turns or (self.may_stay(backend) and self.home_of(session) == backend):
            return True
        self._deactivate(session)
        return False

    def _enter(self, turn: FollowedTurn, now: float) -> None:
        """Go if there is room and nobody is before it."""
        lane = self._lane_of(turn.session)
        backend = lane or min(self._reachable(), key=lambda name: -self.room_on(name))
        if self.may_enter(backend) and not self._waiting.has_before(lane):
            self._activate(turn.session, backend)
            self.forward(turn, backend)
        else:
            self._wait(turn, now)

    def _wait(self, turn: FollowedTurn, now: float) -> None:
        lane = self._lane_of(turn.session)
        reason = Reason.BEHIND_OTHERS if self._waiting.has_before(lane) else Reason.KV_FULL
        if self.hold(turn, reason, now):
            self._waiting.add(turn, lane)

    def _fill(self, backend: str) -> None:
        while self.may_enter(backend) and (session_id := self._waiting.next_for(backend)) is not None:
            turns = self._waiting.pop(session_id)
            self._activate(turns[0].session, backend)
            for turn in turns:
                self.forward(turn, backend)

    def _reachable(self) -> list[str]:
        return [name for name, backend in self.backends.items() if backend.is_reachable] or [*self.backends]

    def _lane_of(self, session: SessionState) -> str | None:
        """A session that has no home, or has lost it, goes anywhere."""
        return session.backend if session.backend in self._reachable() else None

    def _activate(self, session: SessionState, backend: str) -> None:
        self.place(session, backend)
        self.backends[backend].charge(session)

    def _deactivate(self, session: SessionState) -> None:
        if session.is_counted:
            self.backends[backend_of(session)].release(session)


def backend_of(session: SessionState) -> str:
    assert session.backend is not None, "an active agent has a backend"
    return session.backend
