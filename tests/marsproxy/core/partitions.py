"""Replicas, their log and their clients in virtual time: records come late, members are given up, the log
is lost and founded anew.

``Replica`` is what dispatcher and journal are together: it enacts what concerns its own turns. A turn's
client knows what became of it, whatever a state says.
"""

import pickle
from dataclasses import dataclass, field
from math import inf

from marsproxy.core.commands import Command, ForwardTurn, RejectTurn, SetTimer
from marsproxy.core.events import BackendObserved, Ending, Event, TimerFired, TurnEnded, TurnResumed
from marsproxy.core.evidence import AnswerEvidence, Level, Schema, TurnEvidence
from marsproxy.core.identity import IdentityLimits, SessionIndex
from marsproxy.core.policy import Policy
from marsproxy.core.settings import PolicySettings
from marsproxy.core.shared_state import (
    Arrival,
    Departure,
    Happening,
    MemberAlone,
    MemberJoined,
    MemberLeft,
    Outcome,
    Resumption,
    SharedState,
)
from tests.marsproxy.core.playbook import ROUND_NUMBERS, STEADY

GPU = "gpu"
POOL_TOKENS, SESSION_TOKENS = 100_000, 15_000
SETTINGS = PolicySettings(ROUND_NUMBERS, parts=STEADY)
ROUNDING = 1e-3


@dataclass
class Log:
    """An order of records, from a state on."""

    base: bytes
    records: list[tuple[float, str, Happening]] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)
    outcomes: dict[int, list[Outcome]] = field(default_factory=dict)
    """Of each record, as whoever applied it first found them."""

    def append(self, now: float, member: str, happening: Happening) -> bool:
        if member in self.gone:
            return False
        if isinstance(happening, MemberLeft):
            self.gone.add(happening.member)
        self.records.append((now, member, happening))
        return True

    def state_at(self, position: int) -> SharedState:
        state = pickle.loads(self.base)
        assert isinstance(state, SharedState)
        for now, member, happening in self.records[:position]:
            state.apply(happening, member, now)
        return state

    def agree(self, position: int, outcomes: list[Outcome]) -> None:
        """Whoever applies the record finds what the first one found."""
        assert self.outcomes.setdefault(position, outcomes) == outcomes


def reserved(state: SharedState) -> float:
    return state.policy.backends[GPU].reserved_tokens


def allowance(state: SharedState) -> float:
    """Below 0 where more is held than may be, and nothing of it by this one."""
    policy = state.policy.inner
    assert isinstance(policy, Policy)
    return policy._budgets.target(policy.backends[GPU]) * POOL_TOKENS


def check_budget(state: SharedState, outcomes: list[Outcome]) -> None:
    """Where somebody was let in beside others, all fits."""
    is_admission = any(
        isinstance(command, ForwardTurn) and command.decision in ("new", "return")
        for outcome in outcomes
        for command in outcome.commands
        if not _is_told_again(outcome.event, command)
    )
    if is_admission and len(state.policy.backends[GPU].counted) > 1:
        assert reserved(state) <= allowance(state) + ROUNDING


def _is_told_again(event: Event, command: Command) -> bool:
    """A verdict that had not reached its replica: its capacity was taken before."""
    is_verdict = isinstance(event, TurnResumed) and isinstance(command, ForwardTurn)
    return is_verdict and command.turn_id == event.arrival.turn_id


def new_log() -> Log:
    state = SharedState(Policy(SETTINGS, (GPU,)), SessionIndex(IdentityLimits(), salt=b"salt"))
    log = Log(pickle.dumps(state))
    log.append(0.0, "first", MemberJoined("first"))
    log.append(0.0, "first", BackendObserved(GPU, kv_tokens_total=POOL_TOKENS))
    log.append(0.0, "first", MemberLeft("first"))
    return log


@dataclass
class Turn:
    """As its client sees it."""

    arrival: Arrival
    since_s: float
    backend: str | None = None
    is_refused: bool = False


