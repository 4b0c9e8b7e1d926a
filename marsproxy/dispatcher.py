"""Between the shared state and the connections: tells what happens, enacts what follows from it.

What happens goes into the journal, and comes back from it in the order of all replicas; only then is it
applied. A record is applied, logged and enacted in one go, without waiting, so no other request can slip
between a decision and its effect. Of the commands, those of a turn are enacted where its connection is, and
all others by the replica that told the record. Waiting is the business of who holds the ``Turn``.
"""

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, assert_never

from marsproxy.core.commands import (
    Command,
    ForgetSession,
    ForwardTurn,
    HintKv,
    HoldTurn,
    Reason,
    RejectTurn,
    Reprioritise,
    SetTimer,
)
from marsproxy.core.events import (
    BYTES_PER_TOKEN,
    Ending,
    Event,
    SessionEnded,
    TimerFired,
    ToolObserved,
    ToolPhase,
    TurnArrived,
    TurnBounced,
    TurnEnded,
    TurnFirstToken,
    TurnProgressed,
    TurnResumed,
)
from marsproxy.core.evidence import Resolution, TurnKind
from marsproxy.core.log_format import StateAdopted
from marsproxy.core.scheduling import SchedulingPolicy
from marsproxy.core.shared_state import Arrival, Departure, Happening, MemberLeft, Resumption, SharedState
from marsproxy.core.tenant_limits import LIMIT_REASONS
from marsproxy.eventlog import EventLog
from marsproxy.hints import Hints
from marsproxy.journal import Journal, Replica
from marsproxy.metrics import Metrics
from marsproxy.wire.answers import AnswerRead
from marsproxy.wire.endings import says_done
from marsproxy.wire.requests import ParsedRequest

log = logging.getLogger(__name__)

PROGRESS_INTERVAL_S = 1.0
"""Least time between two reports of how far a turn is: telemetry is no fresher."""

FOLLOWER_DELAY_S = 1.0
"""For how long a replica that does not lead leaves a timer that came due to the one that does: longer than
a record takes to come round, short against what timers are set for."""

MAX_TOLD_ALONE = 5_000
"""Turns that ended while this replica was alone and are kept to be told to the others: a second's work for
all who apply them. Of the older ones the others learn nothing."""


class Refused(Exception):
    """The policy said no to a turn."""

    def __init__(self, reason: Reason, retry_after_s: float) -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.retry_after_s = retry_after_s


class Leaving(Exception):
    """The proxy stops, and this turn was still held."""


@dataclass(slots=True)
class Turn:
    """A tracked request on its way through the proxy."""

    id: str
    request: ParsedRequest
    arrived_s: float
    arrival: Arrival
    """As it was told; told again where its replica goes on from another state."""
    placed: asyncio.Future[Resolution]
    """Done when its session is known: at once, or when the store has given it its place in the order."""
    verdict: asyncio.Future[ForwardTurn]
    """Done when the turn may go; fails with ``Refused`` or ``Leaving``. Another one each time that a backend
    bounced it."""
    held: HoldTurn | None = None
    """Set while the turn is held."""
    forward: ForwardTurn | None = None
    forwarded_s: float | None = None
    ttft_s: float | None = None
    progress_told_s: float = 0.0
    replaced: Resolution | None = None
    """Where it belongs in a state that was adopted since."""

    def __str__(self) -> str:
        return f"session {self.resolution.session_id} turn {self.resolution.turn}"

    @property
    def is_placed(self) -> bool:
        return self.placed.done() and not self.placed.cancelled()

    @property
    def resolution(self) -> Resolution:
        """Only of a turn that is placed; and no verdict comes before that."""
        return self.replaced or self.placed.result()

    @property
    def is_under_way(self) -> bool:
        """Its verdict was taken. A state that has not been told so yet may decide on it once more."""
        return self.forward is not None and self.verdict.done()

    @property
    def is_refused(self) -> bool:
        return self.verdict.done() and not self.verdict.cancelled() and self.verdict.exception() is not None

    @property
    def held_ms(self) -> int:
        return 0 if self.forwarded_s is None else round((self.forwarded_s - self.arrived_s) * 1000)


