"""The policy: one object, one door.

``Policy.handle(event, now)`` is the only thing that changes policy state. It returns the commands to
enact; capacity is taken in the same call that grants it, so nothing can change its mind in between.

What it decides, in this version: a continuation of a counted session goes at once; every other turn
goes when its session's footprint fits the backend's KV budget and, for a new session, when the tool
hosts have room; returns go before new sessions. Where telemetry is unknown a fixed cap on sessions
takes the budget's place.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from marsproxy.core.admission import HeldTurn, HoldQueue, footprint
from marsproxy.core.commands import (
    Command,
    ForgetSession,
    ForwardTurn,
    HoldTurn,
    Reason,
    RejectTurn,
    SetTimer,
)
from marsproxy.core.estimate import PeakEstimator, ReturnRate, TokenRatio
from marsproxy.core.events import (
    BackendObserved,
    BackendUnreachable,
    Ending,
    Event,
    SessionEnded,
    TimerFired,
    ToolHostsObserved,
    ToolObserved,
    TurnArrived,
    TurnEnded,
    TurnFirstToken,
)
from marsproxy.core.evidence import TurnKind
from marsproxy.core.headroom import BackendState, ToolHosts
from marsproxy.core.priority import TurnClass, priority
from marsproxy.core.sessions import Phase, SessionState, SessionTable
from marsproxy.core.settings import PolicySettings


@dataclass(slots=True)
class OpenTurn:
    """A turn between its arrival and its ending."""

    arrival: TurnArrived
    session: SessionState
    turn_class: TurnClass


class Policy:
    """Decides which turns go, wait or are refused. See the module for the rules.

    Args:
        backends: names of the vLLM servers, at least one.
    """

    def __init__(self, settings: PolicySettings, backends: Sequence[str]) -> None:
        assert backends, "a policy without a backend has nowhere to send a turn"
        self._admission = settings.admission
        self.sessions = SessionTable(settings.sessions)
        self.backends = {name: BackendState(name) for name in backends}
        self.held = HoldQueue()
        self.tool_hosts = ToolHosts()
        self._turns: dict[str, OpenTurn] = {}
        self._gaps: deque[tuple[float, SessionState]] = deque()
        """Tool gaps by start; a session that moved on since is skipped when its entry comes up."""
        self._peaks = PeakEstimator()
        self._ratio = TokenRatio()
        self._returns = ReturnRate()
        self._timer_s: float | None = None

    @property
    def open_turns(self) -> int:
        return len(self._turns)

    def handle(self, event: Event, now: float) -> list[Command]:
        commands: list[Command] = []
        match event:
            case TurnArrived():
                self._arrived(event, now, commands)
            case TurnFirstToken():
                pass
            case TurnEnded():
                self._ended(event, now, commands)
            case BackendObserved():
                self.backends[event.backend].observe(event, now)
                self._drain(now, commands)
            case BackendUnreachable():
                self.backends[event.backend].is_reachable = False
            case ToolObserved():
                pass
            case ToolHostsObserved():
                self.tool_hosts.observe(event, now)
                self._drain(now, commands)
            case SessionEnded():
                self._session_ended(event, now, commands)
            case TimerFired():
                self._timer_s = None
                self._time_passed(now, commands)
            case _:
                assert_never(event)
        self._rearm(commands)
        return commands

    # -- arrivals ---------------------------------------------------------------------------------

    def _arrived(self, event: TurnArrived, now: float, commands: list[Command]) -> None:
        session = self._session_of(event, now, commands)
        if session is None:
            commands.append(RejectTurn(event.turn_id, Reason.TABLE_FULL, self._admission.retry_after_s))
            return
        self._learn_return(session, now)
        turn = OpenTurn(event, session, self._classify(event, session))
        self._turns[event.turn_id] = turn
        session.open_turns.add(event.turn_id)
        self.sessions.touch(session, now)
        if turn.turn_class is TurnClass.SIDE or session.is_counted:
            self._forward(turn, commands)
        elif len(self.held) >= self._admission.max_held_turns:
            self._reject(turn, Reason.QUEUE_FULL, commands)
        else:
            self._hold(turn, now, commands)

    def _session_of(self, event: TurnArrived, now: float, commands: list[Command]) -> SessionState | None:
        """The session's row, made if need be; None when the table is full of sessions at work."""
        if (known := self.sessions.get(event.session_id)) is not None:
            return known
        if self.sessions.is_full():
            victim = self.sessions.longest_idle()
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
        """Queue the turn and let everybody that fits go, perhaps this one among them."""
        turn_id = turn.arrival.turn_id
        held = HeldTurn(turn_id, turn.session.id, turn.turn_class, now)
        self.held.add(held)
        self._drain(now, commands)
        if position := self.held.position(turn_id):
            turn.session.phase = Phase.QUEUED if not turn.session.main_turns else turn.session.phase
            commands.append(HoldTurn(turn_id, held.reason, position))

    # -- admission --------------------------------------------------------------------------------

    def _drain(self, now: float, commands: list[Command]) -> None:
        """Forward held turns while any of the first few fits."""
        while self.held and self._admit_one(now, commands):
            pass

    def _admit_one(self, now: float, commands: list[Command]) -> bool:
        for held in self.held.candidates(self._admission.look_ahead, self._admission.max_overtakes):
            turn = self._turns[held.turn_id]
            backend, obstacle = self._place(turn, now)
            if obstacle is not None:
                held.reason = obstacle
                continue
            self.held.overtake(held)
            self.held.remove(held.turn_id)
            if not turn.session.is_counted:
                backend.charge(turn.session)
            self._forward(turn, commands)
            return True
        return False

    def _place(self, turn: OpenTurn, now: float) -> tuple[BackendState, Reason | None]:
        """The backend for a turn, and what keeps the turn from going there now (None: nothing)."""
        session = turn.session
        loads = {name: self._reserved_tokens(backend, now) for name, backend in self.backends.items()}
        backend = self.backends.get(session.backend or "")
        if backend is None:
            backend = min(self.backends.values(), key=lambda b: self._relative_load(b, loads[b.name], now))
        if session.is_counted or not backend.counted:
            return backend, None
        if turn.turn_class is TurnClass.NEW and self._tools_are_busy(now):
            return backend, Reason.TOOLS_BUSY
        pool = backend.known_pool_tokens(now, self._admission.telemetry_stale_s)
        if pool is None:
            is_capped = len(backend.counted) >= self._admission.fallback_concurrency
            return backend, Reason.TELEMETRY_UNKNOWN if is_capped else None
        need = self._footprint(session, pool, self._ratio.corrected(turn.arrival.prompt_tokens_estimate))
        fits = loads[backend.name] + need <= self._admission.kv_target * pool
        return backend, None if fits else Reason.KV_FULL

    def _relative_load(self, backend: BackendState, reserved: float, now: float) -> tuple[bool, float]:
        pool = backend.known_pool_tokens(now, self._admission.telemetry_stale_s)
        return (not backend.is_reachable, reserved / pool if pool else float(len(backend.counted)))

    def _reserved_tokens(self, backend: BackendState, now: float) -> float:
        pool = backend.known_pool_tokens(now, self._admission.telemetry_stale_s)
        return sum(self._footprint(session, pool, 0) for session in backend.counted.values())

    def _footprint(self, session: SessionState, pool: int | None, context_tokens: int) -> float:
        prior = float(self._admission.peak_prior_tokens)
        if pool is not None:
            prior = min(prior, pool * self._admission.peak_prior_pool_share)
        peak = self._peaks.expected(session.family, prior)
        return footprint(session, context_tokens, peak, self._admission.growth_beta)

    def _tools_are_busy(self, now: float) -> bool:
        limits = self._admission
        return self.tool_hosts.are_busy(now, per_core=limits.tools_per_core, stale_s=limits.telemetry_stale_s)

    def _forward(self, turn: OpenTurn, commands: list[Command]) -> None:
        session, event = turn.session, turn.arrival
        if turn.turn_class is not TurnClass.SIDE:
            session.main_turns.add(event.turn_id)
            session.phase = Phase.GENERATING
            session.context_tokens = session.context_tokens or self._ratio.corrected(
                event.prompt_tokens_estimate
            )
        backend = session.backend or self._least_loaded()
        rank = priority(turn.turn_class, session.first_arrival_s)
        commands.append(ForwardTurn(event.turn_id, backend, rank, turn.turn_class.value))

    def _least_loaded(self) -> str:
        return min(self.backends.values(), key=lambda b: (not b.is_reachable, len(b.counted))).name

    def _reject(self, turn: OpenTurn, reason: Reason, commands: list[Command]) -> None:
        self._close(turn)
        commands.append(RejectTurn(turn.arrival.turn_id, reason, self._admission.retry_after_s))

    # -- endings ----------------------------------------------------------------------------------

    def _ended(self, event: TurnEnded, now: float, commands: list[Command]) -> None:
        turn = self._turns.get(event.turn_id)
        if turn is None:
            return
        self._close(turn)
        session = turn.session
        self.sessions.touch(session, now)
        if turn.turn_class is not TurnClass.SIDE:
            if event.ending is Ending.FINISHED:
                self._learn_size(turn, event)
            if not session.main_turns and not self._is_held(session):
                self._enter_gap(turn, event, now)
        if session.is_over and not session.open_turns:
            self._forget(session, now, commands)
        self._drain(now, commands)

    def _close(self, turn: OpenTurn) -> None:
        turn_id = turn.arrival.turn_id
        del self._turns[turn_id]
        self.held.remove(turn_id)
        turn.session.open_turns.discard(turn_id)
        turn.session.main_turns.discard(turn_id)

    def _learn_size(self, turn: OpenTurn, event: TurnEnded) -> None:
        estimate = turn.arrival.prompt_tokens_estimate
        if event.prompt_tokens is None:
            context = max(turn.session.context_tokens, self._ratio.corrected(estimate))
        else:
            self._ratio.learn(estimate, event.prompt_tokens)
            context = event.prompt_tokens + (event.completion_tokens or 0)
        turn.session.turns += 1
        turn.session.grow_to(context)

    def _enter_gap(self, turn: OpenTurn, event: TurnEnded, now: float) -> None:
        """The session's last turn in flight is over: what is it doing now?"""
        session = turn.session
        session.gap_signature = event.tool_signature
        session.is_after_text = event.ending is Ending.FINISHED and event.tool_calls == 0
        session.declares_tools = turn.arrival.has_tools
        if event.ending is Ending.ABORTED or (session.is_after_text and not self._expects_return(session)):
            self._go_idle(session)
            return
        session.phase = Phase.TOOL_GAP
        self._gaps.append((now, session))

    def _expects_return(self, session: SessionState) -> bool:
        return self._returns.is_return_likely(session.family, prior=float(not session.declares_tools))

    def _learn_return(self, session: SessionState, now: float) -> None:
        """A turn arrived, or never will: did the text answer before it end the agent's work?"""
        if session.is_after_text:
            session.is_after_text = False
            has_returned = now - session.last_event_s <= self._admission.idle_gap_s
            prior = float(not session.declares_tools)
            self._returns.learn(session.family, has_returned=has_returned, prior=prior)

    def _go_idle(self, session: SessionState) -> None:
        """Give the budget back. The blocks stay cached until somebody needs them."""
        session.phase = Phase.IDLE
        self._uncount(session)
        self._learn_peak(session)

    def _uncount(self, session: SessionState) -> None:
        if session.is_counted:
            assert session.backend is not None, "a counted session has a backend"
            self.backends[session.backend].release(session)

    def _learn_peak(self, session: SessionState) -> None:
        if session.turns:
            self._peaks.learn(session.family, session.id, session.peak_tokens)

    def _is_held(self, session: SessionState) -> bool:
        return any(self._turns[turn_id].turn_class is not TurnClass.SIDE for turn_id in session.open_turns)

    def _session_ended(self, event: SessionEnded, now: float, commands: list[Command]) -> None:
        session = self.sessions.get(event.session_id)
        if session is None:
            return
        session.is_over = True
        if not session.open_turns:
            self._forget(session, now, commands)
        self._drain(now, commands)

    def _forget(self, session: SessionState, now: float, commands: list[Command]) -> None:
        self._learn_return(session, now)
        self._uncount(session)
        self._learn_peak(session)
        self.sessions.remove(session.id)
        commands.append(ForgetSession(session.id))

    # -- time -------------------------------------------------------------------------------------

    def _time_passed(self, now: float, commands: list[Command]) -> None:
        self._end_long_gaps(now)
        for session in self.sessions.expired(now):
            self._forget(session, now, commands)
        for held in self._held_too_long(now):
            self._reject(self._turns[held.turn_id], Reason.HELD_TOO_LONG, commands)
        self._drain(now, commands)

    def _end_long_gaps(self, now: float) -> None:
        while self._gaps and self._gaps[0][0] + self._admission.idle_gap_s <= now:
            started_s, session = self._gaps.popleft()
            if session.phase is Phase.TOOL_GAP and session.last_event_s <= started_s:
                self._go_idle(session)

    def _held_too_long(self, now: float) -> list[HeldTurn]:
        deadline = now - self._admission.max_hold_s
        return [held for held in self.held if held.arrived_s <= deadline]

    def _rearm(self, commands: list[Command]) -> None:
        """Ask to be called when the next thing falls due, unless that is already arranged."""
        due = [held.arrived_s + self._admission.max_hold_s for held in self.held.oldest()]
        if self._gaps:
            due.append(self._gaps[0][0] + self._admission.idle_gap_s)
        if (expiry := self.sessions.next_expiry_s()) is not None:
            due.append(expiry)
        if due and (self._timer_s is None or min(due) < self._timer_s):
            self._timer_s = min(due)
            commands.append(SetTimer(self._timer_s))
