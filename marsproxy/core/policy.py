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
from math import inf
from typing import assert_never

from marsproxy.core.admission import HoldQueue
from marsproxy.core.budgets import Budgets
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
from marsproxy.core.evidence import TurnKind
from marsproxy.core.fleet import Wanted, nowhere
from marsproxy.core.forecast import Forecast
from marsproxy.core.headroom import BackendState, ToolHosts
from marsproxy.core.lanes import HeldTurn
from marsproxy.core.learned import LearnedForecast
from marsproxy.core.places import Places
from marsproxy.core.priority import DELAY_S, TurnClass, priority
from marsproxy.core.sessions import Phase, SessionState, SessionTable
from marsproxy.core.settings import PolicySettings
from marsproxy.core.tool_joins import JoinedBy
from marsproxy.core.yielding import yielding

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
    arrived_s: float
    wanted: Wanted
    backend: str | None = None
    """Where it is in flight; None while it is held."""
    forwarded_s: float | None = None
    has_lease: bool = False
    """One was asked for with it."""
    ttft_s: float | None = None
    """From being forwarded to the first token."""


class Policy:
    """Decides which turns go, wait or are refused. See the module for the rules.

    Args:
        backends: names of the vLLM servers, until ``BackendsChanged`` says others.
    """

    def __init__(
        self, settings: PolicySettings, backends: Sequence[str], forecast: Forecast | None = None
    ) -> None:
        self._admission = settings.admission
        self._parts = settings.parts
        self._forecast = forecast or LearnedForecast(settings.admission)
        self.sessions = SessionTable(settings.sessions)
        self.held = HoldQueue(settings.tenant_weights)
        self._budgets = Budgets(settings, backends, self._forecast)
        self._turns: dict[str, OpenTurn] = {}
        self._places = Places(settings, self.sessions, self._budgets, self._forecast)
        self._gaps = self._places.gaps
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

    def tool_joined_by(self, exec_id: str) -> JoinedBy | None:
        return self._gaps.joined_by(exec_id)

    def tool_session(self, exec_id: str) -> str | None:
        """Id of the session that a run, which waits or is under way, was joined to."""
        return self._gaps.session_of(exec_id)

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
            case TurnBounced():
                self._bounced(event, now, commands)
            case BackendsChanged():
                self._backends_changed(event, now, commands)
            case TenantsChanged():
                self.held.reweigh({each.tenant: each.weight for each in event.tenants})
            case TurnResumed():
                self._resumed(event, now, commands)
            case StandingAlone():
                self._stand_alone(event, now)
            case StandingTogether():
                self._budgets.stand_together()
                self._may_admit = True
            case LeaseResumed() | LeaseExpired():
                self._places.lease_ended(event, now, commands)
            case TurnEnded():
                self._ended(event, now, commands)
            case BackendObserved():
                self._budgets.observe(event, now, is_waited_for=bool(self.held))
                self._may_admit = True
            case BackendUnreachable():
                self._budgets.fleet.lost(event.backend)
                self._may_admit = True
            case ToolObserved():
                self._places.tool_observed(event, now, commands)
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
        if self._may_admit or self._places.has_freed:
            self._drain(now, commands)
        self._rearm(now, commands)
        return commands

    # -- arrivals ---------------------------------------------------------------------------------

    def _arrived(
        self, event: TurnArrived, now: float, commands: list[Command], *, waited_s: float = 0.0
    ) -> None:
        assert event.turn_id not in self._turns, "a turn arrives once"
        session = self._session_of(event, now, commands)
        if session is None:
            commands.append(RejectTurn(event.turn_id, Reason.TABLE_FULL, self._admission.retry_after_s))
            return
        arrived_s = now - waited_s
        turn = OpenTurn(event, session, self._classify(event, session), arrived_s, Wanted(event.model))
        self._turns[event.turn_id] = turn
        self.sessions.open_turn(session, event.turn_id, now)
        if turn.turn_class is TurnClass.SIDE:
            self._forward(turn, now, commands)
            return
        self._places.returned(session, now)
        context = self._budgets.context_of(event, session)
        self._forecast.turn_arrived(session, context, now)
        is_beside = session.is_counted and session.main_turns
        if is_beside and not self._budgets.may_stay(session, turn.wanted):
            self._go_aside(turn, now, commands)
        elif session.is_counted and self._must_leave(session, context, turn.wanted, now):
            self._places.uncount(session, now)
            self._places.let_go(session, commands)
            turn.turn_class = TurnClass.RETURN
            self._hold(turn, now, commands)
        elif session.is_counted:
            self._may_admit |= context < session.context_tokens
            session.context_tokens = context
            self._budgets.recharge(session)
            self._forward(turn, now, commands)
        elif self._is_warm_return(turn, now):
            self._places.count(session, self._budgets.home_of(session), context)
            turn.turn_class = TurnClass.CONTINUATION
            self._forward(turn, now, commands)
        else:
            self._hold(turn, now, commands)

    def _is_warm_return(self, turn: OpenTurn, now: float) -> bool:
        """Of a rewritten history next to nothing is cached; and who waits beside an earlier turn of its
        session waits with it."""
        if turn.turn_class is not TurnClass.RETURN or turn.arrival.kind is TurnKind.CONDENSED:
            return False
        if turn.session.held_turns:
            return False
        if not self._parts.gpu_budget or not self._budgets.goes_unasked(turn.session):
            return False
        context = self._budgets.context_of(turn.arrival, turn.session)
        has_room = self._budgets.has_room_at_home(turn.session, context, now)
        return has_room and self._budgets.may_stay(turn.session, turn.wanted)

    def _must_leave(self, session: SessionState, context: int, wanted: Wanted, now: float) -> bool:
        """Whether a counted session has to give up its place before its next turn. Beside another turn in
        flight it goes where that is, be it reachable or not: its blocks are there, and so is its lease."""
        if session.main_turns:
            return False
        return self._budgets.must_move(session, context, wanted, now) or self._must_pause(session, now)

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
        deadline_s = self._deadline_s(turn)
        held = HeldTurn(
            turn_id,
            session.id,
            turn.turn_class,
            turn.arrived_s,
            deadline_s,
            turn.arrival.tenant,
            usable=self._usable(turn),
        )
        self.held.add(held)
        session.held_turns.append(turn_id)
        session.phase = Phase.QUEUED
        position = self.held.position(held)
        if (
            self._may_admit
            or self._places.has_freed
            or self.held.is_split
            or position <= 1 + self._admission.look_ahead
        ):
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
        self._may_admit = self._places.has_freed = False

    def _admit_one(self, now: float, commands: list[Command]) -> bool:
        passed: list[HeldTurn] = []
        for window in self.held.windows(self._admission.look_ahead, self._admission.max_overtakes):
            for index, held in enumerate(window.turns):
                turn = self._turns[held.turn_id]
                obstacle = self._try_charge(turn, now, window.barred)
                if index == 0 and obstacle is Reason.KV_FULL:
                    obstacle = self._take_overdue(turn, now, commands, window.barred)
                if obstacle is None:
                    others = (head for head in passed if turn.session.backend in head.usable)
                    self.held.overtake(held, [*others, *window.turns[:index]])
                    self.held.serve(held.tenant, turn.session.charged_tokens)
                    self._release_held(turn, now, commands)
                    return True
                held.reason = obstacle
            passed.append(window.turns[0])
        return False

    def _take_overdue(
        self, turn: OpenTurn, now: float, commands: list[Command], barred: frozenset[str]
    ) -> Reason | None:
        """Sessions that have been gone for too long give their places to the head of the queue."""
        self._gaps.ripen(now)
        obstacle: Reason | None = Reason.KV_FULL
        context = self._budgets.context_of(turn.arrival, turn.session)
        overdue = self._gaps.overdue()
        wanted = turn.wanted.but_for(barred)
        for session in yielding(self._budgets, overdue, turn.session, context, wanted, now):
            if obstacle is Reason.KV_FULL:
                self._gaps.give_up_place(session)
                self._places.lose(session, now, commands)
                obstacle = self._try_charge(turn, now, barred)
        return obstacle

    def _try_charge(self, turn: OpenTurn, now: float, barred: frozenset[str] = frozenset()) -> Reason | None:
        """Count the turn's session if it fits somewhere; else what keeps it out."""
        context = self._budgets.context_of(turn.arrival, turn.session)
        wanted = turn.wanted.but_for(barred)
        chosen = self._budgets.choose(turn.session, turn.turn_class, context, wanted, now)
        if isinstance(chosen, Reason):
            return Reason.BEHIND_OTHERS if barred else chosen
        self._places.count(turn.session, chosen, context)
        return None

    def _usable(self, turn: OpenTurn) -> frozenset[str]:
        return self._budgets.fleet.serving(turn.wanted.model) - turn.wanted.not_on

    def _deadline_s(self, turn: OpenTurn) -> float:
        """The virtual deadline of a turn that begins to wait: the more of the pool it will take, and the
        longer, the later."""
        if not self._parts.order:
            return turn.arrived_s + DELAY_S[turn.turn_class]
        context = self._budgets.context_of(turn.arrival, turn.session)
        work_s = self._forecast.work_s(turn.session) * self._budgets.relative_size(turn.session, context)
        if turn.turn_class is TurnClass.RETURN:
            work_s *= RETURN_WORK_SHARE
        return turn.arrived_s + self._admission.deadline_slack * work_s

    def _release_held(
        self, admitted: OpenTurn, now: float, commands: list[Command], *, is_under_way: bool = False
    ) -> None:
        """The session is counted now: the turn that it was counted for goes, and with it all its others."""
        waiting, admitted.session.held_turns = admitted.session.held_turns, []
        for turn_id in waiting:
            self.held.remove(turn_id)
        if is_under_way:
            self._take_off(admitted, now)
        else:
            self._forward(admitted, now, commands)
        for turn_id in waiting:
            turn = self._turns[turn_id]
            if turn is admitted:
                continue
            if self._budgets.may_stay(turn.session, turn.wanted):
                turn.turn_class = TurnClass.CONTINUATION
                self._forward(turn, now, commands)
            else:
                self._go_aside(turn, now, commands)

    def _go_aside(self, turn: OpenTurn, now: float, commands: list[Command]) -> None:
        """To a backend where it takes no place, like a side call: its session's other turns are in flight
        where this one cannot go."""
        turn.turn_class = TurnClass.SIDE
        self._forward(turn, now, commands)

    def _forward(self, turn: OpenTurn, now: float, commands: list[Command]) -> None:
        session, turn_id = turn.session, turn.arrival.turn_id
        backend, lease = session.backend, None
        if turn.turn_class is TurnClass.SIDE:
            backend = self._budgets.backend_of_side_call(session, turn.wanted)
            if backend is None:
                self._reject(turn, nowhere(turn.wanted), now, commands)
                return
        else:
            lease = self._places.leases.try_ask(session)
            turn.has_lease = lease is not None
            self._take_off(turn, now)
        assert backend is not None, "a counted session has a backend"
        turn.backend, turn.forwarded_s = backend, now
        rank = priority(turn.turn_class, session.first_arrival_s) if self._parts.priority else 0
        may_break = turn.turn_class is not TurnClass.NEW
        commands.append(ForwardTurn(turn_id, backend, rank, turn.turn_class.value, may_break, lease))

    def _take_off(self, turn: OpenTurn, now: float) -> None:
        """A turn of the session's main line is in flight."""
        turn.session.main_turns.add(turn.arrival.turn_id)
        turn.session.phase = Phase.GENERATING
        self._forecast.turn_forwarded(turn.session, now)

    def _reject(self, turn: OpenTurn, reason: Reason, now: float, commands: list[Command]) -> None:
        commands.append(RejectTurn(turn.arrival.turn_id, reason, self._admission.retry_after_s))
        self._close(turn, now, commands)

    # -- backends ---------------------------------------------------------------------------------

    def _backends_changed(self, event: BackendsChanged, now: float, commands: list[Command]) -> None:
        self._places.leave(self._budgets.change(event.backends), now, commands)
        self.held.regroup(lambda turn_id: self._usable(self._turns[turn_id]))
        self._may_admit = True

    def _bounced(self, event: TurnBounced, now: float, commands: list[Command]) -> None:
        """The turn is on its way again, to another backend than any that has failed it."""
        turn = self._turns.get(event.turn_id)
        if turn is None or turn.backend != event.backend:
            return
        session = turn.session
        turn.wanted = turn.wanted.but_for(frozenset((event.backend,)))
        turn.backend = turn.forwarded_s = turn.ttft_s = None
        turn.has_lease = False
        if turn.turn_class is not TurnClass.SIDE:
            session.main_turns.remove(event.turn_id)
            if not session.main_turns:
                self._places.bounced(session, now, commands)
        if turn.turn_class is TurnClass.SIDE or session.main_turns:
            self._go_aside(turn, now, commands)
        elif not self._budgets.fleet.has_another(turn.wanted, now):
            self._reject(turn, Reason.BACKEND_LOST, now, commands)
        else:
            turn.turn_class = TurnClass.RETURN
            self._hold(turn, now, commands)

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
            if len(session.main_turns) == 1 and session.is_counted:
                self._places.enter_gap(session, event, now, commands, has_lease=turn.has_lease)
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
            arrival = turn.arrival
            self._budgets.ratios.learn(arrival.tenant, arrival.prompt_tokens_estimate, event.prompt_tokens)
            context = event.prompt_tokens + (event.completion_tokens or 0)
        self._may_admit |= context < session.context_tokens
        session.turns += 1
        session.grow_to(context)
        self._budgets.computed(session, event, turn.ttft_s)
        self._budgets.recharge(session)
        self._forecast.turn_ended(session, event, now)

    # -- replicas ---------------------------------------------------------------------------------

    def _stand_alone(self, event: StandingAlone, now: float) -> None:
        """What others count from now on is not counted here. Nothing is advised about it either: their
        sessions go on, and come to rest or through here without a word from those who count them."""
        known = (self.sessions.get(session_id) for session_id in event.sessions_elsewhere)
        elsewhere = [session for session in known if session is not None]
        for session in elsewhere:
            self._gaps.end(session)
            if session.is_counted:
                session.phase = Phase.IDLE
        self._budgets.stand_alone(event.replicas, elsewhere, now)
        self._may_admit = True

    def _resumed(self, event: TurnResumed, now: float, commands: list[Command]) -> None:
        """Its replica brings it along as it stands there. Here it may be known, as it stood before."""
        turn_id = event.arrival.turn_id
        turn = self._turns.get(turn_id)
        if event.backend is not None:
            self._resume_flight(event.arrival, turn, event.backend, now, commands)
        elif turn is None:
            self._arrived(event.arrival, now, commands, waited_s=event.waited_s)
        elif turn_id not in self.held:  # the verdict had not reached its replica
            self._send_again(turn, now, commands)

    def _send_again(self, turn: OpenTurn, now: float, commands: list[Command]) -> None:
        """To where it is counted; if it cannot go there any more it is as if it had been failed there."""
        session = turn.session
        can_stay = session.is_counted and self._budgets.may_stay(session, turn.wanted)
        if turn.turn_class is TurnClass.SIDE or can_stay:
            self._forward(turn, now, commands)
        else:
            assert turn.backend is not None, "a turn that is not held is in flight"
            self._bounced(TurnBounced(turn.arrival.turn_id, turn.backend), now, commands)

    def _resume_flight(
        self,
        arrival: TurnArrived,
        turn: OpenTurn | None,
        backend: str,
        now: float,
        commands: list[Command],
    ) -> None:
        """It is counted where it flies, whether it fits or not."""
        if turn is not None and arrival.turn_id not in self.held:
            return
        if backend not in self.backends:  # it ends where nobody counts
            if turn is not None:
                self._close(turn, now, commands)
            return
        if turn is None and (turn := self._open_flight(arrival, now, commands)) is None:
            return
        session, turn.backend = turn.session, backend
        if turn.turn_class is TurnClass.SIDE:
            return
        self._places.returned(session, now)
        context = self._budgets.context_of(arrival, session)
        if not session.is_counted:
            self._places.count(session, self.backends[backend], context)
        session.context_tokens = context
        self._budgets.recharge(session)
        self._release_held(turn, now, commands, is_under_way=True)

    def _open_flight(self, arrival: TurnArrived, now: float, commands: list[Command]) -> OpenTurn | None:
        """Of what it finds in the cache nothing can be learned: it was sent from another state."""
        session = self._session_of(arrival, now, commands)
        if session is None:
            return None
        is_side = arrival.kind is TurnKind.SIDE
        turn_class = TurnClass.SIDE if is_side else TurnClass.RETURN
        turn = OpenTurn(arrival, session, turn_class, now, Wanted(arrival.model))
        self._turns[arrival.turn_id] = turn
        self.sessions.open_turn(session, arrival.turn_id, now)
        if not is_side:
            self._forecast.turn_arrived(session, self._budgets.context_of(arrival, session), now)
        return turn

    def _session_ended(self, event: SessionEnded, now: float, commands: list[Command]) -> None:
        session = self.sessions.get(event.session_id)
        if session is None:
            return
        session.is_over = True
        if not session.open_turns:
            if not session.is_counted:
                self._places.let_go(session, commands)
            self._forget(session, now, commands)
        elif session.phase is Phase.TOOL_GAP:  # only side calls are left
            self._places.end_gap(session, now, commands)

    def _forget(self, session: SessionState, now: float, commands: list[Command]) -> None:
        self._places.end_gap(session, now, commands)
        self.sessions.remove(session)
        self._places.leases.forget(session)
        self._forecast.session_forgotten(session)
        commands.append(ForgetSession(session.id))

    # -- time -------------------------------------------------------------------------------------

    def _time_passed(self, now: float, commands: list[Command]) -> None:
        for session in self._gaps.pop_over(now):
            self._places.end_gap(session, now, commands)
        for session in self.sessions.expired(now):
            self._forget(session, now, commands)
        for held in self.held.held_too_long(self._admission.max_hold_s, now):
            turn = self._turns[held.turn_id]
            is_open = self._budgets.fleet.has_another(turn.wanted, now)
            self._reject(turn, Reason.HELD_TOO_LONG if is_open else nowhere(turn.wanted), now, commands)

    def _rearm(self, now: float, commands: list[Command]) -> None:
        """Ask to be called when the next thing falls due, unless that is already arranged."""
        due_s = inf
        if (waiting_s := self.held.longest_waiting_s()) is not None:
            due_s = max(now, waiting_s + self._admission.max_hold_s)  # one that bounced may be over it
            if (overdue_s := self._gaps.next_overdue_s()) is not None and overdue_s < due_s:
                due_s = overdue_s
        if (over_s := self._gaps.next_over_s()) is not None and over_s < due_s:
            due_s = over_s
        if (expiry_s := self.sessions.next_expiry_s()) is not None and expiry_s < due_s:
            due_s = expiry_s
        if due_s < (inf if self._timer_s is None else self._timer_s):
            self._timer_s = due_s
            commands.append(SetTimer(due_s))