@dataclass(frozen=True, slots=True)
class _PastTurn:
    """One that was answered, as the others would be told of it."""

    resumption: Resumption
    departure: Departure


class Watch(Protocol):
    """Somebody who explains what was decided. Changes nothing."""

    def note(
        self, policy: SchedulingPolicy, event: Event, commands: Sequence[Command], now: float
    ) -> None: ...

    def adopted(self) -> None:
        """From now on another state is followed: turns open in the old one may never be heard of again."""


class Dispatcher:
    """Owns the shared state and the turns whose connections are here."""

    def __init__(
        self,
        state: SharedState,
        journal_of: Callable[[Replica], Journal],
        metrics: Metrics,
        event_log: EventLog | None,
        hints: Hints,
        *,
        set_timer: Callable[[float, Callable[[], None]], None],
        watch: Watch | None = None,
    ) -> None:
        """
        Args:
            journal_of: makes the journal that drives this.
            set_timer: calls back at a time of the journal's clock; a later call replaces an earlier one.
            watch: is told of all that is applied, by whomever it was told.
        """
        self.state = state
        self.journal = journal_of(self)
        self._metrics = metrics
        self._event_log = event_log
        self._hints = hints
        self._set_timer = set_timer
        self._watch = watch
        self._turns: dict[str, Turn] = {}
        self._departing: dict[str, _PastTurn] = {}
        """By id, those whose end has no place in the order yet."""
        self._told_alone: deque[_PastTurn] = deque(maxlen=MAX_TOLD_ALONE)
        """Whose end only this replica knows, in their order."""
        self._ids = itertools.count(1)
        self._is_leaving = False
        self._timer_due_s: float | None = None
        """When ``TimerFired`` is due, unless it has been told since."""

    @property
    def policy(self) -> SchedulingPolicy:
        return self.state.policy

    @property
    def open_turns(self) -> int:
        return len(self._turns)

    def arrive(self, request: ParsedRequest, model: str | None = None) -> Turn:
        """Take in a request. Its turn must be ended by ``end``, whatever happens.

        Args:
            model: that it asks for, if any backend is known to serve it.
        """
        journal = self.journal
        turn_id = f"{journal.member}.{next(self._ids):x}"
        loop = asyncio.get_running_loop()
        arrival = _arrival_of(turn_id, request, model)
        turn = Turn(turn_id, request, journal.now(), arrival, loop.create_future(), loop.create_future())
        self._turns[turn_id] = turn
        journal.append(arrival)
        return turn

    def bounced(self, turn: Turn, backend: str) -> None:
        """It was forwarded there in vain, and no byte of an answer has reached its client: there will be one
        more verdict."""
        log.info("%s was not taken by %s", turn, backend)
        turn.verdict = asyncio.get_running_loop().create_future()
        turn.forward = None
        self.tell(TurnBounced(turn.id, backend))

    def first_token(self, turn: Turn) -> None:
        turn.progress_told_s = now = self.journal.now()
        turn.ttft_s = now - turn.arrived_s
        self.tell(TurnFirstToken(turn.id))

    def progressed(self, turn: Turn, completion_tokens: int) -> bool:
        """The turn has generated so many tokens; False if it is too early to tell the policy again."""
        now = self.journal.now()
        if now - turn.progress_told_s < PROGRESS_INTERVAL_S:
            return False
        turn.progress_told_s = now
        self.tell(TurnProgressed(turn.id, completion_tokens))
        return True

    def end(self, turn: Turn, ending: Ending, answer: AnswerRead | None) -> None:
        """The turn is over. Called once for every turn that arrived."""
        del self._turns[turn.id]
        # What nobody will read any more must not be reported as lost.
        if turn.verdict.done() and not turn.verdict.cancelled():
            turn.verdict.exception()
        now = self.journal.now()
        if turn.is_placed:
            self._metrics.turn_ended(turn.resolution.kind, ending, now - turn.arrived_s, turn.ttft_s)
        self._let_go(turn, now)
        evidence = None if answer is None else answer.evidence
        departure = Departure(_ended(turn.id, ending, answer), evidence)
        if turn.forward is not None and ending is Ending.FINISHED:
            self._departing[turn.id] = _PastTurn(_resumption_of(turn, now), departure)
        self.journal.append(departure)

    def leave(self) -> None:
        """The process stops: who is held, now or later, is told to come again. Turns in flight go on."""
        self._is_leaving = True
        for turn in list(self._turns.values()):
            if turn.held is not None:
                self._send_away(turn)

    def end_session(self, session_id: str) -> bool:
        """Somebody says that a session is over. False if it is not known."""
        is_known = self.policy.sessions.get(session_id) is not None
        self.tell(SessionEnded(session_id))
        return is_known

    def tell(self, event: Event) -> None:
        """Anything else that happened."""
        self.journal.append(event)

    def applied(self, happening: Happening, member: str, now: float) -> None:
        """A record has its place in the order. That this replica was given up changes the state as it does
        everywhere, but nothing here: what follows for its turns, it learns from the state that it adopts."""
        is_ours = member == self.journal.member
        is_given_up = happening == MemberLeft(self.journal.member)
        for outcome in self.state.apply(happening, member, now):
            event, commands = outcome.event, outcome.commands
            if isinstance(event, TimerFired):
                self._timer_due_s = None
            if outcome.resolution is not None:
                self._placed(event, outcome.resolution)
            if is_ours:
                self._metrics.told(event)
                if isinstance(event, ToolObserved) and event.phase is ToolPhase.STARTED:
                    self._metrics.tools.joined(self.policy.tool_joined_by(event.exec_id))
            if self._event_log is not None:
                self._event_log.record(now, event)
                for command in commands:
                    self._event_log.record(now, command)
            if self._watch is not None:
                self._watch.note(self.policy, event, commands, now)
            for command in () if is_given_up else commands:
                self._enact(command, now, is_ours=is_ours)
        if isinstance(happening, Departure):
            self._departed(happening.ended.turn_id)
        if not self.state.is_alone:
            self._told_alone.clear()

    def adopt(self, state: SharedState, now: float) -> None:
        """Go on from the state that the other replicas have. Whatever was promised to the turns here is
        kept: those that go are told as they go, and those that wait as waiting for so long. What falls due
        in that state was arranged before anybody here heard of it, so it is asked for anew. What ended
        unheard is told first: sessions go on from it. Of an end that is still on its way only the turn is
        missing there."""
        self.state = state
        if self._watch is not None:
            self._watch.adopted()
        if self._event_log is not None:
            self._event_log.record(now, StateAdopted(state.policy.open_turns))
        unheard, departing = list(self._told_alone), list(self._departing.values())
        self._told_alone.clear()
        for past in unheard:
            self.journal.append(past.resumption)
            self.journal.append(past.departure)
        for past in departing:
            self.journal.append(past.resumption)
        for turn in list(self._turns.values()):
            if not turn.is_refused:
                self.journal.append(_resumption_of(turn, now))
        self.tell(TimerFired())

    def _departed(self, turn_id: str) -> None:
        """Its end has its place, in the order of all or in that of this replica alone."""
        past = self._departing.pop(turn_id, None)
        if past is not None and self.state.is_alone:
            self._told_alone.append(past)

    def _placed(self, event: Event, resolution: Resolution) -> None:
        turn = None
        if isinstance(event, TurnArrived):
            turn = self._turns.get(event.turn_id)
        elif isinstance(event, TurnResumed):
            turn = self._turns.get(event.arrival.turn_id)
        if turn is None:
            return
        if turn.is_placed:
            turn.replaced = resolution
        elif not turn.placed.done():
            self._metrics.turn_arrived(resolution.level)
            turn.placed.set_result(resolution)

    def _enact(self, command: Command, now: float, *, is_ours: bool) -> None:
        match command:
            case ForwardTurn():
                self._forward(command, now)
            case HoldTurn():
                turn = self._turns.get(command.turn_id)
                if turn is not None:  # else it waits in another state now
                    self._let_go(turn, now)  # whoever waited for its tenant may now wait for memory
                    turn.held = command
                    log.info("%s is held, number %d: %s", turn, command.position, command.reason.value)
                    self._metrics.held(command.reason)
                    if self._is_leaving:
                        self._send_away(turn)
            case RejectTurn():
                turn = self._turns.get(command.turn_id)
                if turn is not None and not turn.is_under_way:
                    # Of what a tenant may not have there can be thousands of lines a second.
                    level = logging.DEBUG if command.reason in LIMIT_REASONS else logging.WARNING
                    log.log(level, "%s is refused: %s", turn, command.reason.value)
                    self._metrics.rejected(command.reason)
                    self._let_go(turn, now)
                    if not turn.verdict.done():
                        turn.verdict.set_exception(Refused(command.reason, command.retry_after_s))
            case ForgetSession():
                self._hints.forget(command.session_id, tells=is_ours)
            case SetTimer():
                self._arm(command.at_s)
            case HintKv():
                if is_ours:
                    self._hints.hint(command)
            case Reprioritise():
                pass  # no vLLM has a call for it, patched or not
            case _:
                assert_never(command)

    def _forward(self, command: ForwardTurn, now: float) -> None:
        turn = self._turns.get(command.turn_id)
        if turn is None or turn.is_under_way:
            return
        turn.forward, turn.forwarded_s = command, now
        log.debug("%s goes to %s: %s", turn, command.backend, command.decision)
        self._metrics.decided(command.decision)
        is_side = turn.resolution.kind is TurnKind.SIDE
        self._hints.forwarded(turn.resolution.session_id, command.backend, is_side=is_side)
        self._let_go(turn, now)
        if not turn.verdict.done():
            turn.verdict.set_result(command)

    def _send_away(self, turn: Turn) -> None:
        log.info("%s was held and is sent away: the proxy stops", turn)
        if not turn.verdict.done():
            turn.verdict.set_exception(Leaving())

    def _let_go(self, turn: Turn, now: float) -> None:
        """If the turn was held, it no longer is."""
        if turn.held is not None:
            self._metrics.released(turn.held.reason, now - turn.arrived_s)
            turn.held = None

    def _arm(self, due_s: float) -> None:
        self._timer_due_s = due_s
        self._set_timer(due_s if self.journal.leads else due_s + FOLLOWER_DELAY_S, self._timer_fired)

    def _timer_fired(self) -> None:
        """Unless somebody has told it meanwhile."""
        if self._timer_due_s is not None:
            self.tell(TimerFired())


def _arrival_of(turn_id: str, request: ParsedRequest, model: str | None) -> Arrival:
    return Arrival(
        turn_id,
        request.evidence,
        prompt_tokens_estimate=request.prompt_bytes // BYTES_PER_TOKEN,
        max_tokens=request.max_tokens,
        is_streaming=request.is_streaming,
        model=model,
    )


def _resumption_of(turn: Turn, now: float) -> Resumption:
    if turn.forward is not None:
        return Resumption(turn.arrival, turn.forward.backend)
    return Resumption(turn.arrival, None, max(0.0, now - turn.arrived_s))


def _ended(turn_id: str, ending: Ending, answer: AnswerRead | None) -> TurnEnded:
    if answer is None:
        return TurnEnded(turn_id, ending)
    calls = () if says_done(answer.tool_calls) else answer.tool_calls
    return TurnEnded(
        turn_id,
        ending,
        prompt_tokens=answer.prompt_tokens,
        cached_tokens=answer.cached_tokens,
        completion_tokens=answer.completion_tokens,
        tool_calls=len(calls),
        tool_signature=calls[0].name if calls else None,
        command_digests=tuple(call.command_digest for call in calls if call.command_digest),
        tool_call_ids=tuple(call.id for call in calls if call.id),
    )
