"""Sees everything that the policy is told and orders, and keeps what somebody may ask about later.

Is called between a decision and its effect, so it does no more than append: a few microseconds an event.
Owns open turns as they are seen from outside, the states of sessions, the latest decisions, and the times of
late. It asks the policy only for what it has at hand: asking a forecast would refresh what it has learned,
and then a watched proxy would decide otherwise than one that is replayed.
"""

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from marsproxy.core.commands import Command, ForgetSession, ForwardTurn, HintKv, HoldTurn, Reason, RejectTurn
from marsproxy.core.events import (
    BackendObserved,
    Ending,
    Event,
    HintAnswered,
    KvReclaimed,
    LeaseExpired,
    LeaseResumed,
    SessionEnded,
    ToolObserved,
    ToolPhase,
    TurnArrived,
    TurnBounced,
    TurnEnded,
    TurnFirstToken,
    TurnResumed,
)
from marsproxy.core.evidence import TurnKind
from marsproxy.core.policy import Policy
from marsproxy.core.scheduling import SchedulingPolicy
from marsproxy.core.sessions import SessionState
from marsproxy.core.tenant_limits import LimitedPolicy
from marsproxy.live.numbers import Sums
from marsproxy.live.story import Entry, Numbers, PlaceLost, SessionLog, State, Stories, state_of
from marsproxy.live.times import Times

MAX_TURNS = 40_000
"""Open ones; more than the policy holds and any backend has in flight."""
MAX_RUNS = 4_096
"""Tools under way whose session is remembered."""
MAX_DECISIONS = 100


@dataclass(slots=True)
class SeenTurn:
    session_id: str
    kind: TurnKind
    arrived_s: float
    held: HoldTurn | None = None
    held_s: float | None = None


