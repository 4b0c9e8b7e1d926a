"""CONCUR: a window of active agents per backend, steered like TCP's by what the KV cache says.

After arXiv 2601.22705. An agent is active from its first turn to its last, tool gaps included. Its turns
go at once while the active ones fit the window; when the window has shrunk, agents wait at their next
turn until others have gone. Those that were active before come before new ones, each in order of arrival.
See ``window`` for the control law and ``docs/baselines.md`` for what was chosen here.
"""

from collections.abc import Sequence

from marsproxy.core.baselines.base import FollowedTurn, Follower, Observation, goes_on
from marsproxy.core.baselines.waiting import WaitingAgents
from marsproxy.core.baselines.window import Window
from marsproxy.core.commands import Reason
from marsproxy.core.events import BackendObserved, BackendUnreachable, Ending, TurnEnded
from marsproxy.core.sessions import SessionState
from marsproxy.core.settings import PolicySettings


class Concur(Follower):
    """An active agent is a counted session of its backend."""

    def __init__(self, settings: PolicySettings, backends: Sequence[str]) -> None:
        super().__init__(settings, backends)
        self._windows = {name: Window(settings.admission.fallback_concurrency) for name in backends}
        self._in_flight = dict.fromkeys(backends, 0)
        """Turns, side calls aside."""
        self._waiting = WaitingAgents(backends)

    # -- turns ------------------------------------------------------------------------------------

    def turn_arrived(self, turn: FollowedTurn, now: float) -> None:
        session = turn.session
        if turn.is_side:
            self.forward(turn, self.home_of(session))
        elif session.is_counted and self._may_stay(session):
            self._send(turn)
        elif session.id in self._waiting:
            self._wait(turn, now)
        else:
            self._enter(turn, now)

    def _may_stay(self, session: SessionState) -> bool:
        """Beside a turn in flight always; else there must be room, and the backend must still be there."""
        backend = _backend_of(session)
        if session.main_turns or (
            self._active(backend) <= self._windows[backend].size and self.home_of(session) == backend
        ):
            return True
        self._deactivate(session)
        return False

    def _enter(self, turn: FollowedTurn, now: float) -> None:
        """Go if there is room and nobody is before it."""
        lane = self._lane_of(turn.session)
        backend = lane or min(self._reachable(), key=lambda name: -self._room(name))
        if self._has_place(backend) and not self._waiting.has_before(lane):
            self._activate(turn.session, backend)
            self._send(turn)
        else:
            self._wait(turn, now)

    def _wait(self, turn: FollowedTurn, now: float) -> None:
        lane = self._lane_of(turn.session)
        reason = Reason.BEHIND_OTHERS if self._waiting.has_before(lane) else Reason.KV_FULL
        if self.hold(turn, reason, now):
            self._waiting.add(turn, lane)

    def _send(self, turn: FollowedTurn) -> None:
        backend = _backend_of(turn.session)
        self._in_flight[backend] += 1
        self.forward(turn, backend)

    def turn_ended(self, turn: FollowedTurn, event: TurnEnded | None, now: float) -> None:
        session = turn.session
        if turn.is_side:
            return
        if turn.backend is None:
            self._waiting.remove(turn)
            return
        self._in_flight[turn.backend] -= 1
        if event is not None and event.ending is Ending.FINISHED:
            self._windows[turn.backend].turn_ended(event)
        if not session.main_turns and (event is None or not goes_on(event, session)):
            self._deactivate(session)

    def session_forgotten(self, session: SessionState) -> None:
        self._deactivate(session)

    def observed(self, event: Observation, now: float) -> None:
        match event:
            case BackendObserved():
                is_full = self._room(event.backend) <= 0
                self._windows[event.backend].observe(event, now, is_full=is_full)
            case BackendUnreachable():
                self._waiting.unbind(event.backend)
            case _:
                pass

    # -- places -----------------------------------------------------------------------------------

    def settle(self, now: float) -> None:
        """Fill what is free, the emptiest backend being no better than any other: each has its lane."""
        if self.held:
            for backend in self._reachable():
                self._fill(backend)

    def _fill(self, backend: str) -> None:
        while self._has_place(backend) and (session_id := self._waiting.next_for(backend)) is not None:
            turns = self._waiting.pop(session_id)
            self._activate(turns[0].session, backend)
            for turn in turns:
                self._send(turn)

    def _has_place(self, backend: str) -> bool:
        """Where nothing runs there is one whatever the window: its agents may never come back."""
        return self._room(backend) > 0 or self._in_flight[backend] == 0

    def _room(self, backend: str) -> int:
        return self._windows[backend].size - self._active(backend)

    def _active(self, backend: str) -> int:
        return len(self.backends[backend].counted)

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
            self.backends[_backend_of(session)].release(session)


def _backend_of(session: SessionState) -> str:
    assert session.backend is not None, "an active agent has a backend"
    return session.backend
