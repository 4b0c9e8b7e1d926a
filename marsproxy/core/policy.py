"""The policy: one object, one door.

``Policy.handle(event, now)`` is the only thing that changes policy state. It returns the commands to
enact; capacity is taken in the same call that grants it, so nothing can change its mind in between.

What it decides: a continuation of a counted session goes at once, and so does a return whose blocks are
still there. Every other turn waits, by virtual deadline, until its session's footprint fits a backend's
KV budget and, for a new session, until the tool hosts have room. A counted session keeps its blocks in
its gaps; one that is gone for longer than its place is worth gives it to the first who waits. Where
telemetry is unknown a fixed cap on sessions takes the budget's place. ``docs/policy.md`` has the rules
with their formulas.

Two things hold after every call: a counted session has a turn in flight or sits in a tool gap, and a
counted session has no turn waiting.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from math import inf
from typing import assert_never

from marsproxy.core.admission import HoldQueue
from marsproxy.core.budgets import Budgets
from marsproxy.core.commands import (
    Command,
    ForgetSession,
    ForwardTurn,
    HintKv,
    HoldTurn,
    Reason,
    RejectTurn,
    SetTimer,
)
from marsproxy.core.events import (
    BackendObserved,
    BackendUnreachable,
    Ending,
    Event,
    HintAnswered,
    KvReclaimed,
    LeaseExpired,
    LeaseResumed,
    SessionEnded,
    TimerFired,
    ToolHostsObserved,
    ToolObserved,
    ToolPhase,
    TurnArrived,
    TurnEnded,
    TurnFirstToken,
    TurnProgressed,
)
from marsproxy.core.evidence import TurnKind
from marsproxy.core.forecast import Forecast
from marsproxy.core.gaps import Gap, Gaps
from marsproxy.core.headroom import BackendState, ToolHosts
from marsproxy.core.lanes import HeldTurn
from marsproxy.core.learned import LearnedForecast
from marsproxy.core.leases import Leases
from marsproxy.core.patience import Patience
from marsproxy.core.priority import DELAY_S, TurnClass, priority
from marsproxy.core.sessions import Phase, SessionState, SessionTable
from marsproxy.core.settings import PolicySettings
from marsproxy.core.text_rests import TextRests

MAX_YIELDING = 32
"""Overdue sessions that are asked for their places at a time."""
RETURN_WORK_SHARE = 0.3
"""Of a session's whole work, what a return is taken to have left (simulated: 0.2 to 1 are within 4 % of
each other in mean JCT on interactive and mixed traffic; 0 costs 15 %, because a few large returns then go
before many small sessions)."""


@dataclass(slots=True)
class OpenTurn:
    """A turn between its arrival and its ending."""

    arrival: TurnArrived
    session: SessionState
    turn_class: TurnClass
    forwarded_s: float | None = None
    has_lease: bool = False
    """One was asked for with it."""
    ttft_s: float | None = None
    """From being forwarded to the first token."""


class Policy:
    """Decides which turns go, wait or are refused. See the module for the rules.

    Args:
        backends: names of the vLLM servers, at least one.
    """

    def __init__(
        self, settings: PolicySettings, backends: Sequence[str], forecast: Forecast | None = None
    ) -> None:
        assert backends, "a policy without a backend has nowhere to send a turn"
        self._admission = settings.admission
        self._parts = settings.parts
        self._forecast = forecast or LearnedForecast(settings.admission)
        self.sessions = SessionTable(settings.sessions)
        self.held = HoldQueue(settings.tenant_weights)
        self._budgets = Budgets(settings, backends, self._forecast)
        self._turns: dict[str, OpenTurn] = {}
        self._gaps = Gaps(settings.admission.idle_gap_s)
        self._patience = Patience(settings, self._forecast, self._budgets)
        self._rests = TextRests()
        self._leases = Leases(self.backends, settings.admission.idle_gap_s, is_on=self._parts.retention)
        self._timer_s: float | None = None
        self._may_admit = False
        """Something changed that a held turn may have waited for."""

    @property
    def open_turns(self) -> int:
        return len(self._turns)

    @property
    def backends(self) -> dict[str, BackendState]:
        return self._budgets.backends

    @property
    def tool_hosts(self) -> ToolHosts:
        return self._budgets.tools.hosts

    def reserved_tokens(self, now: float) -> dict[str, float]:
        """Tokens promised to counted sessions, for each backend whose budget is known."""
        return self._budgets.loads(now)

    def budget_tokens(self, now: float) -> dict[str, float]:
        """Tokens that may be promised, on the same backends."""
        return self._budgets.limits(now)

    def handle(self, event: Event, now: float) -> list[Command]:
        commands: list[Command] = []
        if self._gaps.ripen(now):
            self._may_admit = True
        match event:
            case TurnArrived():
                self._arrived(event, now, commands)
            case TurnFirstToken():
                self._first_token(event, now)
            case TurnProgressed() | HintAnswered() | KvReclaimed():
                pass
            case LeaseResumed() | LeaseExpired():
                self._lease_ended(event, now, commands)
            case TurnEnded():
                self._ended(event, now, commands)
            case BackendObserved():
                self._budgets.observe(event, now, is_waited_for=bool(self.held))
                self._may_admit = True
            case BackendUnreachable():
                self._budgets.fleet.lost(event.backend)
                self._may_admit = True
            case ToolObserved():
                self._tool_observed(event, now, commands)
            case ToolHostsObserved():
                self.tool_hosts.observe(event, now)
                self._gaps.gateway_spoke(now)
                self._may_admit = True
            case SessionEnded():
                self._session_ended(event, now, commands)
            case TimerFired():
                self._timer_s = None
                self._time_passed(now, commands)
            case _:
                assert_never(event)
        if self._may_admit:
            self._drain(now, commands)
        self._rearm(commands)
        return commands

    # -- arrivals ---------------------------------------------------------------------------------

    def _arrived(self, event: TurnArrived, now: float, commands: list[Command]) -> None:
        assert event.turn_id not in self._turns, "a turn arrives once"
        session = self._session_of(event, now, commands)
        if session is None:
            commands.append(RejectTurn(event.turn_id, Reason.TABLE_FULL, self._admission.retry_after_s))
            return
        turn = OpenTurn(event, session, self._classify(event, session))
        self._turns[event.turn_id] = turn
        self.sessions.open_turn(session, event.turn_id, now)
        if turn.turn_class is TurnClass.SIDE:
            self._forward(turn, now, commands)
            return
        self._returned(session, now)
        context = self._budgets.context_of(event, session)
        self._forecast.turn_arrived(session, context, now)
        if session.is_counted and self._must_leave(session, now):
            self._uncount(session, now)
            self._let_go(session, commands)
            turn.turn_class = TurnClass.RETURN
            self._hold(turn, now, commands)
        elif session.is_counted:
            self._may_admit |= context < session.context_tokens
            session.context_tokens = context
            self._budgets.recharge(session)
            self._forward(turn, now, commands)
        elif self._is_warm_return(turn):
            self._count(session, self._budgets.home_of(session), context)
            turn.turn_class = TurnClass.CONTINUATION
            self._forward(turn, now, commands)
        else:
            self._hold(turn, now, commands)

    def _is_warm_return(self, turn: OpenTurn) -> bool:
        """Of a rewritten history next to nothing is cached; and who waits beside an earlier turn of its
        session waits with it."""
        if turn.turn_class is not TurnClass.RETURN or turn.arrival.kind is TurnKind.CONDENSED:
            return False
        if turn.session.held_turns:
            return False
        return self._parts.gpu_budget and self._budgets.is_warm(turn.session)

    def _returned(self, session: SessionState, now: float) -> None:
        if session.gap_since_s is not None:
            self._forecast.gap_ended(session, session.gap_signature, now - session.gap_since_s)
            session.gap_since_s = None
        gap = self._gaps.end(session)
        if gap is not None and gap.is_return_near and gap.tools_ended_s is not None:
            self._forecast.echo_ended(session, now - gap.tools_ended_s)
        self._rests.came_back(session)

    def _must_leave(self, session: SessionState, now: float) -> bool:
        """Whether a counted session has to give up its place before its next turn. Beside another turn in
        flight it goes where that is, be it reachable or not: its blocks are there, and so is its lease."""
        if session.main_turns:
            return False
        return self._budgets.is_stranded(session) or self._must_pause(session, now)

    def _must_pause(self, session: SessionState, now: float) -> bool:
        """The valve: predictions were too low, so the youngest makes room for the others."""
        if not self._parts.valve or not self._parts.gpu_budget:
            return False
        backend = self._budgets.backend_of(session)
        youngest = next(reversed(backend.counted.values()))
        return youngest is session and len(backend.counted) > 1 and self._budgets.is_overfull(backend, now)

    def _session_of(self, event: TurnArrived, now: float, commands: list[Command]) -> SessionState | None:
        """The session's row, made if need be; None when the table is full of sessions at work."""
        if (known := self.sessions.get(event.session_id)) is not None:
            return known
        if self.sessions.is_full():
            victim = self.sessions.longest_quiet()
            if victim is None:
                return None
            self._forget(victim, now, commands)
        session = SessionState(event.session_id, event.tenant, event.family, now, now)
        session.parent_id = event.parent_session_id
        self.sessions.add(session)
        return session

    def _classify(self, event: TurnArrived, session: SessionState) -> TurnClass:
        if event.kind is TurnKind.SIDE:
            return TurnClass.SIDE
        if session.is_counted:
            return TurnClass.CONTINUATION
        parent = self.sessions.get(session.parent_id) if session.parent_id else None
        # A sub-agent's parent holds its budget until the sub-agent is done.
        has_history = session.turns > 0 or event.kind in (TurnKind.CONTINUATION, TurnKind.CONDENSED)
        if has_history or (parent is not None and parent.is_counted):
            return TurnClass.RETURN
        return TurnClass.NEW

    def _hold(self, turn: OpenTurn, now: float, commands: list[Command]) -> None:
        """Queue the turn, and let it go at once if it is near the front and fits."""
        if not self.held and self._try_charge(turn, now) is None:
            self._forward(turn, now, commands)
            return
        turn_id, session = turn.arrival.turn_id, turn.session
        deadline_s = self._deadline_s(turn, now)
        held = HeldTurn(turn_id, session.id, turn.turn_class, now, deadline_s, turn.arrival.tenant)
        self.held.add(held)
        session.held_turns.append(turn_id)
        session.phase = Phase.QUEUED
        position = self.held.position(held)
        if self._may_admit or position <= 1 + self._admission.look_ahead:
            self._drain(now, commands)
            if turn_id not in session.held_turns:
                return
            position = self.held.position(held)
        if len(self.held) > self._admission.max_held_turns:
            self._reject(turn, Reason.QUEUE_FULL, now, commands)
        else:
            commands.append(HoldTurn(turn_id, held.reason, position))

    # -- admission --------------------------------------------------------------------------------

    def _drain(self, now: float, commands: list[Command]) -> None:
        """Forward held turns while any of the first few fits."""
        if self.held:
            while self._admit_one(now, commands):
                pass
        self._may_admit = False

    def _admit_one(self, now: float, commands: list[Command]) -> bool:
        window = self.held.candidates(self._admission.look_ahead, self._admission.max_overtakes)
        for index, held in enumerate(window):
            turn = self._turns[held.turn_id]
            obstacle = self._try_charge(turn, now)
            if index == 0 and obstacle is Reason.KV_FULL:
                obstacle = self._take_overdue(turn, now, commands)
            if obstacle is None:
                self.held.overtake(held, window[:index])
                self.held.serve(held.tenant, turn.session.charged_tokens)
                self._release_held(turn, now, commands)
                return True
            held.reason = obstacle
        return False

    def _take_overdue(self, turn: OpenTurn, now: float, commands: list[Command]) -> Reason | None:
        """Sessions that have been gone for too long give their places to the head of the queue."""
        self._gaps.ripen(now)
        obstacle: Reason | None = Reason.KV_FULL
        for session in list(islice(self._gaps.overdue(), MAX_YIELDING)):
            if session.is_counted and obstacle is Reason.KV_FULL:
                self._gaps.give_up_place(session)
                self._lose_place(session, now, commands)
                obstacle = self._try_charge(turn, now)
        return obstacle

    def _try_charge(self, turn: OpenTurn, now: float) -> Reason | None:
        """Count the turn's session if it fits somewhere; else what keeps it out."""
        context = self._budgets.context_of(turn.arrival, turn.session)
        backend, obstacle = self._budgets.choose(turn.session, turn.turn_class, context, now)
        if obstacle is None:
            self._count(turn.session, backend, context)
        return obstacle

    def _count(self, session: SessionState, backend: BackendState, context: int) -> None:
        self._budgets.charge(session, backend, context)

    def _deadline_s(self, turn: OpenTurn, now: float) -> float:
        """The virtual deadline of a turn that begins to wait: the more of the pool it will take, and the
        longer, the later."""
        if not self._parts.order:
            return now + DELAY_S[turn.turn_class]
        context = self._budgets.context_of(turn.arrival, turn.session)
        work_s = self._forecast.work_s(turn.session) * self._budgets.relative_size(turn.session, context)
        if turn.turn_class is TurnClass.RETURN:
            work_s *= RETURN_WORK_SHARE
        return now + self._admission.deadline_slack * work_s

    def _release_held(self, admitted: OpenTurn, now: float, commands: list[Command]) -> None:
        """The session is counted now: the turn that it was counted for goes, and with it all its others."""
        waiting, admitted.session.held_turns = admitted.session.held_turns, []
        for turn_id in waiting:
            self.held.remove(turn_id)
        self._forward(admitted, now, commands)
        for turn_id in waiting:
            turn = self._turns[turn_id]
            if turn is not admitted:
                turn.turn_class = TurnClass.CONTINUATION
                self._forward(turn, now, commands)

    def _forward(self, turn: OpenTurn, now: float, commands: list[Command]) -> None:
        session, turn_id = turn.session, turn.arrival.turn_id
        turn.forwarded_s = now
        backend, lease = session.backend, None
        if turn.turn_class is TurnClass.SIDE:
            backend = self._budgets.backend_of_side_call(session)
        else:
            lease = self._leases.try_ask(session)
            turn.has_lease = lease is not None
            session.main_turns.add(turn_id)
            session.phase = Phase.GENERATING
            self._forecast.turn_forwarded(session, now)
        assert backend is not None, "a counted session has a backend"
        rank = priority(turn.turn_class, session.first_arrival_s) if self._parts.priority else 0
        may_break = turn.turn_class is not TurnClass.NEW
        commands.append(ForwardTurn(turn_id, backend, rank, turn.turn_class.value, may_break, lease))

    def _reject(self, turn: OpenTurn, reason: Reason, now: float, commands: list[Command]) -> None:
        commands.append(RejectTurn(turn.arrival.turn_id, reason, self._admission.retry_after_s))
        self._close(turn, now, commands)

    def _first_token(self, event: TurnFirstToken, now: float) -> None:
        turn = self._turns.get(event.turn_id)
        if turn is not None and turn.forwarded_s is not None:
            turn.ttft_s = now - turn.forwarded_s

    # -- endings ----------------------------------------------------------------------------------

    def _ended(self, event: TurnEnded, now: float, commands: list[Command]) -> None:
        turn = self._turns.get(event.turn_id)
        if turn is None:
            return
        session = turn.session
        if event.turn_id in session.main_turns:
            if event.ending is Ending.FINISHED:
                self._learn_size(turn, event, now)
            if len(session.main_turns) == 1:
                self._enter_gap(turn, event, now)
                self._advise(turn, event.ending, now, commands)
        self._close(turn, now, commands)

    def _close(self, turn: OpenTurn, now: float, commands: list[Command]) -> None:
        """The turn is answered or given up, whether it was in flight or still waiting."""
        turn_id, session = turn.arrival.turn_id, turn.session
        del self._turns[turn_id]
        if self.held.remove(turn_id) is not None:
            session.held_turns.remove(turn_id)
            self._may_admit = True
            session.phase = Phase.QUEUED if session.held_turns else Phase.IDLE
        self.sessions.close_turn(session, turn_id, now)
        if session.is_over and not session.open_turns:
            self._forget(session, now, commands)

    def _learn_size(self, turn: OpenTurn, event: TurnEnded, now: float) -> None:
        session, kind = turn.session, turn.arrival.kind
        if turn.turn_class is TurnClass.CONTINUATION and kind is not TurnKind.CONDENSED:
            self._budgets.returned(session, event)
        # What another attempt, or a life before this table's, has left in the cache is not the family's.
        is_very_first = turn.turn_class is TurnClass.NEW and kind is TurnKind.FIRST and not session.turns
        if is_very_first and event.cached_tokens is not None:
            self._budgets.learn_shared(session, event.cached_tokens)
        if event.prompt_tokens is None:
            context = self._budgets.context_of(turn.arrival, session)
        else:
            self._budgets.ratio.learn(turn.arrival.prompt_tokens_estimate, event.prompt_tokens)
            context = event.prompt_tokens + (event.completion_tokens or 0)
        self._may_admit |= context < session.context_tokens
        session.turns += 1
        session.grow_to(context)
        self._budgets.computed(session, event, turn.ttft_s)
        self._budgets.recharge(session)
        self._forecast.turn_ended(session, event, now)

    def _enter_gap(self, turn: OpenTurn, event: TurnEnded, now: float) -> None:
        """The session's last turn in flight is over: what is it doing now?"""
        session = turn.session
        session.gap_signature = event.tool_signature
        self._rests.answered(session, is_text=event.ending is Ending.FINISHED and not event.tool_calls)
        if not self._may_come_back(session, event.ending):
            self._uncount(session, now)
            return
        session.gap_since_s = now
        is_resting = session.is_after_text and not self._rests.expects_step(session)
        self._gaps.begin(
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

    def _advise(self, turn: OpenTurn, ending: Ending, now: float, commands: list[Command]) -> None:
        """The session's last turn in flight is over: its blocks are kept through the gap, or let go."""
        session = turn.session
        if not session.is_counted:
            self._let_go(session, commands)
        elif not turn.has_lease or ending is not Ending.FINISHED:
            self._order(self._leases.try_keep(session, self._gaps.left_s(session, now)), commands)

    def _let_go(self, session: SessionState, commands: list[Command]) -> None:
        """The session is not counted any more: whatever is kept for it may go, the sooner the less it is
        likely to come back."""
        is_expected = not session.is_over and self._rests.expects_comeback(session)
        self._order(self._leases.try_let_go(session, is_expected=is_expected), commands)

    def _lease_ended(self, event: LeaseResumed | LeaseExpired, now: float, commands: list[Command]) -> None:
        session = self.sessions.get(event.session_id)
        if session is None:
            return
        if isinstance(event, LeaseResumed):
            self._leases.resumed(session, event)
        else:
            left_s, is_overdue = self._gaps.left_s(session, now), self._gaps.is_overdue(session)
            self._order(self._leases.try_renew(session, event, left_s, is_overdue=is_overdue), commands)

    @staticmethod
    def _order(hint: HintKv | None, commands: list[Command]) -> None:
        if hint is not None:
            commands.append(hint)

    @staticmethod
    def _may_come_back(session: SessionState, ending: Ending) -> bool:
        """A failure is retried by an agent that was at work; a first turn that fails has nothing cached
        to come back to, and may well be a request that can never succeed."""
        if session.is_over:
            return False
        if ending is Ending.FAILED:
            return session.turns > 0
        return ending is Ending.FINISHED

    def _rest(self, session: SessionState, now: float) -> None:
        """Nothing more is expected: the session's size is known, and its budget is free."""
        if session.turns:
            self._forecast.session_rested(session, now)
        self._uncount(session, now)

    def _uncount(self, session: SessionState, now: float) -> None:
        """Give the budget back. The blocks stay cached until somebody needs them."""
        session.phase = Phase.IDLE
        self._budgets.release(session, now)
        self._may_admit = True

    # -- tools ------------------------------------------------------------------------------------

    def _tool_observed(self, event: ToolObserved, now: float, commands: list[Command]) -> None:
        gap = self._gaps.observe(event, now)
        session = gap.session if gap is not None else self._taught_by(event)
        if session is not None and event.phase is ToolPhase.FINISHED:
            self._forecast.tool_finished(session.family, event)
        if gap is None:
            return
        if gap.session.is_counted:
            after_s = self._patience.for_step_s(gap, event, now)
            self._gaps.yield_after(gap, event.exec_id, after_s, now)
        elif gap.is_return_near:
            self._take_place_again(gap, now)
        if gap.is_return_near and gap.session.is_counted:
            self._order(
                self._leases.try_keep_again(gap.session, self._gaps.left_s(gap.session, now)), commands
            )

    def _taught_by(self, event: ToolObserved) -> SessionState | None:
        """Whose tool ended when its gap was over."""
        if event.phase is not ToolPhase.FINISHED:
            return None
        session = self._gaps.taught_by(event)
        if session is None and event.llm_session is not None:
            session = self.sessions.get(event.llm_session)
        return session

    def _take_place_again(self, gap: Gap, now: float) -> None:
        """Its tools took longer than its place was worth keeping, and now it is about to return. Where its
        blocks should still be there it will go at once anyway; until then they are kept from others."""
        session = gap.session
        if session.phase is not Phase.IDLE or session.is_after_text or session.is_over:
            return
        if not self._parts.gpu_budget or not self._budgets.is_warm(session):
            return
        self._count(session, self._budgets.home_of(session), session.context_tokens)
        session.phase = Phase.TOOL_GAP
        self._gaps.take_place(gap, self._patience.for_return_s(session, now), now)

    def _session_ended(self, event: SessionEnded, now: float, commands: list[Command]) -> None:
        session = self.sessions.get(event.session_id)
        if session is None:
            return
        session.is_over = True
        if not session.open_turns:
            if not session.is_counted:
                self._let_go(session, commands)
            self._forget(session, now, commands)
        elif session.phase is Phase.TOOL_GAP:  # only side calls are left
            self._end_gap(session, now, commands)

    def _forget(self, session: SessionState, now: float, commands: list[Command]) -> None:
        self._end_gap(session, now, commands)
        self.sessions.remove(session)
        self._leases.forget(session)
        self._forecast.session_forgotten(session)
        commands.append(ForgetSession(session.id))

    # -- time -------------------------------------------------------------------------------------

    def _time_passed(self, now: float, commands: list[Command]) -> None:
        for session in self._gaps.pop_over(now):
            self._end_gap(session, now, commands)
        for session in self.sessions.expired(now):
            self._forget(session, now, commands)
        for held in self.held.held_too_long(self._admission.max_hold_s, now):
            self._reject(self._turns[held.turn_id], Reason.HELD_TOO_LONG, now, commands)

    def _end_gap(self, session: SessionState, now: float, commands: list[Command]) -> None:
        """Nothing came in the session's gap, if it is in one, and nothing will."""
        self._gaps.end(session)
        self._lose_place(session, now, commands)

    def _lose_place(self, session: SessionState, now: float, commands: list[Command]) -> None:
        self._rests.nothing_came(session)
        if session.phase is Phase.TOOL_GAP:
            self._rest(session, now)
            self._let_go(session, commands)

    def _rearm(self, commands: list[Command]) -> None:
        """Ask to be called when the next thing falls due, unless that is already arranged."""
        due_s = inf
        if (waiting_s := self.held.longest_waiting_s()) is not None:
            due_s = waiting_s + self._admission.max_hold_s
            if (overdue_s := self._gaps.next_overdue_s()) is not None and overdue_s < due_s:
                due_s = overdue_s
        if (over_s := self._gaps.next_over_s()) is not None and over_s < due_s:
            due_s = over_s
        if (expiry_s := self.sessions.next_expiry_s()) is not None and expiry_s < due_s:
            due_s = expiry_s
        if due_s < (inf if self._timer_s is None else self._timer_s):
            self._timer_s = due_s
            commands.append(SetTimer(due_s))