class Replica:
    def __init__(self, name: str, log: Log) -> None:
        self.name = name
        self.now = 0.0
        self.turns: dict[str, Turn] = {}
        self.ended: list[str] = []
        self.outbox: list[Happening] = []
        self.timer_s = inf
        self.log: Log | None = None
        self._lives = 0
        self._made = 0
        self.join(log, len(log.records), has_left=True)

    @property
    def is_alone(self) -> bool:
        return self.log is None

    # -- clients ----------------------------------------------------------------------------------

    def arrive(self, evidence: TurnEvidence) -> None:
        self._made += 1
        arrival = Arrival(f"{self.member}.{self._made}", evidence, SESSION_TOKENS)
        self.turns[arrival.turn_id] = Turn(arrival, self.now)
        self.tell(arrival)

    def end(self, turn_id: str, ended: TurnEnded, answer: AnswerEvidence | None = None) -> None:
        del self.turns[turn_id]
        self.ended.append(turn_id)
        self.tell(Departure(ended, answer))

    # -- records ----------------------------------------------------------------------------------

    def tell(self, happening: Happening) -> None:
        if self.log is None:
            self._apply(happening, self.member)
        else:
            self.outbox.append(happening)

    def send(self, most: int) -> None:
        while self.log is not None and self.outbox and most:
            if not self.log.append(self.now, self.member, self.outbox[0]):
                self.join(self.log, len(self.log.records), has_left=True)
                return
            del self.outbox[0]
            most -= 1

    def read(self, most: int) -> None:
        while self.log is not None and most and self.position < len(self.log.records):
            at_s, member, happening = self.log.records[self.position]
            outcomes = self.state.apply(happening, member, at_s)
            self.log.agree(self.position, outcomes)
            check_budget(self.state, outcomes)
            self.position += 1
            if happening != MemberLeft(self.member):
                self._enact(outcomes)
            else:
                self.join(self.log, len(self.log.records), has_left=True)
                return
            most -= 1

    def part(self) -> None:
        self.lose_log()
        self.stand_alone()

    def lose_log(self) -> None:
        """The log is not heard of any more: what was told and did not come back is applied here."""
        assert self.log is not None
        unread = self.log.records[self.position :]
        own = [happening for _, member, happening in unread if member == self.member]
        pending, self.outbox, self.log = [*own, *self.outbox], [], None
        for happening in pending:
            self._apply(happening, self.member)

    def stand_alone(self) -> None:
        self._apply(MemberAlone(self.member), self.member)

    def join(self, log: Log, position: int, *, has_left: bool) -> None:
        """Under a new id, from the state of the others as of an earlier record.

        Args:
            has_left: its former self is gone before it comes; else somebody finds out later.
        """
        if has_left and self._lives and self.member not in log.gone:
            log.append(self.now, self.member, MemberLeft(self.member))
        self._lives += 1
        self.log, self.outbox, self.timer_s = log, [], inf
        self.member = f"{self.name}{self._lives}"
        log.append(self.now, self.member, MemberJoined(self.member))
        self.state, self.position = log.state_at(position), position
        self.outbox = [
            Resumption(turn.arrival, turn.backend, 0.0 if turn.backend else self.now - turn.since_s)
            for turn in self.turns.values()
            if not turn.is_refused
        ]
        self.outbox.append(TimerFired())

    def found(self) -> Log:
        """Nobody else is there: what is known here is what all begin with."""
        before, log = self.member, Log(pickle.dumps(self.state))
        self.join(log, 0, has_left=False)
        self.outbox.append(MemberLeft(before))
        return log

    def pass_time(self, now: float) -> None:
        self.now = now
        if self.timer_s <= now:
            self.timer_s = inf
            self.tell(TimerFired())

    def _apply(self, happening: Happening, member: str) -> None:
        outcomes = self.state.apply(happening, member, self.now)
        check_budget(self.state, outcomes)
        self._enact(outcomes)

    def _enact(self, outcomes: list[Outcome]) -> None:
        for command in [command for outcome in outcomes for command in outcome.commands]:
            match command:
                case ForwardTurn() if (turn := self.turns.get(command.turn_id)) is not None:
                    turn.backend = turn.backend or command.backend
                case RejectTurn() if (turn := self.turns.get(command.turn_id)) is not None:
                    turn.is_refused = turn.backend is None
                case SetTimer():
                    self.timer_s = command.at_s


@dataclass
class Client:
    """One session: sends its history, through whichever replica."""

    number: int
    texts: tuple[bytes, ...] = ()
    steps: int = 0

    def evidence(self) -> TurnEvidence:
        explicit_id = f"session {self.number}" if self.number % 2 else None
        texts = (b"system", b"task %d" % self.number, *self.texts)
        level = Level.BODY if explicit_id else None
        return TurnEvidence(
            Schema.CHAT, "", texts, b"", has_tools=True, explicit_id=explicit_id, explicit_level=level
        )

    def answer(self) -> AnswerEvidence:
        """The client has it, and the result of the tool that it calls."""
        self.steps += 1
        answer = b"answer %d of %d" % (self.steps, self.number)
        self.texts = (*self.texts, answer, b"result %d" % self.steps)
        return AnswerEvidence(answer)


def finished(turn_id: str) -> TurnEnded:
    return TurnEnded(turn_id, Ending.FINISHED, SESSION_TOKENS, 0, 0, tool_calls=1)
