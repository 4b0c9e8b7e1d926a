"""What another policy, or other settings, would have decided about recorded traffic.

Arrivals, tools and telemetry come when they were recorded. A turn that is forwarded later than recorded
is answered as much later; one that is forwarded sooner is answered when it was, and an agent's next turn
comes when it did, although it would have come sooner or later. So this compares decisions, not what they
lead to: for that, ``loadgen simulate``. The recorded column is counted from the recorded commands.

Owns the shifting of recorded endings and the counts. Kept per turn only while it is open, but for eight
bytes for each one that was held.
"""

import heapq
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field

from marsproxy.core.commands import Command, ForwardTurn, HoldTurn, RejectTurn, SetTimer
from marsproxy.core.events import (
    Ending,
    Event,
    TimerFired,
    TurnArrived,
    TurnEnded,
    TurnFirstToken,
    TurnProgressed,
    TurnResumed,
)
from marsproxy.core.scheduling import SchedulingPolicy
from marsproxy.log_reader import LogEntry
from marsproxy.replay import Decision, ReplayStopped, answer, decisions

AnswerEvent = TurnFirstToken | TurnProgressed | TurnEnded


@dataclass(slots=True)
class Tally:
    """Counts of one policy's decisions. Seconds held run from the hold to whatever ended it."""

    forwarded: int = 0
    refused: int = 0
    held_s: "array[float]" = field(default_factory=lambda: array("d"))
    holding: dict[str, float] = field(default_factory=dict)
    """Turns that are held, since when."""

    @property
    def held(self) -> int:
        return len(self.held_s) + len(self.holding)

    def take(self, commands: Iterable[Command], now: float) -> None:
        for command in commands:
            match command:
                case ForwardTurn():
                    self.forwarded += 1
                    self.release(command.turn_id, now)
                case RejectTurn():
                    self.refused += 1
                    self.release(command.turn_id, now)
                case HoldTurn():
                    self.holding.setdefault(command.turn_id, now)

    def restart(self) -> None:
        """Count from here; who is held now counts when that hold is over."""
        self.forwarded = self.refused = 0
        del self.held_s[:]

    def release(self, turn_id: str, now: float) -> None:
        if (since := self.holding.pop(turn_id, None)) is not None:
            self.held_s.append(now - since)

    def held_quantile_s(self, share: float) -> float | None:
        """Nearest rank, of the holds that are over; None if there is none."""
        if not self.held_s:
            return None
        return sorted(self.held_s)[min(len(self.held_s) - 1, int(share * len(self.held_s)))]


@dataclass(slots=True)
class _OpenTurn:
    recorded_s: float | None = None
    """When it was forwarded in the recording."""
    forwarded_s: float | None = None
    early: list[tuple[float, AnswerEvent]] = field(default_factory=list)
    """Recorded while this policy still holds it."""

    @property
    def delay_s(self) -> float:
        if self.forwarded_s is None or self.recorded_s is None:
            return 0.0
        return max(0.0, self.forwarded_s - self.recorded_s)


@dataclass(slots=True)
class WhatIf:
    """One policy under recorded traffic. ``run`` it once."""

    policy: SchedulingPolicy
    recorded: Tally = field(default_factory=Tally)
    asked: Tally = field(default_factory=Tally)
    """What the policy in question decided."""
    stopped: str | None = None
    _turns: dict[str, _OpenTurn] = field(default_factory=dict)
    _due: list[tuple[float, int, AnswerEvent]] = field(default_factory=list)
    _pushed: int = 0
    _timer_s: float | None = None
    _number: int = 0

    def run(self, entries: Iterable[LogEntry]) -> None:
        try:
            for decision in decisions(entries):
                self._number = decision.number
                self._catch_up(decision.now)
                self._replay(decision)
        except ReplayStopped as stop:
            self.stopped = str(stop)

    def _replay(self, decision: Decision) -> None:
        event, now = decision.event, decision.now
        match event:
            case TimerFired():
                pass  # of the recorded policy's timer; this one has its own
            case TurnFirstToken() | TurnProgressed() | TurnEnded():
                self._answered(event, now)
            case TurnArrived():
                self._turns[event.turn_id] = _OpenTurn()
                self._tell(event, now)
            case TurnResumed():
                resumed_s = None if event.backend is None else now
                self._turns[event.arrival.turn_id] = _OpenTurn(resumed_s, resumed_s)
                self._tell(event, now)
            case _:
                self._tell(event, now)
        self._take_recorded(decision)

    def _take_recorded(self, decision: Decision) -> None:
        self.recorded.take(decision.commands, decision.now)
        if isinstance(decision.event, TurnEnded):
            self.recorded.release(decision.event.turn_id, decision.now)
        for command in decision.commands:
            if isinstance(command, ForwardTurn) and (turn := self._turns.get(command.turn_id)) is not None:
                turn.recorded_s = decision.now

    def _answered(self, event: AnswerEvent, now: float) -> None:
        """A step of an answer, or its end, is in the log."""
        turn = self._turns.get(event.turn_id)
        if turn is None:
            return  # this policy refused it, or its client has gone
        if isinstance(event, TurnEnded) and (event.ending is Ending.ABORTED or turn.recorded_s is None):
            self._tell(event, now)  # the client's patience, or a refusal, is not shifted
        elif turn.forwarded_s is None:
            turn.early.append((now, event))
        else:
            self._push(now + turn.delay_s, event)

    def _push(self, at_s: float, event: AnswerEvent) -> None:
        self._pushed += 1
        heapq.heappush(self._due, (at_s, self._pushed, event))

    def _catch_up(self, now: float) -> None:
        """Everything of our own that is due by ``now``, in order."""
        while True:
            due_s = self._due[0][0] if self._due else None
            if (
                self._timer_s is not None
                and self._timer_s <= now
                and (due_s is None or self._timer_s < due_s)
            ):
                at_s, self._timer_s = self._timer_s, None
                self._tell(TimerFired(), at_s)
            elif due_s is not None and due_s <= now:
                at_s, _, event = heapq.heappop(self._due)
                self._tell(event, at_s)
            else:
                return

    def _tell(self, event: Event, now: float) -> None:
        if isinstance(event, AnswerEvent) and event.turn_id not in self._turns:
            return  # its end has been told before
        if isinstance(event, TurnEnded):
            del self._turns[event.turn_id]
            self.asked.release(event.turn_id, now)
        commands = answer(self.policy, event, now, self._number)
        self.asked.take(commands, now)
        for command in commands:
            match command:
                case ForwardTurn():
                    self._forwarded(self._turns[command.turn_id], now)
                case SetTimer():
                    self._timer_s = command.at_s
        for command in commands:  # as the proxy does: a refused turn is over once the client is told
            if isinstance(command, RejectTurn):
                self._tell(TurnEnded(command.turn_id, Ending.FAILED), now)

    def _forwarded(self, turn: _OpenTurn, now: float) -> None:
        turn.forwarded_s = now
        for recorded_s, event in turn.early:
            self._push(recorded_s + turn.delay_s, event)
        turn.early.clear()
