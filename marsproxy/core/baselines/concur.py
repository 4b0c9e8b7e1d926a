"""CONCUR: a window of active agents per backend, steered like TCP's by what the KV cache says.

After arXiv 2601.22705. An agent is active from its first turn to its last, tool gaps included. Its turns
go at once while the active ones fit the window; when the window has shrunk, agents wait at their next
turn until others have gone. Those that were active before come before new ones, each in order of arrival.
See ``window`` for the control law and ``docs/baselines.md`` for what was chosen here.
"""

from collections.abc import Sequence

from marsproxy.core.baselines.base import FollowedTurn, Observation
from marsproxy.core.baselines.places import Places
from marsproxy.core.baselines.window import Window
from marsproxy.core.events import BackendObserved, Ending, TurnEnded
from marsproxy.core.settings import PolicySettings


class Concur(Places):
    def __init__(self, settings: PolicySettings, backends: Sequence[str]) -> None:
        super().__init__(settings, backends)
        self._windows = {name: Window(settings.admission.fallback_concurrency) for name in backends}

    def places_on(self, backend: str) -> int:
        return self._windows[backend].size

    def may_enter(self, backend: str) -> bool:
        """Where nothing runs there is a place whatever the window: its agents may never come back."""
        return self.room_on(backend) > 0 or self._is_idle(backend)

    def may_stay(self, backend: str) -> bool:
        return self.active_on(backend) <= self._windows[backend].size

    def turn_ended(self, turn: FollowedTurn, event: TurnEnded | None, now: float) -> None:
        is_answer = event is not None and event.ending is Ending.FINISHED and not turn.is_side
        if is_answer and event is not None and turn.backend is not None:
            self._windows[turn.backend].turn_ended(event)
        super().turn_ended(turn, event, now)

    def observed(self, event: Observation, now: float) -> None:
        super().observed(event, now)
        if isinstance(event, BackendObserved):
            is_full = self.room_on(event.backend) <= 0
            self._windows[event.backend].observe(event, now, is_full=is_full)

    def _is_idle(self, backend: str) -> bool:
        return not any(session.main_turns for session in self.backends[backend].counted.values())