class Watch:
    """See the module."""

    def __init__(self) -> None:
        self.stories = Stories()
        self.turns: OrderedDict[str, SeenTurn] = OrderedDict()
        self.holding: OrderedDict[str, SeenTurn] = OrderedDict()
        """Those that are held, by turn id, in the order in which they began to wait."""
        self.readings: dict[str, BackendObserved] = {}
        """Latest of each backend."""
        self.decisions: deque[tuple[int, str, Entry]] = deque(maxlen=MAX_DECISIONS)
        """Number, session and what it was."""
        self.decided = 0
        """Number of the latest."""
        self.times = Times()
        self.changed: dict[str, None] | None = None
        """Sessions that changed since somebody looked; None while nobody does."""
        self._runs: OrderedDict[str, str] = OrderedDict()
        self._sums = Sums()

    # -- told by the dispatcher -------------------------------------------------------------------

    def adopted(self) -> None:
        self.turns.clear()
        self.holding.clear()
        self._runs.clear()
        for log in self.stories.values():
            log.held_turns = 0

    def note(self, policy: SchedulingPolicy, event: Event, commands: Sequence[Command], now: float) -> None:
        match event:
            case TurnArrived():
                self._arrived(policy, event, now)
            case TurnResumed():
                self._arrived(policy, event.arrival, now - event.waited_s)
                if event.backend is not None:
                    self._settle(policy, event.arrival.session_id, now)
            case TurnFirstToken():
                if (turn := self.turns.get(event.turn_id)) is not None:
                    self.times.first_token(now, now - turn.arrived_s)
                    waited = Numbers(waited_s=now - turn.arrived_s)
                    self._add(turn.session_id, Entry(now, event, waited))
            case BackendObserved():
                self.readings[event.backend] = event
            case TurnBounced():
                if (turn := self.turns.get(event.turn_id)) is not None:
                    self._decided(turn.session_id, Entry(now, event, None))
            case ToolObserved():
                self._tool(policy, event, now)
            case HintAnswered() | KvReclaimed() | LeaseResumed() | LeaseExpired() | SessionEnded():
                self._add(event.session_id, Entry(now, event, None))
            case _:
                pass
        for command in commands:
            self._ordered(policy, command, now)
        if isinstance(event, TurnEnded):
            self._ended(policy, event, now)

    # -- turns ------------------------------------------------------------------------------------

    def _arrived(self, policy: SchedulingPolicy, event: TurnArrived, now: float) -> None:
        self.turns[event.turn_id] = SeenTurn(event.session_id, event.kind, now)
        if len(self.turns) > MAX_TURNS:
            turn_id, _ = self.turns.popitem(last=False)
            self.holding.pop(turn_id, None)
        log = self._begin(event.session_id, event.tenant, now)
        numbers = None
        if event.kind is not TurnKind.SIDE:
            self.note_loss(policy.sessions.get(event.session_id), log)
            if log.gap_since_s is not None:
                gap_s = max(0.0, now - log.gap_since_s)
                numbers = Numbers(gap_expected_s=log.gap_expected_s, gap_s=gap_s)
                log.gap_since_s = log.gap_expected_s = None
        log.entries.append(Entry(now, event, numbers))

    def _ended(self, policy: SchedulingPolicy, event: TurnEnded, now: float) -> None:
        turn = self.turns.pop(event.turn_id, None)
        if turn is None:
            return
        self._let_go(event.turn_id, turn)
        session = policy.sessions.get(turn.session_id)
        log = self._touch(turn.session_id, now)
        numbers = None
        if log is not None and session is not None and turn.kind is not TurnKind.SIDE:
            if event.ending is Ending.FINISHED:
                log.gap_since_s, log.gap_expected_s = now, session.gap_expected_s
                numbers = Numbers(gap_expected_s=session.gap_expected_s)
                if not event.tool_calls:
                    self.times.job_done(turn.session_id, now, now - session.first_arrival_s)
            self._settle(policy, turn.session_id, now)
        self._add(turn.session_id, Entry(now, event, numbers))

    # -- commands ---------------------------------------------------------------------------------

    def _ordered(self, policy: SchedulingPolicy, command: Command, now: float) -> None:
        match command:
            case HoldTurn() | ForwardTurn() | RejectTurn():
                if (turn := self.turns.get(command.turn_id)) is not None:
                    self._verdict(policy, turn, command, now)
            case HintKv():
                self._decided(command.session_id, Entry(now, command, None))
                if (log := self.stories.get(command.session_id)) is not None:
                    self.note_loss(policy.sessions.get(command.session_id), log)
            case ForgetSession():
                self._add(command.session_id, Entry(now, command, None))
                if (log := self.stories.get(command.session_id)) is not None:
                    log.gap_since_s = None
                    log.mark(State.OVER, now)
            case _:
                pass

    def _verdict(
        self,
        policy: SchedulingPolicy,
        turn: SeenTurn,
        command: HoldTurn | ForwardTurn | RejectTurn,
        now: float,
    ) -> None:
        session = policy.sessions.get(turn.session_id)
        waited_s = None if turn.held_s is None else now - turn.held_s
        if isinstance(command, HoldTurn):
            needed = (
                None if session is None or command.reason is not Reason.KV_FULL else session.needed_tokens
            )
            numbers = self._sums.of(policy, self._asked(policy, session, now), self.readings, now, needed)
            if command.reason is Reason.TOOLS_BUSY:
                numbers = Numbers(tools=policy.tool_hosts.last)
            self._hold(command, turn, now)
        elif isinstance(command, ForwardTurn):
            needed = session.charged_tokens if session is not None and session.is_counted else None
            numbers = self._sums.of(policy, command.backend, self.readings, now, needed, waited_s)
            self._let_go(command.turn_id, turn)
        else:
            numbers = Numbers(waited_s=waited_s)
            self._let_go(command.turn_id, turn)
        entry = Entry(now, command, numbers)
        is_plain = isinstance(command, ForwardTurn) and command.decision in ("continuation", "side")
        (self._add if is_plain and waited_s is None else self._decided)(turn.session_id, entry)
        if turn.kind is not TurnKind.SIDE:
            self._settle(policy, turn.session_id, now)

    def _asked(self, policy: SchedulingPolicy, session: SessionState | None, now: float) -> str | None:
        """The backend whose numbers say most: its own, or the one with most room."""
        if session is not None and session.backend is not None:
            return session.backend
        return self._sums.roomiest(policy, now)

    def _hold(self, command: HoldTurn, turn: SeenTurn, now: float) -> None:
        if turn.held is None:
            turn.held_s = now
            if (log := self.stories.get(turn.session_id)) is not None:
                log.held_turns += 1
        turn.held = command
        self.holding[command.turn_id] = turn

    def _let_go(self, turn_id: str, turn: SeenTurn) -> None:
        if turn.held is not None:
            turn.held = turn.held_s = None
            self.holding.pop(turn_id, None)
            if (log := self.stories.get(turn.session_id)) is not None:
                log.held_turns = max(0, log.held_turns - 1)

    # -- tools ------------------------------------------------------------------------------------

    def _tool(self, policy: SchedulingPolicy, event: ToolObserved, now: float) -> None:
        session_id = self._runs.get(event.exec_id)
        if session_id is None:
            inner = policy.inner if isinstance(policy, LimitedPolicy) else policy
            session_id = inner.tool_session(event.exec_id) if isinstance(inner, Policy) else event.llm_session
        if session_id is None or self.stories.get(session_id) is None:
            return
        if event.phase is ToolPhase.FINISHED:
            self._runs.pop(event.exec_id, None)
        else:
            self._runs[event.exec_id] = session_id
            if len(self._runs) > MAX_RUNS:
                self._runs.popitem(last=False)
        self._add(session_id, Entry(now, event, None))
        self._settle(policy, session_id, now)

    # -- sessions ---------------------------------------------------------------------------------

    def note_loss(self, session: SessionState | None, log: SessionLog) -> bool:
        """Places are lost without a word to the shell; the session says when. Whether it is news."""
        if session is None or session.lost_place_s is None or session.lost_place_s == log.lost_place_s:
            return False
        log.lost_place_s = session.lost_place_s
        entry = Entry(session.lost_place_s, PlaceLost(), None)
        log.entries.append(entry)
        self.decided += 1
        self.decisions.append((self.decided, session.id, entry))
        log.mark(State.EVICTED, session.lost_place_s)
        return True

    def _settle(self, policy: SchedulingPolicy, session_id: str, now: float) -> None:
        log, session = self.stories.get(session_id), policy.sessions.get(session_id)
        if log is not None:
            log.mark(state_of(session, log), now)

    def _decided(self, session_id: str, entry: Entry) -> None:
        self.decided += 1
        self.decisions.append((self.decided, session_id, entry))
        self._add(session_id, entry)

    def _add(self, session_id: str, entry: Entry) -> None:
        log = self._touch(session_id, entry.at_s)
        if log is not None:
            log.entries.append(entry)

    def _touch(self, session_id: str, now: float) -> SessionLog | None:
        if self.changed is not None:
            self.changed[session_id] = None
        return self.stories.touch(session_id, now)

    def _begin(self, session_id: str, tenant: str, now: float) -> SessionLog:
        log = self._touch(session_id, now)
        if log is None:
            dropped = self.stories.begin(session_id, tenant, now)
            if self.changed is not None:
                self.changed.update(dict.fromkeys(dropped))
            log = self.stories.get(session_id)
            assert log is not None, "it was begun"
        return log
