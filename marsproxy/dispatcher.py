"""Between the policy and the connections: enacts commands, turns what happens into events.

Nothing in here awaits: an event is handled, logged and enacted in one go, so no other request can slip
between a decision and its effect. Waiting is the business of who holds the ``Turn``.
"""

import asyncio
import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

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
    TurnArrived,
    TurnEnded,
    TurnFirstToken,
    TurnProgressed,
)
from marsproxy.core.evidence import Resolution, TurnKind
from marsproxy.core.identity import SessionIndex
from marsproxy.core.scheduling import SchedulingPolicy
from marsproxy.eventlog import EventLog
from marsproxy.hints import Hints
from marsproxy.metrics import Metrics
from marsproxy.wire.answers import AnswerRead
from marsproxy.wire.endings import says_done
from marsproxy.wire.requests import ParsedRequest

log = logging.getLogger(__name__)

PROGRESS_INTERVAL_S = 1.0
"""Least time between two reports of how far a turn is: telemetry is no fresher."""


class Refused(Exception):
    """The policy said no to a turn."""

    def __init__(self, reason: Reason, retry_after_s: float) -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.retry_after_s = retry_after_s


@dataclass(slots=True)
class Turn:
    """A tracked request on its way through the proxy."""

    id: str
    resolution: Resolution
    request: ParsedRequest
    arrived_s: float
    verdict: asyncio.Future[ForwardTurn]
    """Done when the turn may go; fails with ``Refused``."""
    held: HoldTurn | None = None
    """Set while the turn is held."""
    forward: ForwardTurn | None = None
    forwarded_s: float | None = None
    ttft_s: float | None = None
    progress_told_s: float = 0.0

    def __str__(self) -> str:
        return f"session {self.resolution.session_id} turn {self.resolution.turn}"

    @property
    def held_ms(self) -> int:
        return 0 if self.forwarded_s is None else round((self.forwarded_s - self.arrived_s) * 1000)


class Dispatcher:
    """Owns the policy, the identity index and the turns in between."""

    def __init__(
        self,
        policy: SchedulingPolicy,
        index: SessionIndex,
        metrics: Metrics,
        event_log: EventLog | None,
        hints: Hints,
        *,
        clock: Callable[[], float],
        set_timer: Callable[[float, Callable[[], None]], None],
    ) -> None:
        self.policy = policy
        self.index = index
        self._metrics = metrics
        self._event_log = event_log
        self._hints = hints
        self._clock = clock
        self._set_timer = set_timer
        self._turns: dict[str, Turn] = {}
        self._ids = itertools.count(1)

    @property
    def open_turns(self) -> int:
        return len(self._turns)

    def arrive(self, request: ParsedRequest) -> Turn:
        """Take in a request. Its turn must be ended by ``end``, whatever happens."""
        now = self._clock()
        turn_id = f"t{next(self._ids):x}"
        found = self.index.resolve(turn_id, request.evidence, now)
        turn = Turn(turn_id, found, request, now, asyncio.get_running_loop().create_future())
        self._turns[turn_id] = turn
        self._metrics.turn_arrived(found.level)
        self.tell(
            TurnArrived(
                turn_id=turn_id,
                session_id=found.session_id,
                kind=found.kind,
                tenant=request.evidence.tenant,
                family=request.evidence.family or "",
                prompt_tokens_estimate=request.prompt_bytes // BYTES_PER_TOKEN,
                turn=found.turn,
                parent_session_id=found.parent_session_id,
                max_tokens=request.max_tokens,
                has_tools=request.evidence.has_tools,
                is_streaming=request.is_streaming,
            )
        )
        return turn

    def first_token(self, turn: Turn) -> None:
        turn.progress_told_s = now = self._clock()
        turn.ttft_s = now - turn.arrived_s
        self.tell(TurnFirstToken(turn.id))

    def progressed(self, turn: Turn, completion_tokens: int) -> bool:
        """The turn has generated so many tokens; False if it is too early to tell the policy again."""
        now = self._clock()
        if now - turn.progress_told_s < PROGRESS_INTERVAL_S:
            return False
        turn.progress_told_s = now
        self.tell(TurnProgressed(turn.id, completion_tokens))
        return True

    def end(self, turn: Turn, ending: Ending, answer: AnswerRead | None) -> None:
        """The turn is over. Called once for every turn that arrived."""
        del self._turns[turn.id]
        # A verdict that nobody will read any more must not be reported as lost.
        if turn.verdict.done() and not turn.verdict.cancelled():
            turn.verdict.exception()
        now = self._clock()
        self._metrics.turn_ended(turn.resolution.kind, ending, now - turn.arrived_s, turn.ttft_s)
        self._let_go(turn, now)
        if ending is Ending.FINISHED and answer is not None:
            self.index.answered(turn.id, answer.evidence, now)
        else:
            self.index.abandoned(turn.id, now)
        self.tell(_ended(turn.id, ending, answer))

    def end_session(self, session_id: str) -> bool:
        """Somebody says that a session is over. False if it is not known."""
        is_known = self.policy.sessions.get(session_id) is not None
        self.tell(SessionEnded(session_id))
        return is_known

    def tell(self, event: Event) -> None:
        now = self._clock()
        commands = self.policy.handle(event, now)
        self._metrics.told(event)
        if self._event_log is not None:
            self._event_log.record(now, event)
            for command in commands:
                self._event_log.record(now, command)
        for command in commands:
            self._enact(command, now)

    def _enact(self, command: Command, now: float) -> None:
        match command:
            case ForwardTurn():
                turn = self._turns[command.turn_id]
                turn.forward, turn.forwarded_s = command, now
                log.debug("%s goes to %s: %s", turn, command.backend, command.decision)
                self._metrics.decided(command.decision)
                is_side = turn.resolution.kind is TurnKind.SIDE
                self._hints.forwarded(turn.resolution.session_id, command.backend, is_side=is_side)
                self._let_go(turn, now)
                if not turn.verdict.done():
                    turn.verdict.set_result(command)
            case HoldTurn():
                turn = self._turns[command.turn_id]
                turn.held = command
                log.info("%s is held, number %d: %s", turn, command.position, command.reason.value)
                self._metrics.held(command.reason)
            case RejectTurn():
                turn = self._turns[command.turn_id]
                log.warning("%s is refused: %s", turn, command.reason.value)
                self._metrics.rejected(command.reason)
                self._let_go(turn, now)
                if not turn.verdict.done():
                    turn.verdict.set_exception(Refused(command.reason, command.retry_after_s))
            case ForgetSession():
                self.index.forget(command.session_id)
                self._hints.forget(command.session_id)
            case SetTimer():
                self._set_timer(command.at_s, self._timer_fired)
            case HintKv():
                self._hints.hint(command)
            case Reprioritise():
                pass  # no vLLM has a call for it, patched or not
            case _:
                assert_never(command)

    def _let_go(self, turn: Turn, now: float) -> None:
        """If the turn was held, it no longer is."""
        if turn.held is not None:
            self._metrics.released(turn.held.reason, now - turn.arrived_s)
            turn.held = None

    def _timer_fired(self) -> None:
        self.index.expire(self._clock())
        self.tell(TimerFired())


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
