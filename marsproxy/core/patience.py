"""How long the place of a session between two turns is worth keeping, by what is known of its tools.

Before anything is seen of them it goes by the gaps that such calls have had. A tool that waits for a slot
has not begun: the wait is only cost, and the run comes after it. One that runs is predicted from its start;
as the best time to give up was chosen from all of what it may take, it stays the best as long as the tool
runs, and is not chosen anew. When the last tool has ended the session is as good as back. All of it in
``retention``'s terms: the prefill that a kept place saves against the memory that it takes.

Asks forecast, budgets and the tool hosts; changes nothing that decides.
"""

from typing import assert_never

from marsproxy.core.budgets import Budgets
from marsproxy.core.events import ToolObserved, ToolPhase
from marsproxy.core.forecast import Forecast
from marsproxy.core.gaps import Gap
from marsproxy.core.sessions import SessionState
from marsproxy.core.settings import PolicySettings


class Patience:
    def __init__(self, settings: PolicySettings, forecast: Forecast, budgets: Budgets) -> None:
        self._idle_gap_s = settings.admission.idle_gap_s
        """Most that a place is kept for, whatever runs (simulated: ten times that is 1 to 2 % worse)."""
        self._stale_s = settings.admission.telemetry_stale_s
        self._is_on = settings.parts.gpu_budget
        self._forecast = forecast
        self._budgets = budgets

    def for_gap_s(self, session: SessionState, now: float) -> float:
        """From the end of its turn, while nothing is seen of its tools."""
        if not self._is_on:
            return self._idle_gap_s
        curve = self._forecast.gap_curve(session, session.gap_signature)
        session.gap_expected_s = curve.quantile(0.5)
        return self._budgets.best_keep_s(session, curve, self._idle_gap_s, now)

    def for_step_s(self, gap: Gap, event: ToolObserved, now: float) -> float:
        """From a step of one of the gap's tools."""
        match event.phase:
            case ToolPhase.QUEUED:
                return self._for_run_s(gap.session, event, now, wait_s=self._wait_s(event, now))
            case ToolPhase.STARTED:
                return self._for_run_s(gap.session, event, now)
            case ToolPhase.FINISHED:
                return (
                    self.for_return_s(gap.session, now)
                    if gap.is_return_near
                    else self.for_gap_s(gap.session, now)
                )
            case _:
                assert_never(event.phase)

    def for_return_s(self, session: SessionState, now: float) -> float:
        """From the end of the last tool that was asked for."""
        if not self._is_on:
            return self._idle_gap_s
        curve = self._forecast.echo_curve(session)
        return self._budgets.best_keep_s(session, curve, self._idle_gap_s, now)

    def _for_run_s(
        self, session: SessionState, event: ToolObserved, now: float, *, wait_s: float = 0.0
    ) -> float:
        if not self._is_on:
            return self._idle_gap_s
        curve = self._forecast.run_curve(session, event.tool_signature)
        return self._budgets.best_keep_s(session, curve, self._idle_gap_s, now, wait_s=wait_s)

    def _wait_s(self, event: ToolObserved, now: float) -> float:
        """How long tools wait for a slot there; 0 where that is not told."""
        return self._budgets.tools.hosts.wait_s(event.host, now, self._stale_s) or 0.0
