"""The places of counted sessions: how long each is kept between two turns, and what goes with one.

Owns gaps, rests and leases, and what tools have to say about them. A place and the lease on its blocks
are one decision. Must not know who waits; what became free is told by ``has_freed``.
"""

from dataclasses import replace

from marsproxy.core.budgets import Budgets
from marsproxy.core.commands import Command, HintKv
from marsproxy.core.events import (
    Ending,
    LeaseExpired,
    LeaseResumed,
    ToolObserved,
    ToolPhase,
    TurnEnded,
)
from marsproxy.core.forecast import Forecast
from marsproxy.core.gaps import Gap, Gaps
from marsproxy.core.headroom import BackendState
from marsproxy.core.leases import Leases
from marsproxy.core.patience import Patience
from marsproxy.core.sessions import Phase, SessionState, SessionTable
from marsproxy.core.settings import PolicySettings
from marsproxy.core.text_rests import TextRests


class Places:
    def __init__(
        self, settings: PolicySettings, sessions: SessionTable, budgets: Budgets, forecast: Forecast
    ) -> None:
        self._sessions = sessions
        self._budgets = budgets
        self._forecast = forecast
        self._has_budget = settings.parts.gpu_budget
        self._patience = Patience(settings, forecast, budgets)
        self._rests = TextRests()
        self.gaps = Gaps(settings.admission.idle_gap_s)
        self.leases = Leases(budgets.backends, settings.admission.idle_gap_s, is_on=settings.parts.retention)
        self.has_freed = False
        """A place was given back since this was last set to False."""

    # -- taking and giving back -------------------------------------------------------------------

    def count(self, session: SessionState, backend: BackendState, context: int) -> None:
        self._budgets.charge(session, backend, context)

    def uncount(self, session: SessionState, now: float) -> None:
        """Give the budget back. The blocks stay cached until somebody needs them."""
        session.phase = Phase.IDLE
        self._budgets.release(session, now)
        self.has_freed = True

    def lose(self, session: SessionState, now: float, commands: list[Command]) -> None:
        """Nothing came in its gap, or it is not waited for any longer."""
        self._rests.nothing_came(session)
        if session.phase is Phase.TOOL_GAP:
            session.lost_place_s = now
            self._rest(session, now)
            self.let_go(session, commands)

    def leave(self, gone: frozenset[str], now: float, commands: list[Command]) -> None:
        """These backends are gone, and with them what sessions had there. Turns in flight may end yet."""
        for session in self._sessions:
            if session.backend in gone:
                if session.phase is Phase.TOOL_GAP:
                    self.gaps.give_up_place(session)
                    self.lose(session, now, commands)
                elif not session.is_counted:
                    session.backend = None

    def bounced(self, session: SessionState, now: float, commands: list[Command]) -> None:
        """Its only turn in flight was not taken: its blocks are as good as lost."""
        self.uncount(session, now)
        _order(self.leases.try_let_go(session, is_expected=False), commands)
        session.backend = None

    def let_go(self, session: SessionState, commands: list[Command]) -> None:
        """The session is not counted any more: whatever is kept for it may go, the sooner the less it is
        likely to come back."""
        is_expected = not session.is_over and self._rests.expects_comeback(session)
        _order(self.leases.try_let_go(session, is_expected=is_expected), commands)

    def _rest(self, session: SessionState, now: float) -> None:
        """Nothing more is expected: the session's size is known, and its budget is free."""
        if session.turns:
            self._forecast.session_rested(session, now)
        self.uncount(session, now)

    # -- gaps -------------------------------------------------------------------------------------

    def returned(self, session: SessionState, now: float) -> None:
        """A turn of it has come: its gap is over, if it was in one."""
        if session.gap_since_s is not None:
            self._forecast.gap_ended(session, session.gap_signature, now - session.gap_since_s)
            session.gap_since_s = None
        gap = self.gaps.end(session)
        if gap is not None and gap.is_return_near and gap.tools_ended_s is not None:
            self._forecast.echo_ended(session, now - gap.tools_ended_s)
        self._rests.came_back(session)

    def enter_gap(
        self, session: SessionState, event: TurnEnded, now: float, commands: list[Command], *, has_lease: bool
    ) -> None:
        """The session's last turn in flight is over: what is it doing now, and are its blocks kept?"""
        self._begin_gap(session, event, now)
        if not session.is_counted:
            self.let_go(session, commands)
        elif not has_lease or event.ending is not Ending.FINISHED:
            _order(self.leases.try_keep(session, self.gaps.left_s(session, now)), commands)

    def _begin_gap(self, session: SessionState, event: TurnEnded, now: float) -> None:
        session.gap_signature = event.tool_signature
        session.gap_expected_s = session.lost_place_s = None
        self._rests.answered(session, is_text=event.ending is Ending.FINISHED and not event.tool_calls)
        if not _may_come_back(session, event.ending) or self._budgets.backend_of(session).has_left:
            self.uncount(session, now)
            return
        session.gap_since_s = now
        is_resting = session.is_after_text and not self._rests.expects_step(session)
        self.gaps.begin(
            session,
            None if is_resting else self._patience.for_gap_s(session, now),
            now,
            calls=event.tool_calls,
            call_ids=event.tool_call_ids,
            digests=event.command_digests,
        )
        if is_resting:
            self._rest(session, now)
        else:
            session.phase = Phase.TOOL_GAP

    def end_gap(self, session: SessionState, now: float, commands: list[Command]) -> None:
        """Nothing came in the session's gap, if it is in one, and nothing will."""
        self.gaps.end(session)
        self.lose(session, now, commands)

    def lease_ended(self, event: LeaseResumed | LeaseExpired, now: float, commands: list[Command]) -> None:
        session = self._sessions.get(event.session_id)
        if session is None:
            return
        if isinstance(event, LeaseResumed):
            self.leases.resumed(session, event)
        else:
            left_s, is_overdue = self.gaps.left_s(session, now), self.gaps.is_overdue(session)
            _order(self.leases.try_renew(session, event, left_s, is_overdue=is_overdue), commands)

    # -- tools ------------------------------------------------------------------------------------

    def tool_observed(self, event: ToolObserved, now: float, commands: list[Command]) -> None:
        if event.llm_session is not None and self._sessions.get(event.llm_session) is None:
            event = replace(event, llm_session=None)  # a name of the caller's own: it says nothing here
        gap = self.gaps.observe(event, now)
        session = gap.session if gap is not None else self._taught_by(event)
        if session is not None and event.phase is ToolPhase.FINISHED:
            self._forecast.tool_finished(session.family, event)
        if gap is None:
            return
        if gap.session.is_counted:
            after_s = self._patience.for_step_s(gap, event, now)
            self.gaps.yield_after(gap, event.exec_id, after_s, now)
        elif gap.is_return_near:
            self._take_again(gap, now)
        if gap.is_return_near and gap.session.is_counted:
            _order(self.leases.try_keep_again(gap.session, self.gaps.left_s(gap.session, now)), commands)

    def _taught_by(self, event: ToolObserved) -> SessionState | None:
        """Whose tool ended when its gap was over."""
        if event.phase is not ToolPhase.FINISHED:
            return None
        session = self.gaps.taught_by(event)
        if session is None and event.llm_session is not None:
            session = self._sessions.get(event.llm_session)
        return session

    def _take_again(self, gap: Gap, now: float) -> None:
        """Its tools took longer than its place was worth keeping, and now it is about to return. Where its
        blocks should still be there it will go at once anyway; until then they are kept from others."""
        session = gap.session
        if session.phase is not Phase.IDLE or session.is_after_text or session.is_over:
            return
        if not self._has_budget or not self._budgets.goes_unasked(session):
            return
        self.count(session, self._budgets.home_of(session), session.context_tokens)
        session.phase, session.lost_place_s = Phase.TOOL_GAP, None
        self.gaps.take_place(gap, self._patience.for_return_s(session, now), now)


def _may_come_back(session: SessionState, ending: Ending) -> bool:
    """A failure is retried by an agent that was at work; a first turn that fails has nothing cached
    to come back to, and may well be a request that can never succeed."""
    if session.is_over:
        return False
    if ending is Ending.FAILED:
        return session.turns > 0
    return ending is Ending.FINISHED


def _order(hint: HintKv | None, commands: list[Command]) -> None:
    if hint is not None:
        commands.append(hint)
